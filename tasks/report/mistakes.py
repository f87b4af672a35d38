"""Section 7 of the report: the errors of the models. Classes, confusions, calibration, the most
confident errors.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.evaluation.calibration import fit_temperature, with_temperature
from hemotune.evaluation.predictions import Judged, photographs_known
from hemotune.evaluation.statistics import (
    confusion,
    most_confident_errors,
    per_class,
    reliability,
)
from hemotune.markup import code, escaped
from hemotune.settings.study import Words
from tasks.report import figures
from tasks.report.markdown import Row, bold, counted, origin, percent, table
from tasks.report.results import FinishedRun, Summary, best_by_validation, by_series

ERRORS = 20  # shown in the report


class Answers(NamedTuple):
    """The test predictions that represent a row, and of which runs they are."""

    experiment: str
    origin: str  # Markdown
    judged: Judged
    runs: Sequence[FinishedRun]

    def calibrated(self) -> Judged:
        """Return the predictions with the temperature that each run's validation images give."""
        tables = [
            with_temperature(run.judged, fit_temperature(run.validation)) for run in self.runs
        ]
        return pd.concat(tables).sort_index()


def draw_mistakes(
    folder: Path,
    finished: Iterable[Summary],
    inventory: Sequence[str],
    images: NDArray[np.uint8] | None,
    words: Words,
) -> None:
    """Draw the figures confusion-NAME, reliability-NAME and errors-NAME of each series into
    `folder`, NAME as figures.name_of gives it.

    Args:
        inventory: paths in the order of `images`.
        images: (N, size, size, 3), memory-mapped; None to draw no image of the data set.
    """
    places = {path: row for row, path in enumerate(inventory)}
    for group in by_series(finished).values():
        shown = [answers_of(summary) for summary in group]
        chosen = best_answers(group)
        best = chosen.judged
        name = figures.name_of(group[0])
        matrices = [(answers.experiment, confusion(answers.judged)) for answers in shown]
        figures.draw_confusions(folder / f"confusion-{name}", matrices)
        curves = {
            "model": reliability(best),
            "after temperature scaling": reliability(chosen.calibrated()),
        }
        figures.draw_reliability(folder / f"reliability-{name}", curves)
        errors = most_confident_errors(best, ERRORS)
        if images is not None and len(errors):
            pictures = [images[places[path]] for path in errors["path"]]
            captions = [caption_of(error, words) for error in errors.to_dict("records")]
            figures.draw_pictures(folder / f"errors-{name}", pictures, captions)


def caption_of(error: Mapping[Hashable, Any], words: Words) -> str:  # Any: cells of a DataFrame
    """Return the caption of a wrongly classified image.

    Args:
        error: a row of `most_confident_errors`.
    """
    photograph = error["photograph"]
    return "\n".join(
        [
            figures.shortened(error["truth"]),
            f"predicted {figures.shortened(error['prediction'])}",
            f"confidence {100 * error['confidence']:.1f} %",
            origin(None if photograph is None else figures.shortened(photograph), words),
        ]
    )


def answers_of(summary: Summary) -> Answers:
    """Return the test predictions of the run with the best validation accuracy.

    In folds no single run tested all images: they are those of the first repeat over all folds.
    """
    if summary.finished[0].fold is None:
        run = best_by_validation(summary.finished)
        return Answers(summary.experiment, code(run.key), run.judged, [run])
    repeat, runs = next(iter(summary.by_repeat.items()))
    trainings = f"the {counted(len(runs), 'training')} of repeat {repeat}, each on its own fold"
    return Answers(summary.experiment, trainings, summary.judged[0], runs)


def best_answers(group: Sequence[Summary]) -> Answers:
    """Return the test predictions of the row with the best validation accuracy of one series, in
    folds the mean over all; the lowest validation loss breaks ties.
    """

    def validation(summary: Summary) -> tuple[float, float]:
        runs = summary.finished
        if runs[0].fold is None:
            runs = [best_by_validation(runs)]
        scores = [run.metrics.validation for run in runs]
        return fmean(one.accuracy for one in scores), -fmean(one.loss for one in scores)

    return answers_of(max(group, key=validation))


def class_table(judged: Judged, words: Words) -> str:
    """Return a table of precision, recall and F1 of each class."""
    rows: list[Row] = []
    for row in per_class(judged).to_dict("records"):
        scores = [
            "undefined" if np.isnan(row[name]) else percent(row[name])
            for name in ("precision", "recall", "f1")
        ]
        photographs = int(row["photographs"]) if photographs_known(judged) else "unknown"
        note = f"one {words.unit} only" if photographs == 1 else ""
        note = note if row["units"] else "no test images"
        rows.append([bold(row["class"]), *scores, row["units"], photographs, note])
    head = ["Class", "Precision", "Recall", "F1", "Test images", f"Test {words.plural}", "Note"]
    return table(head, rows)


def f1_table(group: Sequence[Summary]) -> str:
    """Return a table of the F1 of each class in every row of one series."""
    rows = []
    for summary in group:
        scores = per_class(answers_of(summary).judged)
        # A class that is never predicted has no precision; its F1 counts as 0 in the mean, as
        # scikit-learn's does. A class without test images is left out.
        values = scores["f1"].fillna(0.0).where(scores["units"] > 0)
        cells = ["no test images" if np.isnan(value) else percent(value) for value in values]
        rows.append([bold(summary.experiment), *cells, percent(values.mean())])
    return table(["Model", *map(escaped, scores["class"]), "Mean (macro)"], rows)


def error_table(errors: pd.DataFrame, words: Words) -> str:
    """Return a table of errors, rows of statistics.most_confident_errors."""
    rows = [
        [
            code(row["path"]),
            escaped(row["truth"]),
            escaped(row["prediction"]),
            percent(row["confidence"]),
            escaped(origin(row["photograph"], words)),
        ]
        for row in errors.to_dict("records")
    ]
    return table(["Image", "Truth", "Prediction", "Confidence", "Origin"], rows)
