"""The report's figures. The same numbers give the same bytes; no line is told from another by its
colour alone.
"""

import textwrap
from collections.abc import Iterable

from hemotune.files import new_file
from tasks.report.markdown import origin, rate

# Okabe and Ito's palette, safe for colour-blind readers (https://jfly.uni-koeln.de/color/), its
# yellow left out: too pale on white.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]


def style(number):
    """Return colour, marker and line style of the series with this number."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def new_figure(width, height, rows=1, columns=1, margins=None, **layout):
    """Return a figure of `width` x `height` inches and its axes, in matplotlib's own defaults
    whatever the user's are.

    Where the caller knows the `margins` (of subplots_adjust) they save the search for a layout,
    half of the drawing time.
    """
    import matplotlib
    from matplotlib.figure import Figure

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
    return figure, figure.subplots(rows, columns, **layout)


def save(figure, path):
    """Write `figure` as PNG without anything that changes from run to run."""
    with new_file(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None}, facecolor="white")


def begin_at_zero(axes):
    """Show a loss from zero on, its highest marker whole: matplotlib's own margin is a share of the
    range of the data, not of the axis.
    """
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.05 * axes.dataLim.y1)


def whole_epochs(axes, epochs):
    """Tick whole epochs only, from the first to the last."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.9 if epochs <= 10 else 0, max(epochs, 2) + 0.02 * epochs + 0.1)


def draw_curves(path, runs, series):
    """Draw loss and accuracy over epochs, train and validation, of one experiment's runs (its
    repeats, one line each).

    Args:
        path: the PNG to write.
        runs: list of runs of results.read_runs, none of them failed.
        series: their protocol (and backbone), for the title.
    """
    figure, both = new_figure(
        9,
        3.4,
        1,
        2,
        margins={"left": 0.065, "right": 0.985, "bottom": 0.145, "top": 0.91, "wspace": 0.17},
    )
    for axes, name in zip(both, ("loss", "accuracy"), strict=True):
        for number, (column, label) in enumerate(
            ((name, "train (dropout on)"), (f"validation_{name}", "validation"))
        ):
            for order, run in enumerate(runs):
                history = run["history"]
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
        whole_epochs(axes, max(run["history"]["epoch"].max() for run in runs))
    begin_at_zero(both[0])
    both[1].set_ylim(0, 1.02)
    both[0].legend()
    save(figure, path)


def describe_experiment(run):
    """Return an experiment's name and factors in two short lines."""
    layers = f"D({run['units']})" if run["layers"] == 1 else f"{run['layers']} × D({run['units']})"
    return f"{run['experiment']}\n{layers}, {rate(run['learning_rate'])}"


def draw_validation_curves(path, runs, series):
    """Draw the validation loss and accuracy of all experiments of one protocol and backbone, the
    first repeat of each.
    """
    figure, both = new_figure(9, 4.4, 1, 2)
    for axes, name in zip(both, ("loss", "accuracy"), strict=True):
        for number, run in enumerate(runs):
            history = run["history"]
            mark = (
                {}
                if len(history) <= 30
                else {"markevery": (number % 5, max(len(history) // 12, 1))}
            )
            label = describe_experiment(run).replace("\n", ": ")
            axes.plot(
                history["epoch"],
                history[f"validation_{name}"],
                label=label,
                **style(number),
                **mark,
            )
        axes.set_title(f"Validation {name}, {series}")
        axes.set_ylabel(name)
        whole_epochs(axes, max(run["history"]["epoch"].max() for run in runs))
    begin_at_zero(both[0])
    both[1].set_ylim(0, 1.02)
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2 if len(labels) < 5 else 3, fontsize=9
    )
    save(figure, path)


def draw_comparison(path, rows, intervals):
    """Draw test accuracy and learning time of every experiment, a mark for each series (protocol
    and backbone).

    Args:
        path: the PNG to write.
        rows: list of dicts with experiment, layers, units, learning_rate, series, accuracy (share),
            seconds; top to bottom.
        intervals: mapping from (series, experiment) to what statistics.accuracy returns.
    """
    experiments = list(dict.fromkeys(row["experiment"] for row in rows))
    series = list(dict.fromkeys(row["series"] for row in rows))
    names = {row["experiment"]: describe_experiment(row) for row in rows}
    figure, (left, right) = new_figure(
        9, 1.5 + max(0.52, 0.22 * len(series)) * len(experiments), 1, 2, sharey=True
    )
    for row in rows:
        number = series.index(row["series"])
        look = style(number) | {"linestyle": "none", "markersize": 8}
        height = experiments.index(row["experiment"]) + (
            number - (len(series) - 1) / 2
        ) * 0.6 / max(len(series), 2)
        bounds = intervals[row["series"], row["experiment"]]
        if bounds["low"] is not None:
            left.plot(
                [100 * bounds["low"], 100 * bounds["high"]],
                [height, height],
                color=look["color"],
                linewidth=1.8,
                zorder=1,
            )
        named = row["series"] in left.get_legend_handles_labels()[1]
        left.plot(100 * row["accuracy"], height, label=None if named else row["series"], **look)
        right.plot(row["seconds"] / 60, height, **look)
    left.set_yticks(range(len(experiments)), [names[name] for name in experiments], fontsize=9)
    left.set_ylim(len(experiments) - 0.4, -0.6)
    left.set_xlim(0, 102)
    right.set_xlim(0, 1.06 * max(row["seconds"] for row in rows) / 60)
    left.set_title("Test accuracy, 95 % interval")
    left.set_xlabel("%")
    right.set_title("Learning time")
    right.set_xlabel("minutes")
    if len(series) > 1:
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(series), 4)
        )
    save(figure, path)


def draw_confusions(path, matrices):
    """Draw confusion matrices side by side, counts as numbers, the share of each true class as a
    shade.

    Args:
        path: the PNG to write.
        matrices: list of (title, DataFrame of counts: a row a truth, a column a prediction).
    """
    columns = min(len(matrices), 4)
    rows = -(-len(matrices) // columns)
    classes = class_labels(matrices[0][1].index)
    lines = [line for label in classes for line in label.split("\n")]
    margin = 0.06 * max(map(len, lines))  # inches that the longest line takes
    side = max(1.8, 0.12 * len(lines))
    width, height = side * columns + margin + 0.5, (side + margin + 0.3) * rows + 0.5
    figure, grid = new_figure(max(width, 3.4), height, rows, columns, sharey=True, squeeze=False)
    for axes, (title, counts) in zip(grid.flat, matrices, strict=False):
        counts = counts.to_numpy()
        shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_title(shortened(title, 28), fontsize=10)
        ticks = range(len(classes))
        axes.set_xticks(ticks, classes, rotation=90, fontsize=7)
        axes.set_yticks(ticks, classes, fontsize=7)
        if len(classes) <= 8:
            for i in ticks:
                for j in ticks:
                    axes.text(
                        j,
                        i,
                        counts[i, j],
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if shares[i, j] > 0.5 else "black",
                    )
    for position, axes in enumerate(grid.flat):
        if position >= len(matrices):
            axes.set_axis_off()
    figure.supxlabel("prediction", fontsize=10)
    figure.supylabel("truth", fontsize=10)
    save(figure, path)


def draw_reliability(path, curve):
    """Draw accuracy over confidence, and how many images each bin holds; `curve` is what
    statistics.reliability returns.
    """
    figure, (upper, lower) = new_figure(5, 5, 2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 100], [0, 100], color="#888888", linestyle=":", label="perfectly calibrated")
    upper.plot(100 * curve["confidence"], 100 * curve["accuracy"], label="model", **style(0))
    upper.set_ylabel("accuracy, %")
    upper.set_ylim(-2, 102)
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=2)
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


def draw_errors(path, errors, images):
    """Draw wrongly classified images, the surest first, with truth, prediction, confidence and
    photograph.

    Args:
        path: the PNG to write.
        errors: DataFrame of statistics.most_confident_errors.
        images: list of uint8 arrays (size, size, 3), in the same order.
    """
    columns = min(len(images), 5)
    rows = -(-len(images) // columns)
    # All pictures in one pair of axes, each one unit wide: twenty pairs of axes take ten times as
    # long.
    wide, high, gap = 1.06, 1.42, 0.03
    figure, axes = new_figure(
        2.1 * columns,
        2.1 * high / wide * rows,
        margins={"left": 0, "right": 1, "bottom": 0, "top": 1},
    )
    for number, (error, picture) in enumerate(zip(errors.to_dict("records"), images, strict=True)):
        left, top = number % columns * wide, number // columns * high
        axes.imshow(
            picture,
            extent=(left, left + 1, top + high - gap, top + high - gap - 1),
            interpolation="nearest",
        )
        photograph = error["photograph"]
        lines = [
            shortened(error["truth"]),
            f"taken for {shortened(error['prediction'])}",
            f"{100 * error['confidence']:.1f} % sure",
            origin(None if photograph is None else shortened(photograph)),
        ]
        axes.text(
            left + 0.5,
            top + high - gap - 1.02,
            "\n".join(lines),
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
    """Return names of classes in lines that fit beside an axis, numbered where two would look the
    same.
    """
    labels = [textwrap.fill(shortened(name, 44), 24) for name in names]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{number} {label}" for number, label in enumerate(labels, 1)]
