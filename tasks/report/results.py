"""The results of the fine-tunes of params.yaml, and summaries of the trainings of an experiment."""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from pydantic import ValidationError

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import Judged, judge, per_photograph, photographs_known
from hemotune.evaluation.statistics import Estimate, accuracy
from hemotune.files import read_json
from hemotune.paths import FAILURES, INVENTORY, PHOTOGRAPHS, RESULTS
from hemotune.settings.experiment import Experiment as ExperimentSettings
from hemotune.settings.params import Params
from hemotune.settings.report import Unsound
from hemotune.settings.training import Training as TrainingSettings
from hemotune.settings.trainings import Training, parse
from hemotune.splits import ImageSplit
from hemotune.training.records import Metrics, Scores
from tasks.report.markdown import duration, milliseconds, percent, rate
from tasks.report.soundness import Problem, problems_of
from tasks.report.study import Study

# By split: the true class of each image that a run must predict, indexed and sorted by path.
Truths: TypeAlias = dict[str, "pd.Series[str]"]


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
    pooled: str  # the protocol under which it is reported: all folds are one, e.g. `5 folds`


@dataclass(frozen=True, kw_only=True)
class FailedRun(Run):
    """A run without results."""

    failed: str  # the reason


@dataclass(frozen=True, kw_only=True)
class FinishedRun(Run):
    """A run with results: history.csv, a row for each epoch, and the test's predictions."""

    metrics: Metrics
    history: pd.DataFrame
    judged: Judged
    problems: list[Problem]  # the rules of soundness that it breaks


@dataclass(frozen=True, kw_only=True)
class Summary(Experiment):
    """The trainings of an experiment in one protocol: its repeats, in folds those of each fold.

    Accuracies and times need at least one finished run.
    """

    protocol: str  # random, held-out or e.g. `5 folds`
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


def runs_of(params: Params, folds: int, training: TrainingSettings) -> list[Run]:
    """Return the runs that the axes of params.yaml name, by protocol, backbone, experiment and
    training, each in the order in which params.yaml lists them.

    Args:
        folds: the profile's `split.folds`.
        training: the profile's, which holds what an experiment does not set.
    """
    protocols: dict[str, list[str]] = {}
    for entry in params.trainings:
        protocols.setdefault(pooled_protocol(parse(entry), folds), []).append(entry)
    axes = itertools.product(protocols.items(), params.backbones, params.experiments.items())
    return [
        Run(
            experiment=name,
            backbone=backbone,
            **factors_of(experiment, training),
            key=f"{name}-{backbone}-{entry}",
            training=entry,
            pooled=pooled,
            **parse(entry)._asdict(),
        )
        for (pooled, entries), backbone, (name, experiment) in axes
        for entry in entries
    ]


def factors_of(experiment: ExperimentSettings, training: TrainingSettings) -> dict[str, Any]:
    """Return the value of each factor: the experiment's, or the profile's where it sets none."""
    own = experiment.model_dump(include=set(FACTORS), exclude_none=True)
    return training.model_dump(include=set(FACTORS)) | own


def pooled_protocol(training: Training, folds: int) -> str:
    """Return the protocol under which a training is reported, e.g. `5 folds`."""
    return f"{folds} folds" if training.fold else training.protocol


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
    truths = {entry: truths_of(classes, rows) for entry, rows in study.splits.items()}
    known = root / PHOTOGRAPHS
    photographs = pd.read_parquet(known) if known.exists() else None
    profile = study.profile
    bounds = profile.report.unsound
    runs: list[FinishedRun | FailedRun] = []
    for run in runs_of(study.params, profile.split.folds, profile.training):
        folder = root / RESULTS / run.key
        missing = [
            name
            for name in ("metrics.json", "history.csv", "predictions.parquet")
            if not (folder / name).exists()
        ]
        if not missing:
            runs.append(read_run(folder, run, truths[run.training], photographs, bounds))
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
    folder: Path, run: Run, truths: Truths, photographs: pd.DataFrame | None, bounds: Unsound
) -> FinishedRun:
    """Return `run` with the results in `folder`, data/results/KEY.

    Args:
        truths: of the run's training.
        photographs: path and photograph, or None where photographs are unknown.
        bounds: beyond which a training is unsound.
    """
    metrics = read_metrics(folder / "metrics.json")
    for factor in FACTORS:
        trained, wanted = getattr(metrics, factor), getattr(run, factor)
        if trained != wanted:
            raise StudyError(
                f"{RESULTS / run.key}/metrics.json: {factor} is {trained}, but "
                f"the settings have {wanted} for {run.experiment}: the results are older "
                "than params.yaml or the profile; run `dvc repro`"
            )
    try:
        predictions = pd.read_parquet(folder / "predictions.parquet")
        validation = judge_split(predictions, "validation", truths, photographs, metrics.validation)
        rows = predictions[predictions["split"] == "validation"]
        others = rows.set_index("path").loc[validation.index]
        problems = problems_of(metrics, validation, others, bounds)
        judged = judge_split(predictions, "test", truths, photographs, metrics.test)
    except (StudyError, OSError) as error:
        place = RESULTS / run.key
        raise StudyError(
            f"{place}/predictions.parquet: {error}; or delete {place} and run `dvc repro` to train "
            "it again"
        ) from None
    history = pd.read_csv(folder / "history.csv")
    return FinishedRun(
        **vars(run), metrics=metrics, history=history, judged=judged, problems=problems
    )


def read_metrics(path: Path) -> Metrics:
    """Return the metrics.json of a run.

    Raises:
        StudyError: it lacks a value, as that of an earlier version does.
    """
    try:
        return Metrics.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise StudyError(
            f"{RESULTS / path.parent.name / path.name}: {key}: {first['msg']}; run `dvc repro` to "
            "train it again"
        ) from None


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
    judged = judge(predictions, split, expected.index, photographs)
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
