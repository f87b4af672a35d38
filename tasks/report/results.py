"""The results of the fine-tunes of params.yaml, and summaries of the repeats of an experiment."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import Judged, judge, per_photograph, photographs_known
from hemotune.evaluation.statistics import Estimate, accuracy
from hemotune.files import read_json
from hemotune.paths import FAILURES, INVENTORY, PHOTOGRAPHS, RESULTS
from hemotune.settings.params import Params
from hemotune.splits import ImageSplit
from hemotune.training.records import Metrics, Scores
from tasks.report.markdown import duration, milliseconds, percent, rate
from tasks.report.study import Study

# By split: the true class of each image that a run must predict, indexed and sorted by path.
Truths: TypeAlias = dict[str, "pd.Series[str]"]


class Factor(NamedTuple):
    column: str  # of the results table
    phrase: str  # in a section's title
    wording: Callable[[Any], str]  # Any: of a value, which is an int, a float or a name


# The factors of an experiment in the order of the report; the keys are fields of Experiment.
FACTORS = {
    "layers": Factor("Hidden Layer", "the number of hidden layers", str),
    "units": Factor("Dense Count", "dense value", str),
    "learning_rate": Factor("Learning Rate", "learning rate value", rate),
}
SPLITS = ("train", "validation", "test")
# Columns of results.csv that hold a value of metrics.json.
DETAILS = (
    "epochs",
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


@dataclass(frozen=True)
class Experiment:
    """A row of the study in one protocol, with one backbone."""

    experiment: str
    protocol: str
    backbone: str
    layers: int
    units: int
    learning_rate: float


@dataclass(frozen=True)
class Run(Experiment):
    """One training of an experiment that params.yaml names: a repeat."""

    key: str  # names its folder below data/results
    repeat: int


@dataclass(frozen=True)
class FailedRun(Run):
    """A run without results."""

    failed: str  # the reason


@dataclass(frozen=True)
class FinishedRun(Run):
    """A run with results: history.csv, a row for each epoch, and the test's predictions."""

    metrics: Metrics
    history: pd.DataFrame
    judged: Judged


@dataclass(frozen=True)
class Summary(Experiment):
    """The repeats of an experiment. Accuracies and times need at least one finished run."""

    series: str  # protocol, and backbone if there are several, in tables and figures
    runs: list[FinishedRun | FailedRun]

    @cached_property
    def finished(self) -> list[FinishedRun]:
        return [run for run in self.runs if isinstance(run, FinishedRun)]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy, a fraction."""
        return sum(run.metrics.test.accuracy for run in self.finished) / len(self.finished)

    @property
    def seconds(self) -> float:
        """Mean learning time."""
        return sum(run.metrics.learning_time_seconds for run in self.finished) / len(self.finished)

    @property
    def judged(self) -> list[Judged]:
        return [run.judged for run in self.finished]

    @cached_property
    def per_image(self) -> Estimate:
        """Test accuracy over images, with its interval."""
        return accuracy(self.judged)

    @cached_property
    def per_photograph(self) -> Estimate | None:
        """Test accuracy over photographs; None where they are unknown."""
        if not photographs_known(self.judged[0]):
            return None
        return accuracy([per_photograph(one) for one in self.judged])


def runs_of(params: Params) -> list[Run]:
    """Return the runs that the axes of params.yaml name, by protocol, backbone, experiment and
    repeat, each in the order in which params.yaml lists them.
    """
    axes = itertools.product(
        params.protocols, params.backbones, params.experiments.items(), params.repeats
    )
    return [
        Run(
            experiment=name,
            protocol=protocol,
            backbone=backbone,
            layers=experiment.layers,
            units=experiment.units,
            learning_rate=experiment.learning_rate,
            key=f"{name}-{protocol}-{backbone}-{repeat}",
            repeat=repeat,
        )
        for protocol, backbone, (name, experiment), repeat in axes
    ]


def read_runs(root: Path, study: Study, incomplete: bool = False) -> list[FinishedRun | FailedRun]:
    """Return the runs that params.yaml names, with their results.

    Args:
        root: the repository's top folder.
        incomplete: report a missing run as failed, with the reason; without it a missing run is an
            error.

    Raises:
        StudyError: a run is missing, belongs to other settings than params.yaml, or its predictions
            do not fit the split.
    """
    inventory = root / INVENTORY
    if not inventory.exists():
        raise StudyError(f"{INVENTORY} is missing: run `dvc repro validate`")
    classes = pd.read_parquet(inventory, columns=["path", "class"])
    truths = {protocol: truths_of(classes, rows) for protocol, rows in study.splits.items()}
    known = root / PHOTOGRAPHS
    photographs = pd.read_parquet(known) if known.exists() else None
    runs: list[FinishedRun | FailedRun] = []
    for run in runs_of(study.params):
        folder = root / RESULTS / run.key
        missing = [
            name
            for name in ("metrics.json", "history.csv", "predictions.parquet")
            if not (folder / name).exists()
        ]
        if not missing:
            runs.append(read_run(folder, run, truths[run.protocol], photographs))
            continue
        failure = root / FAILURES / f"{run.key}.json"
        reason = " ".join(read_json(failure)["reason"].split()) if failure.exists() else None
        if not incomplete:
            raise StudyError(
                f"{RESULTS / run.key / missing[0]} is missing"
                + (f" (the run failed: {reason})" if reason else "")
                + f": run `dvc repro finetune@{run.key}`, or report what is there with `python"
                " -m tasks.report --incomplete`"
            )
        runs.append(FailedRun(**vars(run), failed=reason or "not run"))
    return runs


def read_run(
    folder: Path, run: Run, truths: Truths, photographs: pd.DataFrame | None
) -> FinishedRun:
    """Return `run` with the results in `folder`, data/results/KEY.

    Args:
        truths: of the run's protocol.
        photographs: path and photograph, or None where photographs are unknown.
    """
    metrics = Metrics.model_validate(read_json(folder / "metrics.json"))
    for factor in FACTORS:
        trained, wanted = getattr(metrics, factor), getattr(run, factor)
        if trained != wanted:
            raise StudyError(
                f"{RESULTS / run.key}/metrics.json: {factor} is {trained}, but "
                f"params.yaml has {wanted} for {run.experiment}: the results are older "
                "than params.yaml; run `dvc repro`"
            )
    try:
        predictions = pd.read_parquet(folder / "predictions.parquet")
        judge_split(predictions, "validation", truths, photographs, metrics.validation)
        judged = judge_split(predictions, "test", truths, photographs, metrics.test)
    except (StudyError, OSError) as error:
        place = RESULTS / run.key
        raise StudyError(
            f"{place}/predictions.parquet: {error}; or delete {place} and run `dvc repro` to train "
            "it again"
        ) from None
    history = pd.read_csv(folder / "history.csv")
    return FinishedRun(**vars(run), metrics=metrics, history=history, judged=judged)


def truths_of(inventory: pd.DataFrame, rows: ImageSplit) -> Truths:
    """Return the true classes of validation and test; `inventory` has the columns path and
    class.
    """
    return {
        split: inventory.iloc[part].set_index("path")["class"].sort_index()
        for split, part in (("validation", rows.validation), ("test", rows.test))
    }


def judge_split(
    predictions: pd.DataFrame,
    split: str,
    truths: Truths,
    photographs: pd.DataFrame | None,
    recorded: Scores,
) -> Judged:
    """Return the judged predictions of one split.

    Raises:
        StudyError: the predictions do not match the images of the split and their truths, or the
            accuracy `recorded` in metrics.json.
    """
    expected = truths[split]
    judged = judge(predictions, split, list(expected.index), photographs)
    wrong = judged.index[judged["truth"].astype(str) != expected.astype(str)]
    if not wrong.empty:
        path = wrong[0]
        raise StudyError(
            f"the truth of {path} is {judged['truth'][path]}, but {expected[path]} in "
            "data/inventory.parquet: run the study again"
        )
    computed = float(judged["correct"].mean())
    if abs(computed - recorded.accuracy) > 0.5 / len(judged):
        raise StudyError(
            f"they give a {split} accuracy of {computed:.4f}, but metrics.json has "
            f"{recorded.accuracy:.4f}: run the fine-tune again"
        )
    return judged


def results_table(runs: Iterable[FinishedRun | FailedRun]) -> pd.DataFrame:
    """Return the columns of results.csv and times.csv, a row for each run."""
    figures = [f"{split}_{name}" for split in SPLITS for name in Scores.model_fields]
    columns = ["key", "experiment", "protocol", "backbone", "repeat", *FACTORS]
    columns += ["learning_rate_applied", "failed", *figures, *DETAILS, *TIMES]
    rows = []
    for run in runs:
        values = dict(vars(run))
        if isinstance(run, FinishedRun):
            metrics, seconds = run.metrics, run.metrics.learning_time_seconds
            values |= metrics.model_dump()
            values |= {f"{s}_{n}": value for s in SPLITS for n, value in getattr(metrics, s)}
            values["software"] = metrics.software
            values["learning_time"] = duration(seconds)
            values["learning_time_ms"] = milliseconds(seconds)
        rows.append({column: values.get(column) for column in columns})
    return pd.DataFrame(rows, columns=columns).convert_dtypes()


def changed_factors(experiment: Experiment, first: Experiment) -> tuple[str, ...]:
    """Return the factors in which `experiment` differs from `first`."""
    return tuple(name for name in FACTORS if getattr(experiment, name) != getattr(first, name))


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
    """Return a summary for each protocol, backbone and experiment, in order."""
    several = len({run.backbone for run in runs}) > 1
    repeats: dict[Experiment, list[FinishedRun | FailedRun]] = {}
    for run in runs:
        experiment = Experiment(
            **{field.name: getattr(run, field.name) for field in fields(Experiment)}
        )
        repeats.setdefault(experiment, []).append(run)
    return [
        Summary(
            **vars(one),
            series=f"{one.backbone}, {one.protocol}" if several else one.protocol,
            runs=same,
        )
        for one, same in repeats.items()
    ]


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
