"""Section 3.1 of the report: what the trainings did, and which of them are unsound."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from hemotune.markup import escaped
from hemotune.settings.report import Unsound
from hemotune.training.records import Delivery, Metrics
from tasks.report.markdown import Row, bold, listed, percent, points, sentence, table
from tasks.report.results import FACTORS, FinishedRun, Summary, spaced
from tasks.report.soundness import FEWEST_EPOCHS

RULES = {
    "dead_units": "dead units",
    "averages": "averages",
    "below_median": "below the median",
    "below_fit": "below the fit",
    "chance": "at chance",
}
# What may be delivered, in the order of the report: keep and averages.
CHOICES = list(itertools.product(("last", "best"), ("as_trained", "recomputed")))


def unsound_trainings(runs: Iterable[FinishedRun]) -> list[str]:
    """Return a line for each unsound training: what is wrong, and what to change."""
    lines = []
    for run in runs:
        if run.problems:
            found = "; ".join(problem.found for problem in run.problems)
            *others, last = dict.fromkeys(
                remedy for problem in run.problems for remedy in problem.remedies
            )
            remedies = f"{', '.join(others)} or {last}" if others else last
            lines.append(f"`{run.key}`: {found}. Try {remedies}.")
    return lines


def note_on(*summaries: Summary) -> str:
    """Return a clause on the unsound trainings of these rows, empty if all are sound."""
    return listed(verdict_on(one, "") for one in summaries if unsound(one))


def unsound_rows(group: Iterable[Summary]) -> list[str]:
    """Return a line for each row of a series that has unsound trainings, with the rules that they
    break.
    """
    lines = []
    for summary in group:
        if found := unsound(summary):
            broken = Counter(problem.rule for run in found for problem in run.problems)
            alone = len(summary.finished) == 1
            rules = "; ".join(
                RULES[rule] if alone else f"{RULES[rule]} in {number}"
                for rule, number in broken.items()
            )
            rate = FACTORS["learning_rate"].wording(summary.learning_rate)
            lines.append(sentence(f"{verdict_on(summary, f' at {rate}')}: {rules}"))
    return lines


def unsound(summary: Summary) -> list[FinishedRun]:
    return [run for run in summary.finished if run.problems]


def verdict_on(summary: Summary, where: str) -> str:
    """Return e.g. `2 of 3 trainings of deep at 1e-4 are unsound`."""
    number, all_trainings = len(unsound(summary)), len(summary.finished)
    share = "the training" if all_trainings == 1 else f"{number} of {all_trainings} trainings"
    verb = "is" if number == 1 else "are"
    return f"{share} of {escaped(summary.experiment)}{where} {verb} unsound"


def rules_of(bounds: Unsound) -> list[str]:
    """Return the rules as sentences."""
    return [
        f"dead units: {bounds.dead_units:.0%} or more of a hidden layer's units are zero on every "
        "training image;",
        "averages: BatchNormalization's averages from other training images change validation by "
        f"more than {points_of(bounds.averages)} and two paired standard errors, either way;",
        f"below the median: validation of the delivered epoch lies more than "
        f"{bounds.below_median:g} paired standard errors below the median of the last five epochs "
        f"(judged from {FEWEST_EPOCHS} epochs on);",
        f"below the fit: training images are recognised more than "
        f"{points_of(bounds.below_fit)} worse without dropout than the fit reported with it;",
        "at chance: validation is not two standard errors above always predicting its most "
        "frequent class.",
    ]


def points_of(bound: float) -> str:
    """Return e.g. `2 points`."""
    return f"{bound:g} point" + ("" if bound == 1 else "s")


def trainings_table(runs: Sequence[FinishedRun]) -> str:
    """Return a table of what each training did with its units and its training images, and its
    verdict.
    """
    head = [
        "Model",
        "Training",
        "Dead units",
        "Train loss, acc (dropout off)",
        "Train acc as fit reported it (dropout on)",
        "Verdict",
    ]
    rows = []
    for run in runs:
        health = run.metrics.health
        broken = ", ".join(RULES[problem.rule] for problem in run.problems)
        rows.append(
            [
                *names_in(run, runs),
                ", ".join(f"{layer.dead} of {layer.units}" for layer in health.hidden),
                f"{health.train.loss:.4f}, {health.train.accuracy:.4f}",
                f"{health.fit_accuracy:.4f}",
                f"**unsound**: {broken}" if broken else "sound",
            ]
        )
    return table(head, rows, left=2)


def names_in(run: FinishedRun, runs: Sequence[FinishedRun]) -> Row:
    """Return the experiment and the training of a run in two cells, with the backbone if the runs
    have several.
    """
    several = len({one.backbone for one in runs}) > 1
    return [bold(run.experiment), f"{run.backbone}, {run.training}" if several else run.training]


def deliveries_table(runs: Sequence[FinishedRun]) -> str:
    """Return a table of the validation that each choice of `keep` and `averages` would have
    delivered, what was delivered in bold, and of what surrounds that.
    """
    head = [
        "Model",
        "Training",
        *[f"{keep.capitalize()}, {spaced(averages)} (epoch)" for keep, averages in CHOICES],
        "Delivered, other averages (points)",
        "Median of the last five [range]",
    ]
    return table(head, [[*names_in(run, runs), *deliveries_cells(run)] for run in runs], left=2)


def deliveries_cells(run: FinishedRun) -> Row:
    """Return what that table has of a training."""
    metrics, health = run.metrics, run.metrics.health
    cells = []
    for choice in CHOICES:
        one = delivery(metrics, *choice)
        cell = f"{percent(one.validation.accuracy)} ({one.epoch})"
        delivered = choice == (metrics.keep, metrics.averages)
        cells.append(f"**{cell}**" if delivered else cell)
    # In the precision of the training, as the deliveries are.
    validation = delivery(metrics, metrics.keep, metrics.averages).validation
    other, last = health.other_averages.accuracy, np.array(health.last_epochs)
    return [
        *cells,
        f"{percent(other)} ({points(other - validation.accuracy)})",
        f"{percent(float(np.median(last)))} [{100 * last.min():.2f}, {100 * last.max():.2f}]",
    ]


def delivery(metrics: Metrics, keep: str, averages: str) -> Delivery:
    """Return what a choice would have delivered."""
    return next(
        one for one in metrics.health.deliveries if (one.keep, one.averages) == (keep, averages)
    )
