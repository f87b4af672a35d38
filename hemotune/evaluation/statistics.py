"""Accuracy with intervals, paired comparisons, calibration.

Images of one photograph are not independent observations. Therefore, every interval is
computed by resampling photographs, never images (a cluster bootstrap: Davison & Hinkley, Bootstrap
Methods and their Application, 1997, section 3.8).

`runs` is one judged table or a list of them: the repeats of one experiment on the same test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.errors import StudyError
from hemotune.evaluation.predictions import Judged, classes_of, photographs_known

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Runs = Judged | Sequence[Judged]

FEW_PHOTOGRAPHS = 20  # with fewer, bootstrap intervals are known to be too narrow
BLOCK = 2_000_000  # random numbers drawn at once, which limits the memory


@dataclass(frozen=True)
class Estimate:
    """An accuracy, or a difference of two (fractions), with its interval.

    low and high are None where there is no interval; units are images, or photographs after
    `per_photograph`; photographs is None where they are unknown.
    """

    value: float
    low: float | None
    high: float | None
    units: int
    photographs: int | None
    repeats: int


@dataclass(frozen=True)
class Difference(Estimate):
    """Accuracy of the second minus that of the first, with the p of the sign-flip test.

    The difference is significant where the interval excludes 0 and p < 1 - level.
    """

    p: float
    significant: bool


@dataclass(frozen=True)
class McNemar:
    """How many each of two predicted correctly, and the two-sided p of McNemar's exact test."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


@dataclass(frozen=True)
class Spread:
    """One figure over `repeats` repeats."""

    mean: float
    minimum: float
    maximum: float
    repeats: int


def accuracy(runs: Runs, resamples: int = 10_000, seed: int = 1, level: float = 0.95) -> Estimate:
    """Return the accuracy, the mean over repeats, with its interval from resampling photographs.

    It is the percentile interval. Repeats are resampled too, so that it includes the variation
    between seeds. If all predictions are correct, or all are wrong, resampling would give an
    interval of zero width; instead, the exact binomial interval (Clopper & Pearson 1934) with one
    trial per photograph is returned.
    """
    runs = as_list(runs)
    right, sizes = right_answers(runs)
    value = float(right.sum(axis=0).mean() / sizes.sum())
    low = high = None
    if len(sizes) > 1:
        if value in (0.0, 1.0):
            from statsmodels.stats.proportion import proportion_confint

            exact = proportion_confint(
                round(value * len(sizes)), len(sizes), alpha=1 - level, method="beta"
            )
            low, high = (float(bound) for bound in exact)
        else:
            (resampled,) = resample([right], sizes, resamples, seed)
            low, high = quantiles(resampled, level)
    known = photographs_known(runs[0])
    return Estimate(
        value,
        low,
        high,
        units=len(runs[0]),
        photographs=len(sizes) if known else None,
        repeats=len(runs),
    )


def difference(
    first: Runs, second: Runs, resamples: int = 10_000, seed: int = 1, level: float = 0.95
) -> Difference:
    """Compare two runs, or two lists of repeats, on the same test images: accuracy of `second`
    minus that of `first`.

    Both are resampled with the same photographs (paired). p is that of the sign-flip test on the
    photographs' differences (scipy.stats.permutation_test; exact for few): unlike the interval, it
    is valid even if only a few photographs differ.

    Raises:
        StudyError: the two were tested on different images.
    """
    first, second = as_list(first), as_list(second)
    same_images([*first, *second])
    (a, sizes), (b, _) = right_answers(first), right_answers(second)
    change = b.mean(axis=1) - a.mean(axis=1)
    p = sign_flip(change, seed)
    low = high = None
    significant = False
    if len(sizes) > 1:
        resampled_a, resampled_b = resample([a, b], sizes, resamples, seed)
        low, high = quantiles(resampled_b - resampled_a, level)
        significant = (low > 0 or high < 0) and p < 1 - level
    known, repeats = photographs_known(first[0]), min(len(first), len(second))
    return Difference(
        float(change.sum() / sizes.sum()),
        low,
        high,
        units=len(first[0]),
        photographs=len(sizes) if known else None,
        repeats=repeats,
        p=p,
        significant=significant,
    )


def sign_flip(change: Floats, seed: int) -> float:
    """Return the two-sided p that the mean of `change` (one number for each photograph) is 0, from
    flipping signs at random.
    """
    from scipy.stats import permutation_test

    change = change[change != 0]
    if change.size < 2:  # with one photograph that differs, either sign is as far from 0
        return 1.0

    def total(x: Floats, axis: int) -> Floats:
        summed: Floats = x.sum(axis=axis)
        return summed

    batch = max(1, BLOCK // change.size)
    rng = np.random.default_rng(seed)
    return float(
        permutation_test(
            (change,), total, permutation_type="samples", n_resamples=9_999, batch=batch, rng=rng
        ).pvalue
    )


def mcnemar(first: Judged, second: Judged) -> McNemar:
    """Return McNemar's exact test of two judged tables on the same images or photographs.

    It assumes independent rows: for images that are copies of one photograph, p is too small; for
    photographs (after `per_photograph`) it is valid.

    Raises:
        StudyError: the two were tested on different images.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    same_images([first, second])
    a, b = first["correct"].to_numpy(dtype=bool), second["correct"].to_numpy(dtype=bool)
    both, only_first = int((a & b).sum()), int((a & ~b).sum())
    only_second, neither = int((~a & b).sum()), int((~a & ~b).sum())
    p = float(test([[both, only_first], [only_second, neither]], exact=True).pvalue)
    return McNemar(both, only_first, only_second, neither, p)


def per_class(table: Judged) -> pd.DataFrame:
    """Return a row for each class: class, precision, recall, f1 (fractions, NaN where undefined),
    units, photographs (None if unknown).
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = classes_of(table)
    precision, recall, f1, units = precision_recall_fscore_support(
        table["truth"].to_list(),
        table["prediction"].to_list(),
        labels=classes,
        zero_division=np.nan,
    )
    units = units.astype(int)  # scikit-learn gives floats where no prediction is right
    f1 = np.where(units > 0, f1, np.nan)  # and 0 for a predicted class without test images
    known = photographs_known(table)
    photographs = [
        table.loc[table["truth"] == name, "photograph"].nunique() if known else None
        for name in classes
    ]
    columns = {"class": classes, "precision": precision, "recall": recall, "f1": f1, "units": units}
    return pd.DataFrame({**columns, "photographs": photographs})


def confusion(table: Judged) -> pd.DataFrame:
    """Return the counts (classes, classes): a row for each truth, a column for each prediction, in
    the order of names.
    """
    from sklearn.metrics import confusion_matrix

    classes = classes_of(table)
    counted = confusion_matrix(
        table["truth"].to_list(), table["prediction"].to_list(), labels=classes
    )
    return pd.DataFrame(
        counted, index=pd.Index(classes, name="truth"), columns=pd.Index(classes, name="prediction")
    )


def reliability(table: Judged, bins: int = 15) -> pd.DataFrame:
    """Return a row for each bin of confidence that holds images: low, high (bounds; low <
    confidence <= high), images (how many), confidence, accuracy (means).
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence, correct = table["confidence"].to_numpy(), table["correct"].to_numpy(dtype=float)
    place = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(place, minlength=bins)
    full = images > 0
    means = [
        np.bincount(place, weights=x, minlength=bins)[full] / images[full]
        for x in (confidence, correct)
    ]
    names = {"low": edges[:-1][full], "high": edges[1:][full], "images": images[full]}
    return pd.DataFrame({**names, "confidence": means[0], "accuracy": means[1]})


def expected_calibration_error(table: Judged, bins: int = 15) -> float:
    """Return the mean of |accuracy - confidence| over equal bins, weighted by images (Guo et al.
    2017), a fraction.
    """
    curve = reliability(table, bins)
    return float(
        np.average((curve["accuracy"] - curve["confidence"]).abs(), weights=curve["images"])
    )


def most_confident_errors(table: Judged, n: int = 20) -> pd.DataFrame:
    """Return the `n` wrong rows with the highest confidence, descending; `path` is a column."""
    wrong = table[~table["correct"].astype(bool)].reset_index()
    return wrong.sort_values(
        ["confidence", "path"], ascending=[False, True], ignore_index=True
    ).head(n)


def spread(values: Sequence[float]) -> Spread:
    """Return mean, minimum and maximum of one figure over repeats.

    Raises:
        StudyError: there is no value, or one is not a number.
    """
    figures = np.asarray(values, dtype=float)
    if figures.size == 0 or not np.isfinite(figures).all():
        raise StudyError(f"no spread of {figures.size} repeats: a value is missing or not a number")
    return Spread(float(figures.mean()), float(figures.min()), float(figures.max()), figures.size)


def resample(right: list[Floats], sizes: Counts, resamples: int, seed: int) -> list[Floats]:
    """Draw photographs with replacement, the same for every entry of `right`, and repeats with
    replacement, independently for each entry.

    Args:
        right: arrays (photographs, repeats): correct predictions in each photograph.
        sizes: (photographs,) images in each.

    Returns:
        arrays (resamples,): the accuracy of each entry in each resample, the mean over repeats.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.empty(resamples) for _ in right]
    step = max(1, BLOCK // len(sizes))
    for start in range(0, resamples, step):
        block = slice(start, min(start + step, resamples))
        photographs = rng.integers(len(sizes), size=(block.stop - start, len(sizes)))
        images = sizes[photographs].sum(axis=1)
        for entry, result in zip(right, drawn, strict=True):
            repeats = entry.shape[1]
            sums = np.stack([entry[:, r][photographs].sum(axis=1) for r in range(repeats)], axis=1)
            weights = (
                rng.multinomial(repeats, np.full(repeats, 1 / repeats), size=len(sums)) / repeats
            )
            result[block] = (sums * weights).sum(axis=1) / images
    return drawn


def right_answers(runs: list[Judged]) -> tuple[Floats, Counts]:
    """Return correct predictions (photographs, repeats) and images (photographs,).

    If photographs are unknown, each image counts as one.
    """
    same_images(runs)
    groups = runs[0]["photograph"] if photographs_known(runs[0]) else np.arange(len(runs[0]))
    place = pd.factorize(groups)[0]
    sums = [np.bincount(place, weights=run["correct"].to_numpy(dtype=float)) for run in runs]
    return np.stack(sums, axis=1), np.bincount(place)


def same_images(runs: Sequence[Judged]) -> None:
    """Raise StudyError unless all judged tables have the same images, truths and photographs."""
    for run in runs[1:]:
        if not run.index.equals(runs[0].index):
            apart = run.index.symmetric_difference(runs[0].index)
            raise StudyError(
                f"runs were tested on different images ({len(apart)} are in only one of them): run "
                "both on the same data"
            )
        if not (
            run["truth"].equals(runs[0]["truth"])
            and run["photograph"].equals(runs[0]["photograph"])
        ):
            raise StudyError(
                "runs disagree on the truth or group of the same images: run both on the same data"
            )


def as_list(runs: Runs) -> list[Judged]:
    return [runs] if isinstance(runs, pd.DataFrame) else list(runs)


def quantiles(values: Floats, level: float) -> tuple[float, float]:
    """Return the bounds of the central share `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
