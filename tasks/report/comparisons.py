"""How the rows of a study are compared: over photographs and trainings, both as samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hemotune.evaluation.contrasts import Contrast, Term, contrast
from hemotune.evaluation.predictions import Judged
from hemotune.evaluation.statistics import Difference, Estimate, difference
from hemotune.evaluation.trainings import Spread, Training, Trainings, rows_of, spreads_of
from tasks.report.results import FinishedRun, Summary, by_series, judged_alike

FEWEST = 3  # trainings of each row, for words about a factor
LEVEL = 0.05


class Answer(NamedTuple):
    """What the trainings of a row answered, and their spread, None where nothing is known of it."""

    trainings: Trainings
    spread: Spread | None

    @property
    def repeated(self) -> bool:
        """Whether there are enough trainings for words about the row's settings."""
        return self.spread is not None and self.trainings.repeats.sum() >= FEWEST

    def term(self, factor: float) -> Term:
        if self.spread is None:
            raise ValueError("one training says nothing about the spread of others")
        return Term(factor, self.trainings, self.spread)


Answers = dict[tuple[str, str], Answer]  # by series and experiment


@dataclass(frozen=True)
class Comparison(Difference):
    """A difference of two rows; where `contrast` is None it is one of trained models, tested over
    photographs alone.
    """

    contrast: Contrast | None
    trainings: tuple[int, int]  # of the first and the second row


def trainings_of(summary: Summary) -> list[Training]:
    return [training_of(run) for run in summary.finished]


def training_of(run: FinishedRun) -> Training:
    return Training(run.fold or 0, run.repeat, run.judged)


def answers_of(
    summaries: Iterable[Summary], judged_by: Callable[[Judged], Judged] | None = None
) -> Answers:
    """Return the answers of all rows with results.

    Rows of one protocol are over the same photographs; a series has spreads of its own.

    Args:
        judged_by: applied to the tables before, e.g. per_photograph.
    """
    found: Answers = {}
    protocols: dict[str, list[Summary]] = {}
    for summary in summaries:
        if summary.finished:
            protocols.setdefault(summary.protocol, []).append(summary)
    for group in protocols.values():
        trainings = [trainings_of(summary) for summary in group]
        if judged_by:
            trainings = [
                [one._replace(judged=judged_by(one.judged)) for one in row] for row in trainings
            ]
        rows = {
            (summary.series, summary.experiment): row
            for summary, row in zip(group, rows_of(trainings), strict=True)
        }
        for series in by_series(group):
            found |= with_spreads({key: row for key, row in rows.items() if key[0] == series})
    return found


def with_spreads(rows: dict[tuple[str, str], Trainings]) -> Answers:
    """Return the answers of the rows of one series."""
    spreads: Sequence[Spread | None] = spreads_of(list(rows.values())) or [None] * len(rows)
    return {
        key: Answer(row, spread) for (key, row), spread in zip(rows.items(), spreads, strict=True)
    }


def tested_alike(first: Summary, second: Summary, answers: Answers) -> bool:
    """Return whether two rows were tested on some of the same photographs: in folds, where both
    have results of one.
    """
    a, b = (answers[one.series, one.experiment].trainings for one in (first, second))
    return bool(((a.counts > 0) & (b.counts > 0)).any())


def compared(first: Summary, second: Summary, answers: Answers) -> Comparison:
    """Return the accuracy of the second minus that of the first.

    With FEWEST trainings of both it is over photographs and trainings; else the trained models are
    compared over photographs (`hemotune.evaluation.statistics.difference`).
    """
    a, b = (answers[one.series, one.experiment] for one in (first, second))
    if a.repeated and b.repeated:
        found = contrast([a.term(-1), b.term(1)])
        if min(found.repeats) >= FEWEST:
            return of_factor(found)
    before, after = judged_alike([first, second])
    models = difference(before, after)
    counts = (len(first.finished), len(second.finished))
    return Comparison(**vars(models), contrast=None, trainings=counts)


def of_factor(found: Contrast) -> Comparison:
    """Return a contrast of two rows, the first with the factor -1, as a comparison."""
    width = found.half_width(1 - LEVEL)
    return Comparison(
        value=found.value,
        low=None if width is None else found.value - width,
        high=None if width is None else found.value + width,
        units=found.images,
        photographs=found.number,
        repeats=min(found.repeats),
        p=found.p,
        significant=found.p < LEVEL,
        contrast=found,
        trainings=(found.repeats[0], found.repeats[1]),
    )


def accuracy_of(answer: Answer, known: bool = True) -> Estimate | None:
    """Return the accuracy of a row with its interval over photographs and trainings; None where
    there are fewer than FEWEST.

    Args:
        known: whether photographs are known; if not, each image counts as one.
    """
    if not answer.repeated:
        return None
    found = contrast([answer.term(1)])
    bounds = found.accuracy_interval(1 - LEVEL)
    if bounds is None:
        return None
    return Estimate(
        found.value,
        *bounds,
        units=found.images,
        photographs=found.number if known else None,
        repeats=found.repeats[0],
    )
