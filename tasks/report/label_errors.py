"""Possible label errors: photographs that the trainings in folds take for another class."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.evaluation.label_errors import find_label_errors
from hemotune.markup import code, escaped
from hemotune.settings.study import Words
from tasks.report import figures
from tasks.report.markdown import origin, percent, table
from tasks.report.results import Summary, by_series

MOST = 24  # shown in the report


def find_in_folds(finished: Iterable[Summary]) -> dict[str, pd.DataFrame]:
    """Return the possible label errors of each series of folds, as `find_label_errors` does.

    Only in folds is every photograph tested by trainings that have not seen it. A row's folds of
    one repeat count as one training; unsound ones are left out.

    Returns:
        The errors by series, without those that have no sound training in folds.
    """
    found = {}
    for series, group in by_series(finished).items():
        trainings = [
            pd.concat(sound)
            for summary in group
            for runs in summary.by_repeat.values()
            if (sound := [r.judged for r in runs if r.fold is not None and not r.problems])
        ]
        if trainings:
            found[series] = find_label_errors(trainings)
    return found


def draw_sheets(
    folder: Path,
    found: Mapping[str, pd.DataFrame],
    finished: Iterable[Summary],
    inventory: Sequence[str],
    images: NDArray[np.uint8] | None,
    words: Words,
) -> None:
    """Draw the figure label-errors-NAME of each series into `folder`, NAME as figures.name_of gives
    it: the first image of each photograph.

    Args:
        found: what `find_in_folds` returned for `finished`.
        inventory: paths in the order of `images`.
        images: (N, size, size, 3), memory-mapped; None to draw no image of the data set.
    """
    if images is None:
        return
    places = {path: row for row, path in enumerate(inventory)}
    groups = by_series(finished)
    for series, errors in found.items():
        shown = errors.head(MOST)
        if shown.empty:
            continue
        captions = [
            "\n".join(
                [
                    f"given {figures.shortened(row['truth'])}",
                    f"or {figures.shortened(row['suggestion'])}?",
                    f"confidence {100 * row['confidence']:.1f} %",
                    figures.shortened(origin(row["photograph"], words), 32),
                ]
            )
            for row in shown.to_dict("records")
        ]
        name = figures.name_of(groups[series][0])
        pictures = [images[places[path]] for path in shown["path"]]
        figures.draw_pictures(folder / f"label-errors-{name}", pictures, captions)


def errors_table(errors: pd.DataFrame, words: Words) -> str:
    """Return a table of possible label errors, rows of `find_label_errors`."""
    rows = [
        [
            escaped(origin(row["photograph"], words)),
            escaped(row["truth"]),
            escaped(row["suggestion"]),
            percent(row["confidence"]),
            f"{row['wrong'] * row['trainings']:.0f} of {row['trainings']}",
            row["images"],
            code(row["path"]),
        ]
        for row in errors.head(MOST).to_dict("records")
    ]
    head = [
        "Origin",
        "Given",
        "Suggested",
        "Confidence",
        "Trainings wrong",
        "Images",
        "One of them",
    ]
    return table(head, rows)
