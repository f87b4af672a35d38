"""Section 4 of the report: the original compared with this study, and what computation finds in its
tables.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from hemotune.markup import code, escaped
from hemotune.original import SPLITS, Original, Row, Settings
from hemotune.training.records import Metrics
from tasks.report.experiments import initial_weights
from tasks.report.markdown import (
    bold,
    duration,
    listed,
    milliseconds,
    percent,
    points,
    rate,
    table,
)
from tasks.report.protocols import cut_in_short, trainings_of
from tasks.report.results import FACTORS, ORIGINAL_FACTORS, Experiment, Summary
from tasks.report.study import Study

LARGEST = 4000  # images in a test set, of the sizes that are tried
HEADS = {
    "flatten": "F: flattened",
    "average": "**A: the mean of each feature map, in place of F**",
}


def same_experiment(row: Row, experiment: Experiment) -> bool:
    """Return whether backbone and the original's factors are the same; names may differ."""
    names = ("backbone", *ORIGINAL_FACTORS)
    return all(getattr(row, name) == getattr(experiment, name) for name in names)


def original_accuracies(rows: Sequence[Row], experiments: Iterable[Experiment]) -> dict[str, float]:
    """Return the original's test accuracy by the name of each experiment that it has too."""
    return {
        experiment.experiment: row.accuracy["test"]
        for experiment in experiments
        for row in rows
        if same_experiment(row, experiment)
    }


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


def fitting_sizes(accuracies: Sequence[float]) -> list[int]:
    """Return every number of images up to LARGEST that all accuracies fit after rounding."""
    return [
        images
        for images in range(1, LARGEST + 1)
        if all(fits(accuracy, images) for accuracy in accuracies)
    ]


def size_findings(original: Original) -> list[str]:
    """Return sentences on how many images the original's accuracies were measured on; none where
    it gives no validation accuracies.
    """
    test = [row.accuracy["test"] for row in original.rows]
    validation = [row.accuracy.get("val", math.nan) for row in original.rows]
    if any(map(math.isnan, test + validation)):
        return []
    both = test + [row.accuracy["test"] for row in original.siblings]
    n_test, n_validation = exact_size(test), exact_size(validation)
    sizes, of = fitting_sizes(test), f"these {len(test)} accuracies when rounded to 4 digits"
    fitting = f"Of all test sizes up to {LARGEST:,} only {listed(f'{n:,}' for n in sizes)} fit {of}"
    if original.siblings:
        fitting += (
            f"; with the {len(original.siblings)} rows of the sibling studies only "
            f"{listed(f'{n:,}' for n in fitting_sizes(both))}"
        )
    return [
        f"Each of the {len(test)} test accuracies is exactly k / {n_test:,} and each validation "
        f"accuracy exactly k / {n_validation:,} for a whole number k: "
        f"{listed(f'{a:.4f} = {round(a * n_test)}' for a in test[:2])} of {n_test:,}, "
        f"{listed(f'{a:.4f} = {round(a * n_validation)}' for a in validation[:2])} of "
        f"{n_validation:,}, and so on. {escaped(original.source.sizes_found)}".rstrip(),
        f"{fitting}.",
        *[
            f"{one.images:,} images ({escaped(one.of)}) "
            f"{'fit' if one.images in sizes else 'do not fit'}."
            for one in original.source.test_sizes
        ],
    ]


def table_findings(rows: Sequence[Row]) -> list[str]:
    """Return sentences on disagreements between the original's sections and its results table."""
    found = []
    for number, row in enumerate(rows, 1):
        name, printed = f"Row {number} ({escaped(row.model)})", row.table_learning_time_ms
        if printed >= 0 and row.learning_time and milliseconds(row.seconds) != printed:
            owner = [
                f", which is row {i}'s ({other.learning_time})"
                for i, other in enumerate(rows, 1)
                if i != number and other.learning_time and milliseconds(other.seconds) == printed
            ]
            found.append(
                f"{name}: the section gives a learning time of "
                f"{row.learning_time}, which is {milliseconds(row.seconds)} ms; the table has "
                f"{printed}{''.join(owner[:1])}."
            )
        if row.table_accuracy and percent(row.accuracy["test"]) != row.table_accuracy:
            found.append(
                f"{name}: test accuracy {row.accuracy['test']:.4f} in the section, "
                f"{escaped(row.table_accuracy)} in the table."
            )
    folders = {row.figure: row.figure.rpartition("/")[0] for row in rows if row.figure}
    usual = max(folders.values(), key=list(folders.values()).count, default="")
    for number, row in enumerate(rows, 1):
        if folders.get(row.figure, usual) != usual:
            found.append(
                f"Row {number} ({escaped(row.model)}): its figure is linked as "
                f"{code(row.figure)}, all others are in {code(usual + '/')}; on a case-sensitive "
                "file system the link is broken."
            )
    return found


def impossible_figures(rows: Iterable[Row]) -> list[str]:
    """Return sentences on figures that are impossible or missing.

    A wrongly classified image gives its true class at most one half, so it adds at least ln 2 to
    the cross-entropy: loss >= (1 - accuracy) x ln 2, whatever the number of classes.
    """
    found = []
    for row in rows:
        name = escaped(f"{row.backbone} {row.model}")
        for split in [name for name in SPLITS if name in row.loss and name in row.accuracy]:
            loss, accuracy = row.loss[split], row.accuracy[split]
            least, word = (1 - accuracy) * math.log(2), SPLITS[split]
            if math.isnan(least) or math.isnan(loss):
                missing = "accuracy" if math.isnan(accuracy) else "loss"
                found.append(f"{name}: the {word} {missing} is not given.")
            elif loss < least - 0.0001:
                other = "test" if split == "val" else "val"
                beside = f" (the {SPLITS[other]} loss is {row.loss[other]:.4f})"
                found.append(
                    f"{name}: a {word} loss of {loss:.4f} is impossible with an accuracy of "
                    f"{accuracy:.4f}: a wrong image adds at least ln 2 to the sum, so the mean is "
                    f"at least {least:.4f}{beside if other in row.loss else ''}."
                )
    return found


def tables_beside_ours(study: str, rows: Sequence[Row], summaries: Iterable[Summary]) -> list[str]:
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
            inside if len(backbones) == 1 else f"{escaped(row.backbone)}, {inside}",
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
        times.append([*names, row.learning_time or "not given", *cells])
    head = ["Model", "Head" if len(backbones) == 1 else "Backbone and head", "Learning Rate"]
    columns = [column for name in protocols for column in (f"Ours, {name}", "Difference (points)")]
    return [
        table([*head, f"{study} accuracy", *columns], accuracies),
        table([*head, f"{study} time", *[f"Ours, {name}" for name in protocols]], times),
    ]


def machine_of(metrics: Metrics) -> str:
    """Return the GPU, if there was one, and the CPU."""
    gpu = "" if metrics.device == "CPU" else f"{metrics.device}, "
    return gpu + metrics.processor


def protocols_table(study: Study, settings: Settings, summaries: Sequence[Summary]) -> str:
    """Return a table of the settings of the original, as far as known, and of these rows."""
    profile = study.profile
    numbers = [
        f"{protocol} ({cut_in_short(rows, profile.split, study.words)}): {len(rows.train):,} / "
        f"{len(rows.validation):,} / {len(rows.test):,}"
        for protocol, (rows, *_) in study.protocols.items()
    ]
    training = profile.training
    scale = training.learning_rate_scale
    times = "" if scale == 1 else f", times {scale:g}"
    runs = [run for summary in summaries for run in summary.finished]
    machines = sorted({escaped(machine_of(run.metrics)) for run in runs}) or ["no runs"]

    def ours(name: str, words: Mapping[str, str] | None = None) -> str:
        found = [FACTORS[name].wording(getattr(summary, name)) for summary in summaries]
        return listed(dict.fromkeys((words or {}).get(value, escaped(value)) for value in found))

    beside = {
        "images": ("Images", "drawn by a generator" if study.is_sample else "as downloaded"),
        "sizes": ("Train / validation / test", "; ".join(numbers)),
        "image_size": ("Image size", f"{profile.images.size} × {profile.images.size}"),
        "weights": ("Initial weights", initial_weights(profile.backbone)),
        "head": ("Head", ours("head", HEADS)),
        "initialization": ("Initial weights of the head", ours("initialization")),
        "freeze": ("Frozen layers", ours("freeze")),
        "epochs": ("Epochs", ours("epochs")),
        "batch_size": ("Batch size", ours("batch_size")),
        "dropout": ("Dropout", ours("dropout")),
        "keep": ("Epoch that is kept", ours("keep")),
        "averages": ("BatchNormalization's averages", ours("averages")),
        "learning_rate": ("Learning rate", f"as in the table{times}"),
        "trainings": (
            "Trainings of a row, seed",
            f"{trainings_of(study)}; {training.seed} in repeat 1",
        ),
        "machine": ("Machine", listed(machines)),
    }
    rows = [[title, escaped(getattr(settings, name)), own] for name, (title, own) in beside.items()]
    return table(["", "Original", "This study"], rows)
