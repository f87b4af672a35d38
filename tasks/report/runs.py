"""Read the results of the fine-tunes that params.yaml names, and check them."""

import itertools
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from pydantic import ValidationError

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import Judged, judge
from hemotune.files import read_json
from hemotune.paths import FAILURES, INVENTORY, PHOTOGRAPHS, RESULTS
from hemotune.settings.experiment import Experiment as ExperimentSettings
from hemotune.settings.params import Params
from hemotune.settings.report import Unsound
from hemotune.settings.split import Split
from hemotune.settings.training import Training as TrainingSettings
from hemotune.settings.trainings import parse
from hemotune.splits import ImageSplit, pooled_protocol
from hemotune.training.records import Metrics, Scores
from tasks.report.results import FACTORS, FailedRun, FinishedRun, Run
from tasks.report.soundness import problems_of
from tasks.report.study import Study

# By split: the true class of each image that a run must predict, indexed and sorted by path.
Truths: TypeAlias = dict[str, "pd.Series[str]"]


def runs_of(params: Params, split: Split, training: TrainingSettings) -> list[Run]:
    """Return the runs that the axes of params.yaml name, by protocol, backbone, experiment and
    training, each in the order in which params.yaml lists them.

    Args:
        split, training: the profile's; the latter holds what an experiment does not set.
    """
    protocols: dict[str, list[dict[str, Any]]] = {}
    for entry in params.trainings:
        named = parse(entry)
        cut = split.cut(named.repeat)
        pooled = pooled_protocol(named.protocol, split.folds if named.fold else None, cut)
        fields = {"training": entry, "pooled": pooled, "cut": cut, **named._asdict()}
        protocols.setdefault(pooled, []).append(fields)
    axes = itertools.product(protocols.values(), params.backbones, params.experiments.items())
    return [
        Run(
            experiment=name,
            backbone=backbone,
            **factors_of(experiment, training),
            key=f"{name}-{backbone}-{fields['training']}",
            **fields,
        )
        for trainings, backbone, (name, experiment) in axes
        for fields in trainings
    ]


def factors_of(experiment: ExperimentSettings, training: TrainingSettings) -> dict[str, Any]:
    """Return the value of each factor: the experiment's, or the profile's where it sets none."""
    own = experiment.model_dump(include=set(FACTORS), exclude_none=True)
    return training.model_dump(include=set(FACTORS)) | own


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
    for run in runs_of(study.params, profile.split, profile.training):
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
        **vars(run),
        metrics=metrics,
        history=history,
        validation=validation,
        judged=judged,
        problems=problems,
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
