"""Whether a training is sound, judged on validation and training images and never on test.

The rule about averages asks for a change either way that is significant and matters: with one
standard error alone, good trainings are named for a tenth of a point, and with losses alone the
lagging averages of as_trained are missed, since other averages gain there (docs/reading.md).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import Judged, photographs_known
from hemotune.settings.report import Unsound
from hemotune.training.records import Metrics
from tasks.report.markdown import listed, percent, points

Floats = NDArray[np.float64]

FEWEST_EPOCHS = 3  # that have a median
STANDARD_ERRORS = 2  # a change of validation is significant beyond this many
LOWER_RATE, LARGER_BATCH = "a lower rate", "a larger `batch_size`"
RECOMPUTE = "`averages: recomputed`"


@dataclass(frozen=True)
class Problem:
    """A rule that a training breaks."""

    rule: str  # a field of Unsound, or `chance`
    found: str  # a clause with the figures
    remedies: list[str]  # what to change, any of them


def problems_of(
    metrics: Metrics, validation: Judged, others: pd.DataFrame, bounds: Unsound
) -> list[Problem]:
    """Return the rules that a training breaks: none if it is sound.

    Args:
        validation: the delivered weights' predictions.
        others: the classes predicted for the same images (its index) under other averages,
            `other_averages`, and after each of the last five epochs, `epoch_N`.
    """
    return [
        *dead_units(metrics, bounds.dead_units),
        *other_averages(metrics, validation, others, bounds.averages),
        *below_median(metrics, validation, others, bounds.below_median),
        *below_fit(metrics, bounds.below_fit),
        *chance(metrics, validation),
    ]


def dead_units(metrics: Metrics, bound: float) -> Iterator[Problem]:
    """Yield a problem if a hidden layer has at least the share `bound` of dead units."""
    layers = [layer for layer in metrics.health.hidden if layer.dead >= bound * layer.units]
    if layers:
        dead = listed(f"{one.dead} of {one.units} units of {one.name}" for one in layers)
        fewer = ["`head: average`"] if metrics.head == "flatten" else []
        found = f"{dead} are zero on every training image"
        yield Problem("dead_units", found, [*fewer, "`warm_up`", LOWER_RATE])


def other_averages(
    metrics: Metrics, validation: Judged, others: pd.DataFrame, bound: float
) -> Iterator[Problem]:
    """Yield a problem if other averages change validation significantly and by over `bound`
    points.
    """
    change = right(others, "other_averages", validation) - delivered(validation)
    mean = float(change.mean())
    error = standard_error(change, validation)
    if abs(mean) > max(bound / 100, STANDARD_ERRORS * error):
        found = f"other averages of BatchNormalization change validation by {points(mean)} points"
        remedies = [RECOMPUTE] if metrics.averages == "as_trained" else [LARGER_BATCH, LOWER_RATE]
        yield Problem("averages", found, remedies)


def below_median(
    metrics: Metrics, validation: Judged, others: pd.DataFrame, bound: float
) -> Iterator[Problem]:
    """Yield a problem if the delivered epoch's validation lies over `bound` standard errors below
    the median of the last five: those of its difference to the epoch nearest to that median.

    With two epochs the median is their mean, below which one of them always lies.
    """
    last = np.array(metrics.health.last_epochs)
    if len(last) < FEWEST_EPOCHS:
        return
    median = float(np.median(last))
    nearest = metrics.epochs - len(last) + 1 + int(np.abs(last - median).argmin())
    change = right(others, f"epoch_{nearest}", validation) - delivered(validation)
    below = median - metrics.validation.accuracy
    # Half an image: the median is written in decimals, and equal accuracies are no difference.
    if below > max(bound * standard_error(change, validation), 0.5 / len(validation)):
        other = "best" if metrics.keep == "last" else "last"
        found = (
            f"validation of the delivered epoch {metrics.health.delivered_epoch} "
            f"({percent(metrics.validation.accuracy)}) lies below the median of the last "
            f"{len(last)} ({percent(median)})"
        )
        yield Problem("below_median", found, [f"`keep: {other}`", LOWER_RATE])


def below_fit(metrics: Metrics, bound: float) -> Iterator[Problem]:
    """Yield a problem if training images are recognised over `bound` points worse than the fit
    reported.
    """
    reached, reported = metrics.health.train.accuracy, metrics.health.fit_accuracy
    if reported - reached > bound / 100:
        found = (
            f"training images are recognised at {percent(reached)} without dropout, but the fit "
            f"reported {percent(reported)} with it"
        )
        lagging = metrics.averages == "as_trained"
        yield Problem("below_fit", found, [RECOMPUTE if lagging else LOWER_RATE])


def chance(metrics: Metrics, validation: Judged) -> Iterator[Problem]:
    """Yield a problem if validation is not significantly above the most frequent class."""
    majority = float(validation["truth"].value_counts(normalize=True).iloc[0])
    reached = delivered(validation)
    error = standard_error(reached, validation)
    if not reached.mean() - majority > STANDARD_ERRORS * error:
        found = (
            f"validation ({percent(reached.mean())}) is not significantly above always predicting "
            f"its most frequent class ({percent(majority)})"
        )
        frozen = metrics.freeze != "none" or metrics.batch_norm == "frozen"
        remedies = ["more `epochs`", "another rate", *(["freeze less"] if frozen else [])]
        yield Problem("chance", found, remedies)


def delivered(validation: Judged) -> Floats:
    """Return 1 for each image (N,) that the delivered weights recognise, else 0."""
    return validation["correct"].to_numpy(dtype=np.float64)


def right(others: pd.DataFrame, column: str, validation: Judged) -> Floats:
    """Return 1 for each image (N,) whose class in `column` is the truth, else 0.

    Raises:
        StudyError: the column is missing, or a value of it.
    """
    if column not in others or others[column].isna().any():
        raise StudyError(f"predictions lack values of {column}: run the fine-tune again")
    return np.asarray(others[column] == validation["truth"], dtype=np.float64)


def standard_error(values: Floats, of: Judged) -> float:
    """Return the standard error of the mean of `values` (N,), one for each image of `of`, whose
    photographs are independent (Cochran, Sampling Techniques, 1977, section 9A: a ratio of sums
    over clusters); infinite with one photograph.

    If photographs are unknown, each image counts as one.
    """
    groups = of["photograph"] if photographs_known(of) else np.arange(len(of))
    sums = np.bincount(pd.factorize(groups)[0], weights=values - values.mean())
    number = len(sums)
    if number < 2:
        return math.inf
    return math.sqrt(number / (number - 1) * float((sums**2).sum())) / len(values)
