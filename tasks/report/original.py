"""The original study compared with ours, and the errors that computation finds in its tables."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemotune.markup import escaped
from tasks.report.markdown import (
    bold,
    duration,
    listed,
    milliseconds,
    percent,
    points,
    rate,
    seconds_of,
    table,
)
from tasks.report.protocols import cut_in_short, trainings_of
from tasks.report.results import FACTORS, ORIGINAL_FACTORS, Experiment, Summary
from tasks.report.study import Study

NOTEBOOK = "https://colab.research.google.com/drive/18BXx_fb77k9KbYsv_bVidVf9FhbqK2KA"
DATA_SET = "https://www.kaggle.com/datasets/paultimothymooney/blood-cells"
WEIGHTS = {"imagenet": "ImageNet", "pretrain": "pre-trained on drawn cells", "random": "random"}
HEADS = {
    "flatten": "F: flattened",
    "average": "**A: the mean of each feature map, in place of F**",
}
SPLITS = {"train": "train", "val": "validation", "test": "test"}  # the original's words, and ours


@dataclass(frozen=True)
class SiblingRow:
    """An experiment of a sibling study; loss and accuracy (fraction) are by the original's name of
    the split. Missing figures are NaN.
    """

    backbone: str
    model: str
    layers: int
    units: int
    learning_rate: float
    loss: dict[str, float]
    accuracy: dict[str, float]
    learning_time: str

    @property
    def seconds(self) -> float:
        return seconds_of(self.learning_time)


@dataclass(frozen=True)
class OriginalRow(SiblingRow):
    """An experiment of the original study: figures of its section and of the results table."""

    figure: str
    table_accuracy: str
    table_learning_time_ms: int


def read_original() -> list[OriginalRow]:
    """Return the rows of original.csv."""
    return [
        OriginalRow(
            **fields_of(row),
            figure=row["figure"],
            table_accuracy=row["table_accuracy"],
            table_learning_time_ms=int(row["table_learning_time_ms"]),
        )
        for row in read_csv("original.csv")
    ]


def read_siblings() -> list[SiblingRow]:
    """Return the rows of siblings.csv."""
    return [SiblingRow(**fields_of(row)) for row in read_csv("siblings.csv")]


def read_csv(name: str) -> list[dict[str, str]]:
    with open(Path(__file__).with_name(name), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fields_of(row: Mapping[str, str]) -> dict[str, Any]:  # Any: each field has its own type
    """Return the fields of SiblingRow."""
    return {
        "backbone": row["backbone"],
        "model": row["model"],
        "layers": int(row["hidden_layers"]),
        "units": int(row["units"]),
        "learning_rate": float(row["learning_rate"]),
        "loss": {split: float(row[f"{split}_loss"] or "nan") for split in SPLITS},
        "accuracy": {split: float(row[f"{split}_acc"] or "nan") for split in SPLITS},
        "learning_time": row["learning_time"],
    }


def same_experiment(row: SiblingRow, experiment: Experiment) -> bool:
    """Return whether backbone and the original's factors are the same; names may differ."""
    names = ("backbone", *ORIGINAL_FACTORS)
    return all(getattr(row, name) == getattr(experiment, name) for name in names)


def fits(accuracy: float, images: int) -> bool:
    """Return whether `accuracy`, rounded to 4 digits, is some count of `images`: k / images."""
    nearest = round(accuracy * images)
    return abs(nearest / images - accuracy) <= 0.00005 + 1e-9


def exact_size(accuracies: Iterable[float]) -> int:
    """Return the smallest number of images for which every accuracy is exactly k / images.

    All accuracies have four digits, so this is 10,000 divided by the greatest common divisor of
    their ten-thousandths.
    """
    return 10_000 // math.gcd(*[round(10_000 * accuracy) for accuracy in accuracies])


def fitting_sizes(accuracies: Sequence[float], largest: int = 4000) -> list[int]:
    """Return every number of images up to `largest` that all accuracies fit after rounding."""
    return [
        images
        for images in range(1, largest + 1)
        if all(fits(accuracy, images) for accuracy in accuracies)
    ]


def size_findings(original: Sequence[SiblingRow], siblings: Sequence[SiblingRow]) -> list[str]:
    """Return sentences on how many images the original's accuracies were measured on."""
    test = [row.accuracy["test"] for row in original]
    validation = [row.accuracy["val"] for row in original]
    both = test + [row.accuracy["test"] for row in siblings]
    n_test, n_validation = exact_size(test), exact_size(validation)
    total = n_test * 5
    sizes, sizes_both = fitting_sizes(test), fitting_sizes(both)
    neither = "fits." if not any(n in sizes for n in (2487, 2489)) else "is excluded."
    return [
        f"Each of the {len(test)} test accuracies is exactly k / {n_test:,} and each validation "
        f"accuracy exactly k / {n_validation:,} for a whole number k: "
        f"{listed(f'{a:.4f} = {round(a * n_test)}' for a in test[:2])} of {n_test:,}, "
        f"{listed(f'{a:.4f} = {round(a * n_validation)}' for a in validation[:2])} of "
        f"{n_validation:,}, and so on. {n_test:,} and {n_validation:,} are 20 % and 16 % of "
        f"{total:,}: a random 64/16/20 split of {total:,} images, not the data set's own TEST.",
        f"Of all test sizes up to 4,000 only {listed(f'{n:,}' for n in sizes)} fit these "
        f"{len(test)} accuracies when rounded to 4 digits; with the {len(siblings)} rows of the "
        f"sibling studies only {listed(f'{n:,}' for n in sizes_both)}. The data set as downloaded "
        "has 2,487 images in TEST and 12,444 in TRAIN and TEST; neither 2,487 nor 20 % of 12,444 "
        f"(2,489) {neither}",
    ]


def table_findings(rows: Sequence[OriginalRow]) -> list[str]:
    """Return sentences on disagreements between the original's sections and its results table."""
    found = []
    for number, row in enumerate(rows, 1):
        computed, printed = milliseconds(row.seconds), row.table_learning_time_ms
        if computed != printed:
            owner = [
                f", which is row {i}'s ({other.learning_time})"
                for i, other in enumerate(rows, 1)
                if i != number and milliseconds(other.seconds) == printed
            ]
            found.append(
                f"Row {number} ({row.model}): the section gives a learning time of "
                f"{row.learning_time}, which is {computed} ms; the table has "
                f"{printed}{''.join(owner[:1])}."
            )
        if percent(row.accuracy["test"]) != row.table_accuracy:
            found.append(
                f"Row {number} ({row.model}): test accuracy {row.accuracy['test']:.4f} in the "
                f"section, {row.table_accuracy} in the table."
            )
    folders = [row.figure.rsplit("/", 1)[0] for row in rows]
    usual = max(folders, key=folders.count)
    for number, (row, folder) in enumerate(zip(rows, folders, strict=True), 1):
        if folder != usual:
            found.append(
                f"Row {number} ({row.model}): its figure is linked as `{row.figure}`, all "
                f"others are in `{usual}/`; on a case-sensitive file system the link is broken."
            )
    return found


def impossible_figures(rows: Iterable[SiblingRow]) -> list[str]:
    """Return sentences on figures that are impossible or missing.

    A wrongly classified image gives its true class at most one half, so it adds at least ln 2 to
    the cross-entropy: loss >= (1 - accuracy) x ln 2, whatever the number of classes.
    """
    found = []
    for row in rows:
        name = f"{row.backbone} {row.model}"
        for split, word in SPLITS.items():
            loss, accuracy = row.loss[split], row.accuracy[split]
            least = (1 - accuracy) * math.log(2)
            if math.isnan(least) or math.isnan(loss):
                missing = "accuracy" if math.isnan(accuracy) else "loss"
                found.append(f"{name}: the {word} {missing} is not given.")
            elif loss < least - 0.0001:
                other = "test" if split == "val" else "val"
                found.append(
                    f"{name}: a {word} loss of {loss:.4f} is impossible with an accuracy of "
                    f"{accuracy:.4f}: a wrong image adds at least ln 2 to the sum, so the mean is "
                    f"at least {least:.4f} (the {SPLITS[other]} loss is {row.loss[other]:.4f})."
                )
    return found


def tables_beside_ours(
    study: str, rows: Sequence[SiblingRow], summaries: Iterable[Summary]
) -> list[str]:
    """Return two tables that compare the accuracies and learning times of a `study` with ours, for
    each protocol that was run with one of its backbones.
    """
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    summaries = [summary for summary in summaries if summary.backbone in backbones]
    protocols = list(dict.fromkeys(summary.protocol for summary in summaries))
    accuracies, times = [], []
    for row in rows:
        ours: dict[str, Summary] = {}  # by protocol; the first of several that are the same
        for one in summaries:
            if one.finished and same_experiment(row, one):
                ours.setdefault(one.protocol, one)
        inside = f"{row.layers} × D({row.units})"
        names = [
            bold(row.model),
            inside if len(backbones) == 1 else f"{row.backbone}, {inside}",
            rate(row.learning_rate),
        ]
        cells = []
        for name in protocols:
            cells += (
                [percent(ours[name].accuracy), points(ours[name].accuracy - row.accuracy["test"])]
                if name in ours
                else ["not run", ""]
            )
        accuracies.append([*names, percent(row.accuracy["test"]), *cells])
        cells = [duration(ours[name].seconds) if name in ours else "not run" for name in protocols]
        times.append([*names, row.learning_time, *cells])
    head = ["Model", "Head" if len(backbones) == 1 else "Backbone and head", "Learning Rate"]
    columns = [column for name in protocols for column in (f"Ours, {name}", "Difference (points)")]
    return [
        table([*head, f"{study} accuracy", *columns], accuracies),
        table([*head, f"{study} time", *[f"Ours, {name}" for name in protocols]], times),
    ]


def protocols_table(study: Study, summaries: Sequence[Summary]) -> str:
    """Return a table of the settings of the original, as far as known, and of these rows."""
    profile, split = study.profile, study.profile.split
    numbers = [
        f"{protocol} ({cut_in_short(rows, split)}): {len(rows.train):,} / "
        f"{len(rows.validation):,} / {len(rows.test):,}"
        for protocol, (rows, *_) in study.protocols.items()
    ]
    weights = WEIGHTS[profile.backbone.weights]
    training = profile.training
    scale = training.learning_rate_scale
    times = "" if scale == 1 else f", times {scale:g}"
    runs = [run for summary in summaries for run in summary.finished]
    machines = sorted({escaped(run.metrics.processor) for run in runs}) or ["no runs"]

    def ours(name: str, words: Mapping[str, str] | None = None) -> str:
        found = [FACTORS[name].wording(getattr(summary, name)) for summary in summaries]
        return listed(dict.fromkeys((words or {}).get(value, escaped(value)) for value in found))

    rows = [
        [
            "Images",
            "Kaggle 'Blood Cells', 12,500 nominally",
            "drawn by a generator" if study.is_sample else "as downloaded",
        ],
        ["Train / validation / test", "8,000 / 2,000 / 2,500, random 64/16/20", "; ".join(numbers)],
        ["Image size", "not stated", f"{profile.images.size} × {profile.images.size}"],
        ["Initial weights", "ImageNet", weights],
        ["Head", "F, not explained", ours("head", HEADS)],
        ["Frozen layers", "none", ours("freeze")],
        ["Epochs", "not stated", ours("epochs")],
        ["Batch size", "not stated", ours("batch_size")],
        ["Dropout", "0.5", ours("dropout")],
        ["Epoch that is kept", "not stated; Keras: last", ours("keep")],
        [
            "BatchNormalization's averages",
            "not stated; Keras: as trained",
            ours("averages"),
        ],
        ["Learning rate", "as in the table", f"as in the table{times}"],
        [
            "Trainings of a row, seed",
            "1, not stated",
            f"{trainings_of(study)}; {training.seed} in repeat 1",
        ],
        ["Machine", "Colab", listed(machines)],
    ]
    return table(["", "Original", "This study"], rows)
