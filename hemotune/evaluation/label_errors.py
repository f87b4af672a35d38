"""Photographs that may carry a wrong class, by confident learning: Northcutt, Jiang & Chuang,
"Confident learning: estimating uncertainty in dataset labels", Journal of Artificial Intelligence
Research 70 (2021).

Their unit is an image; here it is a photograph, because copies of one photograph are not
independent.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.evaluation.predictions import PREFIX, Judged, classes_of

# What is judged: a photograph whose images have two classes counts once for each.
UNIT = ["photograph", "truth"]


def find_label_errors(trainings: Sequence[Judged]) -> pd.DataFrame:
    """Return the photographs whose class may be wrong, the most confident first.

    Probabilities are averaged over a photograph's images and over the trainings. `count_errors`
    estimates how many photographs of each class belong to others (the paper's "prune by class"). As
    many are listed, those with the largest margin between the most probable class and the given one
    (as in its "prune by noise rate"), if most trainings get the photograph wrong.

    Args:
        trainings: at least one: the judged images that each was tested on, none of which its model
            was trained on. An image without a known photograph is its own photograph.

    Returns:
        DataFrame of photograph, truth (the given class), suggestion (the other class), confidence
        (the mean probability of the suggestion), wrong (the share of trainings that get it wrong),
        trainings (how many tested it), images (how many it has) and path (of the first one).
    """
    tables = [known_photographs(table) for table in trainings]
    classes = classes_of(tables[0])
    each = [table.groupby(UNIT)[[PREFIX + name for name in classes]].mean() for table in tables]
    wrong = pd.concat([is_wrong(one) for one in each]).groupby(UNIT)
    mean = pd.concat(each).groupby(UNIT).mean()
    images = pd.concat(tables).rename_axis("path").reset_index().groupby(UNIT)["path"]

    probabilities, labels = mean.to_numpy(), labels_of(mean)
    counts = count_errors(probabilities, labels)
    errors = (counts.sum(axis=1) - counts.diagonal()).round()
    found = pd.DataFrame(
        {
            "suggestion": np.array(classes)[probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1),
            "wrong": wrong.mean(),
            "trainings": wrong.size(),
            "images": images.nunique(),
            "path": images.min(),
            "margin": probabilities.max(axis=1) - own_of(mean),
            "errors": errors[labels],
        },
        index=mean.index,
    )
    found = found[is_wrong(mean) & (found["wrong"] > 0.5)].reset_index()
    found = found.sort_values(["margin", "photograph"], ascending=[False, True])
    place = found.groupby("truth").cumcount()
    listed = found[place < found["errors"]].drop(columns=["margin", "errors"])
    return listed.sort_values(
        ["confidence", "photograph"], ascending=[False, True], ignore_index=True
    )


def count_errors(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Estimate how many of those labelled as one class belong to each class.

    A class's threshold is its mean probability among those labelled so. Each counts for the most
    probable of the classes above their thresholds, or for none. The counts of each label are
    then scaled to its number (the paper's confident joint, calibrated: equations 1 to 3).

    Args:
        probabilities: (n, classes).
        labels: (n,) places of the classes.

    Returns:
        (classes, classes): a row for each label, a column for the class that it belongs to.
    """
    classes = probabilities.shape[1]
    numbers = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    # A class that is no one's label is no one's true class either.
    thresholds = np.where(numbers, np.bincount(labels, own, classes) / numbers.clip(1), np.inf)
    # Above, where the paper has "at least": a model that answers all alike shows no errors, and a
    # mean is rounded.
    above = np.where(probabilities > thresholds + 1e-9, probabilities, 0.0)
    counted = above.any(axis=1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels[counted], above.argmax(axis=1)[counted]), 1)
    scaled: NDArray[np.float64] = counts * (numbers / counts.sum(axis=1).clip(1))[:, np.newaxis]
    return scaled


def known_photographs(table: Judged) -> Judged:
    """Return a judged table in which an image without a photograph is its own."""
    return table.assign(photograph=table["photograph"].fillna(table.index.to_series()))


def labels_of(probabilities: pd.DataFrame) -> NDArray[np.int64]:
    """Return the place of each row's own class among the columns; rows are indexed by UNIT."""
    truths = PREFIX + probabilities.index.get_level_values("truth")
    return probabilities.columns.get_indexer(truths)


def own_of(probabilities: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probability of each row's own class; rows are indexed by UNIT."""
    own: NDArray[np.float64] = probabilities.to_numpy()[
        np.arange(len(probabilities)), labels_of(probabilities)
    ]
    return own


def is_wrong(probabilities: pd.DataFrame) -> "pd.Series[bool]":
    """Return whether another class than its own is the most probable in each row."""
    return probabilities.max(axis=1) > own_of(probabilities)
