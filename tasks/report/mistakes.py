"""Section 7 of the report: where the models err. Classes, confusions, calibration, the most
confident errors.
"""

import numpy

from hemotune.evaluation.predictions import photographs_known
from hemotune.evaluation.statistics import (
    confusion,
    expected_calibration_error,
    most_confident_errors,
    per_class,
    reliability,
)
from hemotune.markup import code, escaped
from tasks.report import figures
from tasks.report.markdown import bold, image, origin, percent, table
from tasks.report.results import by_series, chosen

ERRORS = 20


def draw_mistakes(folder, summaries, inventory, images):
    """Draw the figures of this section into `folder` and return {(kind, series): link}.

    Args:
        folder: where the PNGs go.
        summaries: what results.summaries_of returns.
        inventory: paths in the order of `images`.
        images: uint8 (N, size, size, 3), memory-mapped, or None: then no image of the data set is
            drawn.
    """
    links = {}
    for series, group in by_series([summary for summary in summaries if summary["runs"]]).items():
        runs = [chosen(summary["runs"]) for summary in group]
        best = chosen(runs)["judged"]
        name = f"{group[0]['protocol']}-{group[0]['backbone']}.png"
        figures.draw_confusions(
            folder / f"confusion-{name}",
            [(run["experiment"], confusion(run["judged"])) for run in runs],
        )
        figures.draw_reliability(folder / f"reliability-{name}", reliability(best))
        links["confusion", series], links["reliability", series] = (
            f"figures/confusion-{name}",
            f"figures/reliability-{name}",
        )
        errors = most_confident_errors(best, ERRORS)
        if images is not None and len(errors):
            place = {path: row for row, path in enumerate(inventory)}
            figures.draw_errors(
                folder / f"errors-{name}", errors, [images[place[path]] for path in errors["path"]]
            )
            links["errors", series] = f"figures/errors-{name}"
    return links


def mistakes_section(summaries, links):
    """Return the blocks of section 7; `links` is what draw_mistakes returned."""
    blocks = [
        "Of each series the model that validation prefers (best validation accuracy, then least"
        " loss) is looked at closely: the test images have no say in the choice."
    ]
    done = by_series([summary for summary in summaries if summary["runs"]])
    for number, (series, group) in enumerate(done.items(), 1):
        best = chosen([run for summary in group for run in summary["runs"]])
        judged = best["judged"]
        blocks += [
            f"### 7.{number}. {series}",
            f"Closely looked at: {bold(best['experiment'])}, `{best['key']}`.",
            class_table(judged),
        ]
        blocks += ["F1 of each class in all rows:", f1_table(group)]
        blocks.append(image(f"Confusion matrices, {series}", links["confusion", series]))
        blocks.append(
            "Rows of a matrix are the truth, columns the prediction; shades are shares of the row."
        )
        error = percent(expected_calibration_error(judged))
        blocks.append(
            f"Expected calibration error of {escaped(best['experiment'])}: {error} (15 bins)."
        )
        blocks.append(
            image(
                f"Reliability curve of {best['experiment']}, {series}", links["reliability", series]
            )
        )
        errors = most_confident_errors(judged, ERRORS)
        if errors.empty:
            blocks.append("It errs on no test image.")
        elif ("errors", series) in links:
            blocks.append(f"Its {len(errors)} most confident errors:")
            blocks.append(
                image(
                    f"Most confident errors of {best['experiment']}, {series}",
                    links["errors", series],
                )
            )
        else:
            blocks += [f"Its {len(errors)} most confident errors:", error_table(errors)]
    return blocks


def class_table(judged):
    rows = []
    for row in per_class(judged).to_dict("records"):
        scores = [
            "undefined" if numpy.isnan(row[name]) else percent(row[name])
            for name in ("precision", "recall", "f1")
        ]
        photographs = int(row["photographs"]) if photographs_known(judged) else "unknown"
        rows.append([bold(row["class"]), *scores, row["units"], photographs, row["note"]])
    return table(
        ["Class", "Precision", "Recall", "F1", "Test images", "Test photographs", "Note"], rows
    )


def f1_table(group):
    rows = []
    for summary in group:
        scores = per_class(chosen(summary["runs"])["judged"])
        # A class that is never predicted has no precision; its F1 counts as 0 in the mean, as
        # scikit-learn's does. Of a class without test images nothing was measured.
        values = scores["f1"].fillna(0.0).where(scores["units"] > 0)
        cells = ["no test image" if numpy.isnan(value) else percent(value) for value in values]
        rows.append([bold(summary["experiment"]), *cells, percent(values.mean())])
    return table(["Model", *map(escaped, scores["class"]), "Mean (macro)"], rows)


def error_table(errors):
    rows = [
        [
            code(row["path"]),
            *map(
                escaped,
                (
                    row["truth"],
                    row["prediction"],
                    percent(row["confidence"]),
                    origin(row["photograph"]),
                ),
            ),
        ]
        for row in errors.to_dict("records")
    ]
    return table(["Image", "Truth", "Prediction", "Confidence", "Origin"], rows)
