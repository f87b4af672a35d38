"""Probabilities that mean what they say, and sets of classes that hold the truth.

Both are fitted on validation images, of which no photograph is in training. Images of one
photograph are not independent, so each photograph counts once.
"""

import math
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from hemotune.evaluation.predictions import (
    PREFIX,
    Judged,
    classes_of,
    judged_by,
    photographs_known,
)
from hemotune.evaluation.statistics import expected_calibration_error

Floats = NDArray[np.float64]

LEVEL = 0.90  # share of images of new photographs whose set holds the truth
FEWEST = 20  # photographs: with fewer, sets of that level would be wide and vary by luck
NoSets = Literal["shared", "unknown", "few"]
TEMPERATURES = (0.2, 20.0)  # bounds of the search
SMALLEST = 1e-12  # probability: a softmax in float32 may give 0


class Calibration(BaseModel):
    """What validation says about the probabilities of a model."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    temperature: float
    images: int
    photographs: int | None  # None where they are unknown
    error_before: float  # expected calibration error on the same images, a fraction
    error_after: float
    # A class is in the set if its calibrated probability is at least this.
    threshold: float | None
    no_sets: NoSets | None  # why there is no threshold


def calibrate(validation: Judged, shared: bool) -> Calibration:
    """Fit a temperature and a threshold for sets on the judged validation images of a model.

    Args:
        shared: whether training has images of the same photographs, so that these are not like
            images of new ones; there are then no sets.
    """
    known = photographs_known(validation)
    units = photographs_of(validation)
    temperature = fit_temperature(validation)
    after = with_temperature(validation, temperature)
    count = int(units.nunique())
    no_sets: NoSets | None = "few" if count < FEWEST else None
    if shared or not known:
        no_sets = "shared" if shared else "unknown"
    return Calibration(
        temperature=temperature,
        images=len(validation),
        photographs=count if known else None,
        error_before=expected_calibration_error(validation),
        error_after=expected_calibration_error(after),
        threshold=None if no_sets else threshold(own_probabilities(after), units),
        no_sets=no_sets,
    )


def why_no_sets(calibration: Calibration, unit: str, units: str) -> str | None:
    """Return why there are no sets, as a clause; None if there are.

    Args:
        unit, units: the words for what images of one source have in common.
    """
    reasons: dict[NoSets, str] = {
        "shared": f"images of one {unit} are in training and in validation (protocol random)",
        "unknown": f"it is unknown which images share a {unit}",
        "few": f"validation has {calibration.photographs} {units}, and sets need {FEWEST} or more",
    }
    return reasons[calibration.no_sets] if calibration.no_sets else None


def photographs_of(table: Judged) -> "pd.Series[str]":
    """Return the photograph of each image; where they are unknown, each image is its own."""
    return table["photograph"] if photographs_known(table) else table.index.to_series()


def probabilities_of(table: Judged) -> Floats:
    """Return the probabilities (images, classes)."""
    probabilities: Floats = table[[PREFIX + name for name in classes_of(table)]].to_numpy(
        np.float64
    )
    return probabilities


def own_probabilities(table: Judged) -> Floats:
    """Return the probability (images,) of each image's own class."""
    own: Floats = probabilities_of(table)[np.arange(len(table)), labels_of(table)]
    return own


def labels_of(table: Judged) -> NDArray[np.int64]:
    """Return the place (images,) of each image's own class among the classes."""
    return pd.Categorical(table["truth"], categories=classes_of(table)).codes.astype(np.int64)


def fit_temperature(table: Judged) -> float:
    """Return the temperature of the least cross-entropy, in which each photograph weighs the same
    (Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks").

    If all images are right, nothing keeps it from below, and it is at least 1: a model that has
    made no mistake yet is not certain.
    """
    units = photographs_of(table)
    weights = 1 / units.map(units.value_counts()).to_numpy(np.float64)
    probabilities = probabilities_of(table)
    places = labels_of(table)

    def loss(logarithm: float) -> float:
        own = rescale(probabilities, math.exp(logarithm))[np.arange(len(places)), places]
        return float(np.average(-np.log(own.clip(SMALLEST)), weights=weights))

    low, high = TEMPERATURES
    low = 1.0 if table["correct"].all() else low
    found = minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded")
    return float(math.exp(found.x))


def rescale(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """Return softmax(logits / temperature) for probabilities (n, classes) = softmax(logits)."""
    logits = np.log(np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1.0))
    rescaled: Floats = softmax(logits / temperature, axis=1)
    return rescaled


def with_temperature(table: Judged, temperature: float) -> Judged:
    """Return a judged table with the probabilities that a temperature gives."""
    columns = [PREFIX + name for name in classes_of(table)]
    rescaled = pd.DataFrame(
        rescale(probabilities_of(table), temperature), index=table.index, columns=columns
    )
    return judged_by(table.assign(**{name: rescaled[name] for name in columns}))


def threshold(own: Floats, units: "pd.Series[str]", seed: int = 1) -> float:
    """Return the least probability with which a class is in the set, so that the set of an image of
    a new photograph holds its class with a probability of at least LEVEL.

    Split conformal prediction with one random image of each photograph, for which the images are
    exchangeable with one of a new photograph: Dunn, Wasserman & Ramdas (2022), "Distribution-free
    prediction sets for two-layer hierarchical models", subsampling once.

    Args:
        own: probability (n,) of each validation image's own class.
        units: its photograph; FEWEST different ones or more.
    """
    table = pd.DataFrame({"own": own, "unit": units.to_numpy()})
    shuffled = table.sort_values("unit", kind="stable").sample(frac=1.0, random_state=seed)
    drawn = np.sort(shuffled.drop_duplicates("unit")["own"].to_numpy())[::-1]
    rank = math.ceil((len(drawn) + 1) * LEVEL)  # at most len(drawn), from 9 photographs on
    return float(drawn[rank - 1])


def sets(probabilities: Floats, least: float) -> NDArray[np.bool_]:
    """Return whether each class is in the set of each image: (n, classes)."""
    # A probability that was written and read again may have lost its last bit.
    return np.asarray(probabilities >= least - 1e-9)
