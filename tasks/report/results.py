"""The results of the fine-tunes of params.yaml, and summaries of the trainings of an experiment."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from hemotune.evaluation.predictions import Judged, per_photograph, photographs_known
from hemotune.evaluation.statistics import Estimate, accuracy
from hemotune.splits import suffix_of_cut
from hemotune.training.records import Metrics, Scores
from tasks.report.markdown import duration, milliseconds, percent, rate
from tasks.report.soundness import Problem


class Factor(NamedTuple):
    title: str  # of its findings
    column: str  # of the results table
    phrase: str  # in a section's title
    wording: Callable[[Any], str]  # Any: of a value, which is an int, a float or a name


def spaced(name: str) -> str:
    """Return a value of the settings as words, e.g. `as trained`."""
    return name.replace("_", " ")


# The factors of an experiment in the order of the report; the keys are fields of Experiment.
FACTORS = {
    "layers": Factor("Hidden layers", "Hidden Layer", "the number of hidden layers", str),
    "units": Factor("Units of the hidden layers", "Dense Count", "dense value", str),
    "learning_rate": Factor("Learning rate", "Learning Rate", "learning rate value", rate),
    "epochs": Factor("Epochs", "Epochs", "the number of epochs", str),
    "batch_size": Factor("Batch size", "Batch Size", "batch size", str),
    "dropout": Factor("Dropout", "Dropout", "dropout", "{:g}".format),
    "head": Factor("Head", "Head", "the head's input", str),
    "initialization": Factor(
        "Initial weights of the head", "Initialization", "the initial weights of the head", str
    ),
    "freeze": Factor("Frozen layers", "Frozen", "the frozen layers", str),
    "batch_norm": Factor("BatchNormalization", "BatchNorm", "BatchNormalization", str),
    "augmentation": Factor("Augmentation", "Augmentation", "augmentation", str),
    "warm_up": Factor("Warm-up", "Warm-Up (epochs)", "the epochs of warm-up", "{:g}".format),
    "class_weights": Factor("Class weights", "Class Weights", "class weights", str),
    "keep": Factor("Epoch that is kept", "Keep", "the epoch that is kept", str),
    "averages": Factor("Averages", "Averages", "BatchNormalization's averages", spaced),
}
# Those of the original; the others are shown where they differ between rows.
ORIGINAL_FACTORS = ("layers", "units", "learning_rate")
SPLITS = ("train", "validation", "test")
# Columns of results.csv that hold a value of metrics.json.
DETAILS = (
    "parameters",
    "device",
    "processor",
    "threads",
    "precision",
    "software",
    "seed",
)
# Columns of times.csv. They vary between identical runs on the same machine; those of results.csv
# do not.
TIMES = ("learning_time_seconds", "learning_time", "learning_time_ms", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A row of the study, with one backbone; what it does not set is as in the profile."""

    experiment: str
    backbone: str
    layers: int
    units: int
    learning_rate: float
    epochs: int = 1
    batch_size: int = 32
    dropout: float = 0.5
    head: str = "flatten"
    initialization: str = "random"
    freeze: str = "none"
    batch_norm: str = "trained"
    augmentation: str = "none"
    warm_up: float = 0.0
    class_weights: str = "none"
    keep: str = "last"
    averages: str = "recomputed"


@dataclass(frozen=True, kw_only=True)
class Run(Experiment):
    """One training of an experiment that params.yaml names."""

    key: str  # names its folder below data/results
    training: str  # the entry of `trainings`, e.g. fold-2-1
    protocol: str  # random, held-out, fold-1, fold-2, ...
    fold: int | None
    repeat: int
    cut: int  # which of the profile's `split.repeats`
    pooled: str  # the protocol under which it is reported: all folds are one, e.g. `5 folds`


@dataclass(frozen=True, kw_only=True)
class FailedRun(Run):
    """A run without results."""

    failed: str  # the reason


@dataclass(frozen=True, kw_only=True)
class FinishedRun(Run):
    """A run with results: history.csv, a row for each epoch, and predictions."""

    metrics: Metrics
    history: pd.DataFrame
    validation: Judged  # predictions of the validation images
    judged: Judged  # of the test images
    problems: list[Problem]  # the rules of soundness that it breaks


@dataclass(frozen=True, kw_only=True)
class Summary(Experiment):
    """The trainings of an experiment in one protocol and cut: its repeats, in folds those of each
    fold.

    Accuracies and times need at least one finished run.
    """

    protocol: str  # random, held-out or e.g. `5 folds`, or a further cut, e.g. `random, cut 2`
    series: str  # protocol, and backbone if there are several, in tables and figures
    runs: list[FinishedRun | FailedRun]

    @cached_property
    def finished(self) -> list[FinishedRun]:
        return [run for run in self.runs if isinstance(run, FinishedRun)]

    @cached_property
    def by_repeat(self) -> dict[int, list[FinishedRun]]:
        """The finished runs of each repeat: one, in folds one for each fold that has results."""
        repeats: dict[int, list[FinishedRun]] = {}
        for run in self.finished:
            repeats.setdefault(run.repeat, []).append(run)
        return repeats

    @cached_property
    def accuracies(self) -> list[float]:
        """The test accuracy of each repeat, a fraction; in folds over all of them together."""
        tests = [[run.metrics.test for run in runs] for runs in self.by_repeat.values()]
        return [
            sum(test.accuracy * test.images for test in parts) / sum(test.images for test in parts)
            for parts in tests
        ]

    @cached_property
    def accuracy(self) -> float:
        """Test accuracy over images, a fraction: of each fold the mean over its repeats."""
        folds: dict[int | None, list[Scores]] = {}
        for run in self.finished:
            folds.setdefault(run.fold, []).append(run.metrics.test)
        images = sum(tests[0].images for tests in folds.values())
        return sum(
            tests[0].images / images * fmean(test.accuracy for test in tests)
            for tests in folds.values()
        )

    @property
    def over_cuts(self) -> str:
        """The series of the first cut of these images."""
        return self.series.removesuffix(suffix_of_cut(self.runs[0].cut))

    @property
    def seconds(self) -> float:
        """Mean learning time of a training."""
        return sum(run.metrics.learning_time_seconds for run in self.finished) / len(self.finished)

    @cached_property
    def judged(self) -> list[Judged]:
        """The test predictions of each repeat; in folds each image's from the run that tested it,
        so that no training has seen an image that it judges.
        """
        return [
            runs[0].judged
            if len(runs) == 1
            else pd.concat([run.judged for run in runs]).sort_index()
            for runs in self.by_repeat.values()
        ]

    def judged_once(self, folds: Collection[int | None]) -> Judged:
        """Return the test predictions of the first training of each of these folds."""
        first = {run.fold: run.judged for run in reversed(self.finished) if run.fold in folds}
        return pd.concat(first.values()).sort_index()

    @cached_property
    def per_image(self) -> Estimate:
        """Test accuracy over images, with its interval."""
        (tables,) = judged_alike([self])
        return accuracy(tables)

    @cached_property
    def per_photograph(self) -> Estimate | None:
        """Test accuracy over photographs; None where they are unknown."""
        if not photographs_known(self.judged[0]):
            return None
        (tables,) = judged_alike([self])
        return accuracy([per_photograph(one) for one in tables])


def results_table(runs: Iterable[FinishedRun | FailedRun]) -> pd.DataFrame:
    """Return the columns of results.csv and times.csv, a row for each run."""
    figures = [f"{split}_{name}" for split in SPLITS for name in Scores.model_fields]
    figures += ["delivered_epoch", "unsound"]
    columns = ["key", "experiment", "backbone", "training", "protocol", "repeat", *FACTORS]
    columns += ["learning_rate_applied", "failed", *figures, *DETAILS, *TIMES]
    rows = []
    for run in runs:
        values = dict(vars(run))
        if isinstance(run, FinishedRun):
            metrics, seconds = run.metrics, run.metrics.learning_time_seconds
            values |= metrics.model_dump()
            values |= {f"{s}_{n}": value for s in SPLITS for n, value in getattr(metrics, s)}
            values["delivered_epoch"] = metrics.health.delivered_epoch
            values["unsound"] = ", ".join(problem.rule for problem in run.problems)
            values["software"] = metrics.software
            values["learning_time"] = duration(seconds)
            values["learning_time_ms"] = milliseconds(seconds)
        rows.append({column: values.get(column) for column in columns})
    return pd.DataFrame(rows, columns=columns).convert_dtypes()


def changed_factors(experiment: Experiment, first: Experiment) -> tuple[str, ...]:
    """Return the factors in which `experiment` differs from `first`."""
    return tuple(name for name in FACTORS if getattr(experiment, name) != getattr(first, name))


def shown_factors(experiments: Iterable[Experiment]) -> list[str]:
    """Return the original's factors, and those others that differ between the experiments."""
    rows = list(experiments)
    return [
        name
        for name in FACTORS
        if name in ORIGINAL_FACTORS or len({getattr(row, name) for row in rows}) > 1
    ]


def groups_of(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """Return the summaries in groups that change the same factors of the first experiment.

    The first group holds the first experiment (and any equal to it); groups come in order of their
    first member.
    """
    groups: dict[tuple[str, ...], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(changed_factors(summary, summaries[0]), []).append(summary)
    return list(groups.values())


def summaries_of(runs: Sequence[FinishedRun | FailedRun]) -> list[Summary]:
    """Return a summary for each protocol, backbone and experiment, in order; folds are one
    protocol.
    """
    several = len({run.backbone for run in runs}) > 1
    trainings: dict[tuple[Experiment, str], list[FinishedRun | FailedRun]] = {}
    for run in runs:
        experiment = Experiment(
            **{field.name: getattr(run, field.name) for field in fields(Experiment)}
        )
        trainings.setdefault((experiment, run.pooled), []).append(run)
    return [
        Summary(
            **vars(one),
            protocol=protocol,
            series=f"{one.backbone}, {protocol}" if several else protocol,
            runs=same,
        )
        for (one, protocol), same in trainings.items()
    ]


def judged_alike(summaries: Sequence[Summary]) -> list[list[Judged]]:
    """Return the test predictions of each repeat of each summary, all on the same images.

    Where trainings are missing, they are those of one training of each fold that all summaries
    have.
    """
    tables = [summary.judged for summary in summaries]
    images = tables[0][0].index
    if all(one.index.equals(images) for repeats in tables for one in repeats):
        return tables
    folds = set.intersection(*({run.fold for run in one.finished} for one in summaries))
    return [[summary.judged_once(folds)] for summary in summaries]


def by_series(summaries: Iterable[Summary]) -> dict[str, list[Summary]]:
    """Return {series: its summaries}, in order."""
    series: dict[str, list[Summary]] = {}
    for summary in summaries:
        series.setdefault(summary.series, []).append(summary)
    return series


def best_of(summaries: Iterable[Summary]) -> list[Summary]:
    """Return the summaries with the best test accuracy, rounded as printed: several if they tie,
    none if none has results.
    """
    finished = [summary for summary in summaries if summary.finished]
    best = max((summary.accuracy for summary in finished), default=0)
    return [summary for summary in finished if percent(summary.accuracy) == percent(best)]


def best_by_validation(runs: Iterable[FinishedRun]) -> FinishedRun:
    """Return the run with the best validation accuracy; the lowest validation loss breaks ties.

    Test results are not used, so the selection does not bias them.
    """
    return max(
        runs, key=lambda run: (run.metrics.validation.accuracy, -run.metrics.validation.loss)
    )
