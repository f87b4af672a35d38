"""The report's figures: the same numbers give the same bytes; lines differ in more than colour."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hemotune.evaluation.statistics import Estimate
from hemotune.files import new_file
from tasks.report.markdown import rate
from tasks.report.results import (
    FACTORS,
    ORIGINAL_FACTORS,
    Experiment,
    FinishedRun,
    Summary,
    changed_factors,
    spaced,
)

# Okabe and Ito's palette, safe for colour-blind readers (https://jfly.uni-koeln.de/color/), its
# yellow left out: too pale on white.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]
ORIGINAL: dict[str, Any] = {"color": "#000000", "marker": "x", "linestyle": "none", "markersize": 8}


def style(number: int) -> dict[str, Any]:  # Any: keyword arguments of Axes.plot
    """Return colour, marker and line style of the series with this number."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def new_figure(width: float, height: float, margins: dict[str, float] | None = None) -> Figure:
    """Return a figure of `width` x `height` inches with matplotlib's defaults, not the user's.

    `margins` (of subplots_adjust) save the computation of a layout, half of the drawing time.
    """
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.grid": True,
            "grid.color": "#dddddd",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "lines.markersize": 5,
            "savefig.dpi": 110,
            "text.parse_math": False,  # a class may be called $x$
        }
    )
    figure = Figure(figsize=(width, height))
    if margins:
        figure.subplots_adjust(**margins)
    else:
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG without anything that changes from run to run."""
    with new_file(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None}, facecolor="white")


def begin_at_zero(axes: Axes) -> None:
    """Start the axis of a loss at zero, with room for the highest marker.

    matplotlib's margin is relative to the range of the data, not to the axis.
    """
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.05 * axes.dataLim.y1)


def whole_epochs(axes: Axes, runs: Iterable[FinishedRun]) -> None:
    """Tick whole epochs only, from the first to the last of all runs."""
    from matplotlib.ticker import MaxNLocator

    epochs = max(run.history["epoch"].max() for run in runs)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.9 if epochs <= 10 else 0, max(epochs, 2) + 0.02 * epochs + 0.1)


def draw_curves(path: Path, runs: Sequence[FinishedRun], series: str) -> None:
    """Draw the training and validation curves of an experiment to the PNG `path`, a line for each
    repeat.
    """
    margins = {"left": 0.075, "right": 0.985, "bottom": 0.145, "top": 0.91, "wspace": 0.18}
    figure = new_figure(9, 3.4, margins)
    both = figure.subplots(1, 2)
    for axes, name in zip(both, ("loss", "accuracy"), strict=True):
        for number, (column, label) in enumerate(
            ((name, "train (dropout on)"), (f"validation_{name}", "validation"))
        ):
            for order, run in enumerate(runs):
                history = run.history
                mark = {} if len(history) <= 30 else {"markevery": len(history) // 15}
                axes.plot(
                    history["epoch"],
                    history[column],
                    label=label if order == 0 else None,
                    **style(number),
                    **mark,
                )
        axes.set_title(f"{name.capitalize()}, {series}")
        axes.set_ylabel(name)
        whole_epochs(axes, runs)
    begin_at_zero(both[0])
    both[1].set_ylim(0, 1.02)
    both[0].legend()
    save(figure, path)


def name_of(summary: Summary) -> str:
    """Return the suffix of the names of a series' figures, `PROTOCOL-BACKBONE.png`."""
    return f"{summary.protocol.replace(',', '').replace(' ', '-')}-{summary.backbone}.png"


def label_of(experiment: Experiment, first: Experiment) -> str:
    """Return an experiment's name and factors in short lines, of those that the original does not
    have the ones in which it differs from the `first`.
    """
    units = f"D({experiment.units})"
    layers = units if experiment.layers == 1 else f"{experiment.layers} × {units}"
    others = [
        f"{spaced(name)} {FACTORS[name].wording(getattr(experiment, name))}"
        for name in changed_factors(experiment, first)
        if name not in ORIGINAL_FACTORS
    ]
    lines = [experiment.experiment, f"{layers}, {rate(experiment.learning_rate)}"]
    return "\n".join([*lines, *([", ".join(others)] if others else [])])


def draw_validation_curves(path: Path, runs: Sequence[FinishedRun], series: str) -> None:
    """Draw validation loss and accuracy over epochs to the PNG `path`, a line for each run."""
    figure = new_figure(9, 4.4)
    both = figure.subplots(1, 2)
    for axes, name in zip(both, ("loss", "accuracy"), strict=True):
        for number, run in enumerate(runs):
            history = run.history
            mark = (
                {}
                if len(history) <= 30
                else {"markevery": (number % 5, max(len(history) // 12, 1))}
            )
            label = label_of(run, runs[0]).replace("\n", ": ", 1).replace("\n", ", ")
            axes.plot(
                history["epoch"],
                history[f"validation_{name}"],
                label=label,
                **style(number),
                **mark,
            )
        axes.set_title(f"Validation {name}, {series}")
        axes.set_ylabel(name)
        whole_epochs(axes, runs)
    begin_at_zero(both[0])
    both[1].set_ylim(0, 1.02)
    handles, labels = both[0].get_legend_handles_labels()
    columns = 2 if len(labels) < 5 or max(map(len, labels)) > 36 else 3
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
    save(figure, path)


def draw_comparison(
    path: Path,
    summaries: Sequence[Summary],
    estimates: Sequence[Estimate],
    originals: Mapping[str, float],
) -> None:
    """Draw test accuracy with its interval and learning time of every experiment to the PNG `path`,
    a mark for each series, empty where a training is unsound, and a stroke for each repeat.

    Args:
        estimates: the accuracies of `summaries` with their intervals, in the same order.
        originals: the original study's test accuracy by experiment.
    """
    names = {summary.experiment: label_of(summary, summaries[0]) for summary in summaries}
    experiments = list(names)
    series = list(dict.fromkeys(summary.series for summary in summaries))
    figure = new_figure(9, 1.5 + max(0.52, 0.22 * len(series)) * len(experiments))
    left, right = figure.subplots(1, 2, sharey=True)
    for summary, bounds in zip(summaries, estimates, strict=True):
        number = series.index(summary.series)
        look = style(number) | {"linestyle": "none", "markersize": 8}
        fill = "white" if any(run.problems for run in summary.finished) else look["color"]
        offset = (number - (len(series) - 1) / 2) * 0.6 / max(len(series), 2)
        height = experiments.index(summary.experiment) + offset
        if bounds.low is not None and bounds.high is not None:
            left.plot(
                [100 * bounds.low, 100 * bounds.high],
                [height, height],
                color=look["color"],
                linewidth=1.8,
                zorder=1,
            )
        if len(summary.accuracies) > 1:
            repeats = [100 * value for value in summary.accuracies]
            left.plot(repeats, [height] * len(repeats), **look | {"marker": "|"}, zorder=1)
        for axes, value in ((left, 100 * summary.accuracy), (right, summary.seconds / 60)):
            axes.plot(value, height, **look, markerfacecolor=fill)
    for experiment, accuracy in originals.items():
        left.plot(100 * accuracy, experiments.index(experiment), **ORIGINAL)
    label_comparison(left, right, list(names.values()), summaries)
    marks = marks_of(series, summaries)
    if originals:
        marks.append(Line2D([], [], label="original study", **ORIGINAL))
    if len(marks) > 1:
        figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), 4))
    save(figure, path)


def label_comparison(
    left: Axes, right: Axes, names: Sequence[str], summaries: Sequence[Summary]
) -> None:
    """Give the two parts of `draw_comparison` their titles, ticks and limits."""
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_xlim(0, 102)
    right.set_xlim(0, 1.06 * max(summary.seconds for summary in summaries) / 60)
    repeated = any(len(summary.accuracies) > 1 for summary in summaries)
    left.set_title("Test accuracy, 95 % interval" + (", repeats" if repeated else ""))
    left.set_xlabel("%")
    right.set_title("Learning time")
    right.set_xlabel("minutes")


def marks_of(series: Sequence[str], summaries: Iterable[Summary]) -> list[Line2D]:
    """Return the marks of a legend: of each series, and of rows with unsound trainings."""
    looks = [style(number) | {"label": name} for number, name in enumerate(series)]
    if any(run.problems for summary in summaries for run in summary.finished):
        empty = {"color": "#555555", "marker": "o", "markerfacecolor": "white"}
        looks.append(empty | {"label": "with unsound trainings"})
    return [Line2D([], [], **look | {"linestyle": "none", "markersize": 8}) for look in looks]


def draw_confusions(path: Path, matrices: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """Draw confusion matrices side by side: counts as numbers, shares of the true class as shades.

    Args:
        path: the PNG to write.
        matrices: titles and counts: a row for each truth, a column for each prediction.
    """
    columns = min(len(matrices), 4)
    rows = -(-len(matrices) // columns)
    classes = class_labels(matrices[0][1].index)
    lines = [line for label in classes for line in label.split("\n")]
    margin = 0.06 * max(map(len, lines))  # inches that the longest line takes
    side = max(1.8, 0.12 * len(lines))
    width, height = side * columns + margin + 0.5, (side + margin + 0.3) * rows + 0.5
    figure = new_figure(max(width, 3.4), height)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (title, counts) in zip(grid.flat, matrices, strict=False):
        draw_matrix(axes, counts.to_numpy(), classes)
        axes.set_title(shortened(title, 28), fontsize=10)
    for axes in grid.flat[len(matrices) :]:
        axes.set_axis_off()
    figure.supxlabel("prediction", fontsize=10)
    figure.supylabel("truth", fontsize=10)
    save(figure, path)


def draw_matrix(axes: Axes, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draw one confusion matrix."""
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    if len(classes) > 8:
        return
    for (truth, prediction), count in np.ndenumerate(counts):
        axes.text(
            prediction,
            truth,
            str(count),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[truth, prediction] > 0.5 else "black",
        )


def draw_reliability(path: Path, curves: Mapping[str, pd.DataFrame]) -> None:
    """Draw accuracy over confidence, and how many images each bin of the first curve holds, to the
    PNG `path`.

    Args:
        curves: by label what statistics.reliability returns.
    """
    curve = next(iter(curves.values()))
    figure = new_figure(6, 5)  # as wide as the legend
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 100], [0, 100], color="#888888", linestyle=":", label="perfectly calibrated")
    for number, (label, one) in enumerate(curves.items()):
        upper.plot(100 * one["confidence"], 100 * one["accuracy"], label=label, **style(number))
    upper.set_ylabel("accuracy, %")
    upper.set_ylim(-2, 102)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    width = 100 * (curve["high"] - curve["low"])
    lower.bar(
        100 * curve["low"],
        curve["images"],
        width=width,
        align="edge",
        color=PALETTE[0],
        edgecolor="white",
    )
    lower.set_xlim(0, 102)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence, %")
    save(figure, path)


def draw_pictures(path: Path, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> None:
    """Draw images (size, size, 3) to the PNG `path`, five in a row, above captions of four lines
    each.
    """
    columns = min(len(images), 5)
    rows = -(-len(images) // columns)
    # All pictures in one pair of axes, each one unit wide: twenty pairs of axes take ten times as
    # long.
    wide, high, gap = 1.06, 1.42, 0.03
    margins = {"left": 0.0, "right": 1.0, "bottom": 0.0, "top": 1.0}
    figure = new_figure(2.1 * columns, 2.1 * high / wide * rows, margins)
    axes = figure.subplots()
    for number, (picture, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = number % columns * wide, number // columns * high
        axes.imshow(
            picture,
            extent=(left, left + 1, top + high - gap, top + high - gap - 1),
            interpolation="nearest",
        )
        axes.text(
            left + 0.5,
            top + high - gap - 1.02,
            caption,
            ha="center",
            va="bottom",
            fontsize=8,
        )
    axes.set_xlim(-gap, columns * wide - gap)
    axes.set_ylim(rows * high, 0)
    axes.set_axis_off()
    save(figure, path)


def shortened(text: object, most: int = 20) -> str:
    """Cut the middle out of a name longer than `most` characters: names often differ at their
    ends.
    """
    text = str(text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[1 + most // 2 - most :]}"


def class_labels(names: Iterable[str]) -> list[str]:
    """Return class names wrapped to fit beside an axis, numbered if two would look the same."""
    labels = [textwrap.fill(shortened(name, 44), 24) for name in names]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{number} {label}" for number, label in enumerate(labels, 1)]
