"""The published study beside ours, and what is wrong or telling inside the published tables, found
by computation.
"""

import csv
import math
from pathlib import Path

from hemotune.markup import escaped
from tasks.report.markdown import (
    bold,
    bullets,
    listed,
    milliseconds,
    percent,
    points,
    rate,
    seconds_of,
    table,
)

NUMBERS = (
    "learning_rate",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "test_loss",
    "test_acc",
)


def read_published(name="original"):
    """Return the rows of original.csv or siblings.csv as dicts; a figure that was not published is
    None.
    """
    with open(Path(__file__).with_name(f"{name}.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({column: float(row[column]) if row[column] else None for column in NUMBERS})
        row.update(
            layers=int(row["hidden_layers"]),
            units=int(row["units"]),
            seconds=seconds_of(row["learning_time"]),
        )
    return rows


def same_experiment(published, run):
    """Whether a run repeats a published row: backbone and factors decide, names may differ."""
    return published["backbone"] == run["backbone"] and all(
        published[factor] == run[factor] for factor in ("layers", "units", "learning_rate")
    )


def fits(accuracy, images):
    """Whether `accuracy`, rounded to 4 digits, is some count of `images`: k / images."""
    nearest = round(accuracy * images)
    return abs(nearest / images - accuracy) <= 0.00005 + 1e-9


def exact_size(accuracies):
    """Return the smallest number of images of which every accuracy is a whole count without any
    rounding.

    All accuracies have four digits, so this is 10,000 divided by the greatest common divisor of
    their ten-thousandths.
    """
    return 10_000 // math.gcd(*[round(10_000 * accuracy) for accuracy in accuracies])


def fitting_sizes(accuracies, largest=4000):
    """Return every number of images up to `largest` that all accuracies fit after rounding."""
    return [
        images
        for images in range(1, largest + 1)
        if all(fits(accuracy, images) for accuracy in accuracies)
    ]


def size_findings(published, siblings):
    """Return sentences on how many images the published accuracies were measured on."""
    test, validation = [row["test_acc"] for row in published], [row["val_acc"] for row in published]
    both = test + [row["test_acc"] for row in siblings]
    n_test, n_validation = exact_size(test), exact_size(validation)
    total = n_test * 5
    found = [
        f"Every one of the {len(test)} test accuracies is exactly k / {n_test:,}, every validation"
        f" accuracy exactly k / {n_validation:,}, k a whole number:"
        f" {listed(f'{a:.4f} = {round(a * n_test)}' for a in test[:2])} of {n_test:,},"
        f" {listed(f'{a:.4f} = {round(a * n_validation)}' for a in validation[:2])} of"
        f" {n_validation:,}, and so on. {n_test:,} and {n_validation:,} are 20 % and 16 % of"
        f" {total:,}: a random 64/16/20 split of {total:,} images, not the data set's own TEST."
    ]
    sizes, sizes_both = fitting_sizes(test), fitting_sizes(both)
    found.append(
        f"Of all test sizes up to 4,000 only {listed(f'{n:,}' for n in sizes)} fit these"
        f" {len(test)} accuracies when rounded to 4 digits"
        + (
            f"; with the {len(siblings)} rows of the sister studies only"
            f" {listed(f'{n:,}' for n in sizes_both)}."
            if siblings
            else "."
        )
        + " The data set as downloaded has 2,487 images in TEST and 12,444 in TRAIN and TEST;"
        " neither 2,487 nor 20 % of 12,444 (2,489) "
        + ("fits." if not any(n in sizes for n in (2487, 2489)) else "is excluded.")
    )
    return found


def table_findings(rows):
    """Return sentences on what does not agree between the sections of the published study and its
    results table.
    """
    found = []
    for number, row in enumerate(rows, 1):
        computed, printed = milliseconds(row["seconds"]), int(row["table_learning_time_ms"])
        if computed != printed:
            owner = [
                i
                for i, other in enumerate(rows, 1)
                if i != number and milliseconds(other["seconds"]) == printed
            ]
            copied = (
                f", which is row {owner[0]}'s ({rows[owner[0] - 1]['learning_time']})"
                if owner
                else ""
            )
            found.append(
                f"Row {number} ({row['model']}): the section gives a learning time of"
                f" {row['learning_time']}, which is {computed} ms; the table says"
                f" {printed}{copied}."
            )
        if percent(row["test_acc"]) != row["table_accuracy"]:
            found.append(
                f"Row {number} ({row['model']}): test accuracy {row['test_acc']:.4f} in the"
                f" section, {row['table_accuracy']} in the table."
            )
    folders = [row["figure"].rsplit("/", 1)[0] for row in rows]
    usual = max(folders, key=folders.count)
    for number, (row, folder) in enumerate(zip(rows, folders, strict=True), 1):
        if folder != usual:
            found.append(
                f"Row {number} ({row['model']}): its figure is linked as `{row['figure']}`, all"
                f" others lie in `{usual}/`; where file names are case-sensitive it does not show."
            )
    return found


def impossible_figures(rows):
    """Return sentences on figures that cannot be true, or are absent, in the rows of a published
    table.

    A wrongly classified image gives its true class at most one half, so it adds at least ln 2 to
    the cross-entropy: loss >= (1 - accuracy) x ln 2, whatever the number of classes.
    """
    found = []
    for row in rows:
        name = f"{row['backbone']} {row['model']}"
        for split, word in (("train", "train"), ("val", "validation"), ("test", "test")):
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_acc"]
            if accuracy is None or loss is None:
                found.append(
                    f"{name}: the {word} {'accuracy' if accuracy is None else 'loss'} is not given."
                )
            elif loss < (least := (1 - accuracy) * math.log(2)) - 0.0001:
                other = row["test_loss"] if split == "val" else row["val_loss"]
                found.append(
                    f"{name}: a {word} loss of {loss:.4f} cannot go with an accuracy of"
                    f" {accuracy:.4f}: a wrong image costs at least ln 2, so the loss is at least"
                    f" {least:.4f} (the {'test' if split == 'val' else 'validation'} loss is"
                    f" {other:.4f})."
                )
    return found


def beside_reproduced(published, summaries):
    """Return two tables (head, rows): accuracies and learning times of each published row beside
    ours, in each protocol that was run.

    Args:
        published: rows of read_published.
        summaries: what results.summaries_of returns; those of a backbone that was not published are
            left out.
    """
    backbones = list(dict.fromkeys(row["backbone"] for row in published))
    protocols = list(
        dict.fromkeys(
            summary["protocol"] for summary in summaries if summary["backbone"] in backbones
        )
    )
    head = (
        ["Model", "Head", "Learning Rate"]
        if len(backbones) == 1
        else ["Model", "Backbone and head", "Learning Rate"]
    )
    accuracies, times = [], []
    for row in published:
        ours = {
            summary["protocol"]: summary for summary in summaries if same_experiment(row, summary)
        }
        inside = f"{row['layers']} × D({row['units']})"
        names = [
            bold(row["model"]),
            inside if len(backbones) == 1 else f"{row['backbone']}, {inside}",
            rate(row["learning_rate"]),
        ]
        cells = []
        for name in protocols:
            accuracy = ours.get(name, {}).get("accuracy")
            cells += (
                ["not run", ""]
                if accuracy is None
                else [percent(accuracy), points(accuracy - row["test_acc"])]
            )
        accuracies.append([*names, percent(row["test_acc"]), *cells])
        times.append(
            [
                *names,
                row["learning_time"],
                *[ours.get(name, {}).get("time") or "not run" for name in protocols],
            ]
        )
    columns = [column for name in protocols for column in (f"Ours, {name}", "Difference (points)")]
    first = ([*head, "Published accuracy", *columns], accuracies)
    return first, ([*head, "Published time", *[f"Ours, {name}" for name in protocols]], times)


def protocol_differences(study, sizes, runs):
    """Return a table's rows: what the published study did, and what this run did, as far as known.

    Args:
        study: report.study.Study.
        sizes: mapping from protocol to (train, validation, test) numbers of images.
        runs: runs of results.read_runs that did not fail.
    """
    profile, split = study.profile, study.profile.split
    images = {"sample": "drawn by a generator"}.get(profile.dataset.source, "as downloaded")
    fractions = f"{100 * split.train:g}/{100 * split.validation:g}/{100 * split.test:g}"
    cut = {"random": f"random {fractions}", "held-out": "the data set's own TEST is the test"}
    numbers = [
        f"{protocol} ({cut[protocol]}): {' / '.join(f'{n:,}' for n in sizes[protocol])}"
        for protocol in sizes
    ]
    weights = {
        "imagenet": "ImageNet",
        "pretrain": "pre-trained on drawn cells",
        "random": "random",
    }[profile.backbone.weights]
    scale = profile.training.learning_rate_scale
    devices = sorted({escaped(run["processor"]) for run in runs}) or ["nothing was run"]
    return [
        ["Images", "Kaggle 'Blood Cells', 12,500 nominally", images],
        ["Train / validation / test", "8,000 / 2,000 / 2,500, random 64/16/20", "; ".join(numbers)],
        ["Image size", "not stated", f"{profile.images.size} × {profile.images.size}"],
        ["Initial weights", "ImageNet", weights],
        [
            "Epochs, batch size",
            "not stated",
            f"{profile.training.epochs}, {profile.training.batch_size}",
        ],
        ["Dropout", "0.5", f"{profile.training.dropout:g}"],
        [
            "Learning rate",
            "as in the table",
            "as in the table" if scale == 1 else f"as in the table, times {scale:g}",
        ],
        [
            "Repeats, seed",
            "1, not stated",
            f"{len(study.params.repeats)}, {profile.training.seed} in repeat 1",
        ],
        ["Machine", "Colab", listed(devices)],
    ]


def published_section(study, summaries, sizes):
    """Return the blocks that set the published studies beside this one.

    Args:
        study: report.study.Study.
        summaries: what results.summaries_of returns.
        sizes: mapping from protocol to (train, validation, test) numbers of images.
    """
    rows, siblings = read_published(), read_published("siblings")
    runs = [run for summary in summaries for run in summary["runs"]]
    blocks = [
        "The published study fine-tuned ResNet50 on the Kaggle data set 'Blood Cells'. Rows are"
        " matched by their factors."
    ]
    if study.profile.dataset.source == "sample":
        blocks.append(
            "Ours are figures of the **sample**: a difference says nothing about the published"
            " study."
        )
    blocks += [
        *[table(*one) for one in beside_reproduced(rows, summaries)],
        "What differs in the protocol:",
        table(["", "Published", "Here"], protocol_differences(study, sizes, runs)),
        "### 4.1. What is wrong inside the published table",
        bullets(table_findings(rows) + impossible_figures(rows)),
        "### 4.2. How many images the published figures were measured on",
        bullets(size_findings(rows, siblings)),
        "### 4.3. The sister studies",
        "The same author fine-tuned other backbones on the same split"
        + (
            "."
            if any(row["backbone"] in study.params.backbones for row in siblings)
            else "; none of them was run here."
        ),
        *[table(*one) for one in beside_reproduced(siblings, summaries)],
        "What is absent or cannot be true in them:",
        bullets(impossible_figures(siblings)),
    ]
    return blocks
