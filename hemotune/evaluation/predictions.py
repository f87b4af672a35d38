"""Check the predictions of a run and judge them, per image and per photograph."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.errors import StudyError

PREFIX = "probability_"
# A table indexed by path and sorted by it, with JUDGED and a column probability_CLASS for each
# class: what `judge` and `per_photograph` return.
Judged: TypeAlias = pd.DataFrame
JUDGED = [
    "photograph",  # name; None in every row where photographs are unknown
    "truth",  # class
    "prediction",  # most probable class; the first by name breaks ties
    "confidence",  # probability of the prediction
    "correct",  # bool
]


def judge(
    predictions: pd.DataFrame,
    split: str = "test",
    images: Iterable[str] | None = None,
    photographs: pd.DataFrame | None = None,
) -> Judged:
    """Check the predictions of one split and return them judged.

    Args:
        predictions: as in predictions.parquet: path, split, truth, probability_CLASS for each
            class.
        split: which rows of it, by the column `split`.
        images: the expected paths, each exactly once; None skips this check.
        photographs: path and photograph, or None where photographs are unknown.

    Raises:
        StudyError: an image is missing, duplicated or unexpected, or has no photograph; a
            probability is missing, below 0, or they do not sum to one; a truth is none of the
            classes.
    """
    needed = {"path", "split", "truth"} - set(predictions.columns)
    columns = sorted(c for c in predictions.columns if c.startswith(PREFIX))
    if needed or len(columns) < 2:
        lacks = ", ".join(sorted(needed)) or f"two or more {PREFIX}CLASS"
        raise StudyError(f"predictions lack the columns {lacks}: run the fine-tune again")
    rows = predictions[predictions["split"] == split]
    if rows.empty:
        raise StudyError(
            f"predictions hold no image of the split '{split}': run the fine-tune again"
        )
    refuse("predicted twice", rows["path"][rows["path"].duplicated()])
    if images is not None:
        expected, predicted = pd.Index(images), pd.Index(rows["path"])
        refuse("without a prediction", expected.difference(predicted))
        refuse(f"predicted, though not in the split '{split}'", predicted.difference(expected))
    probability = rows[columns].to_numpy(dtype=np.float64)
    classes = np.array([c.removeprefix(PREFIX) for c in columns])
    check_values(rows, probability, classes)

    table = rows[["path", "truth", *columns]].copy()
    table["photograph"] = None
    if photographs is not None:
        known = photographs.set_index("path")["photograph"]
        refuse("with two groups", known.index[known.index.duplicated()])
        table["photograph"] = table["path"].map(known)
        refuse("without a group", table["path"][table["photograph"].isna()])
    return judged_by(table.set_index("path").sort_index())


def judged_by(table: pd.DataFrame) -> Judged:
    """Return a table of photograph, truth and probability_CLASS with what these decide."""
    classes = classes_of(table)
    columns = [PREFIX + name for name in classes]
    probability = table[columns].to_numpy(dtype=np.float64)
    prediction = np.array(classes)[probability.argmax(axis=1)]
    return table.assign(
        prediction=prediction,
        confidence=probability.max(axis=1),
        correct=prediction == table["truth"],
    )[[*JUDGED, *columns]]


def check_values(
    rows: pd.DataFrame, probability: NDArray[np.float64], classes: NDArray[np.str_]
) -> None:
    """Raise StudyError unless `probability` (N, classes) and the truths of `rows` (N) are valid."""
    total = probability.sum(axis=1)
    refuse("with a missing or infinite probability", rows.loc[~np.isfinite(total), "path"])
    # 1e-2: a softmax in bfloat16 is that coarse.
    wrong = (probability.min(axis=1) < 0) | (np.abs(total - 1) > 1e-2)
    refuse("whose probabilities are negative or do not sum to one", rows.loc[wrong, "path"])
    unknown = ~rows["truth"].isin(classes)
    refuse(f"whose truth is none of {', '.join(classes)}", rows.loc[unknown, "path"])


def refuse(problem: str, paths: Iterable[str]) -> None:
    """Raise StudyError if there are `paths`; the message has their number and the first three."""
    paths = sorted(set(paths))
    if paths:
        raise StudyError(
            f"predictions: {len(paths)} images {problem}: "
            f"{', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}"
        )


def photographs_known(table: Judged) -> bool:
    """Return whether it is known which photograph each image came from."""
    return bool(table["photograph"].notna().all())


def per_photograph(table: Judged) -> Judged:
    """Return one judged row for each photograph: the class predicted for most of its images.

    Ties are broken by the higher mean probability, then by name. A photograph whose images have two
    truths has a row for each truth. The result is indexed by photograph and truth and has one more
    column, `images`.

    Raises:
        StudyError: photographs are unknown.
    """
    if not photographs_known(table):
        raise StudyError(
            "accuracy per group needs to know the groups: data/photographs.parquet is missing"
        )
    classes = classes_of(table)
    groups = table.groupby(["photograph", "truth"], sort=True)
    mean = groups[[PREFIX + c for c in classes]].mean()
    counted = pd.crosstab([table["photograph"], table["truth"]], table["prediction"])
    votes = counted.reindex(index=mean.index, columns=classes, fill_value=0).to_numpy()
    most = votes == votes.max(axis=1, keepdims=True)
    winner = np.where(most, mean.to_numpy(), -1.0).argmax(axis=1)

    result = mean.assign(
        images=groups.size(), confidence=mean.to_numpy()[np.arange(len(mean)), winner]
    )
    result["photograph"] = mean.index.get_level_values("photograph")
    result["truth"] = mean.index.get_level_values("truth")
    result["prediction"] = np.array(classes)[winner]
    result["correct"] = result["prediction"] == result["truth"]
    return result.rename_axis(["of", "class"])


def classes_of(table: Judged) -> list[str]:
    """Return the names of the classes, in the order of the columns: sorted."""
    return [c.removeprefix(PREFIX) for c in table.columns if c.startswith(PREFIX)]
