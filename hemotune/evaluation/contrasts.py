"""Differences of rows over photographs and trainings, both of which are samples.

One model holds both, crossed: multi-reader multi-case analysis, where a reader is a training and a
case a photograph (Obuchowski & Rockette 1995; Hillis 2007; Gallas 2006). A statement then holds for
other photographs and for other seeds. Two things it is conditional on: the cut of the images, and
the pre-trained backbone that all trainings start from.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemotune.evaluation.statistics import Floats
from hemotune.evaluation.trainings import Spread, Trainings, between_repeats, correction

POWER = 0.8
MOST_TIMES = 1000  # a need for more than so many times the photographs or repeats is none


class Term(NamedTuple):
    """One row in a contrast: its trainings, their spread, and the factor of its accuracy."""

    factor: float
    trainings: Trainings
    spread: Spread


@dataclass(frozen=True)
class Variance:
    """A part of a contrast's variance (fractions, squared) with its degrees of freedom.

    crossed: how much of it comes from training x photograph; None where that is not separable.
    """

    value: float
    freedom: float
    crossed: float | None = 0.0


@dataclass(frozen=True)
class Contrast:
    """A sum of accuracies of rows, each times a factor, over the photographs that all of them have.

    photographs: the variance of the sum between samples of photographs; None where there is only
        one. It holds no training x photograph, which is part of the trainings' variance.
    trainings: the variance of each row's mean over its trainings.
    repeats: trainings of each row.
    depth: trainings of a fold, the mean of the row with the fewest.
    images, number, effective: images, photographs, and the number of equally large photographs that
        would weigh the same.
    """

    value: float
    photographs: Variance | None
    trainings: tuple[Variance, ...]
    repeats: tuple[int, ...]
    depth: float
    images: int
    number: int
    effective: float

    @cached_property
    def variance(self) -> float:
        parts = [self.photographs] if self.photographs else []
        return float(sum(part.value for part in (*parts, *self.trainings)))

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946)."""
        parts = [self.photographs] if self.photographs else []
        return satterthwaite([*parts, *self.trainings])

    @cached_property
    def p(self) -> float:
        """Two-sided p that the sum is 0."""
        from scipy.special import stdtr

        if self.photographs is None or self.value == 0:
            return 1.0
        if self.variance == 0:
            return 0.0
        return float(2 * stdtr(self.freedom, -abs(self.value) / np.sqrt(self.variance)))

    def half_width(self, level: float = 0.95) -> float | None:
        """Return half the width of the interval; None where there is one photograph."""
        from scipy.special import stdtrit

        if self.photographs is None:
            return None
        return float(stdtrit(self.freedom, (1 + level) / 2) * np.sqrt(self.variance))

    def accuracy_interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Return the interval of a single row's accuracy, which is computed on the logit scale so
        that it ends before 0 and 1; None where there is one photograph, or nothing varies.
        """
        from scipy.special import expit, logit, stdtrit

        if self.photographs is None or self.variance == 0 or not 0 < self.value < 1:
            return None
        error = np.sqrt(self.variance) / (self.value * (1 - self.value))
        width = float(stdtrit(self.freedom, (1 + level) / 2) * error)
        middle = logit(self.value)
        return float(expit(middle - width)), float(expit(middle + width))

    @property
    def separable(self) -> bool:
        """Whether it is known how much photographs and trainings contribute."""
        return self.photographs is not None and all(
            part.crossed is not None for part in self.trainings
        )

    def needed_photographs(self, difference: float, level: float) -> int | None:
        """Return how many photographs would find `difference` (fraction) at the two-sided `level`
        in 80 % of studies with as many trainings.

        They have the same sizes and classes as these. None where no number of photographs does, or
        where the shares of photographs and trainings are not separable.
        """
        times = least(lambda times: self.power(difference, level, photographs=times))
        return None if times is None else int(np.ceil(times * self.number))

    def needed_repeats(self, difference: float, level: float) -> int | None:
        """Return how many repeats of each row would find it on the same photographs; None as
        above.
        """
        times = least(lambda times: self.power(difference, level, repeats=times))
        return None if times is None else int(np.ceil(times * self.depth))

    def power(
        self, difference: float, level: float, photographs: float = 1, repeats: float = 1
    ) -> float:
        """Return the power with `photographs` and `repeats` times as many."""
        from scipy.special import stdtrit
        from scipy.stats import nct

        if self.photographs is None or not self.separable:
            return 0.0
        parts = [
            Variance(self.photographs.value / photographs, self.photographs.freedom * photographs)
        ]
        for part in self.trainings:
            crossed = part.crossed or 0.0
            value = (max(0.0, part.value - crossed) + crossed / photographs) / repeats
            parts.append(Variance(value, part.freedom * repeats))
        variance = sum(part.value for part in parts)
        if variance == 0:
            return 1.0
        freedom = satterthwaite(parts)
        bound = stdtrit(freedom, 1 - level / 2)
        return float(nct.sf(bound, freedom, difference / np.sqrt(variance)))


def satterthwaite(parts: Sequence[Variance]) -> float:
    """Return the degrees of freedom of a sum of variances (Satterthwaite 1946); at least 1."""
    total = sum(part.value for part in parts)
    spent = sum(part.value**2 / max(part.freedom, 1.0) for part in parts)
    return max(1.0, total**2 / spent) if spent > 0 else 1.0


def tested_by_all(terms: Sequence[Term]) -> NDArray[np.bool_]:
    """Return (photographs,) whether all rows have a training that tested a photograph."""
    tested: NDArray[np.bool_] = np.logical_and.reduce([t.trainings.counts > 0 for t in terms])
    return tested


def contrast(terms: Sequence[Term]) -> Contrast:
    """Return the contrast of rows over the photographs that all of them tested, of which there must
    be one.

    Args:
        terms: with the same photographs in the same order.
    """
    rows, there = [term.trainings for term in terms], tested_by_all(terms)
    sizes = rows[0].sizes * there
    weights = sizes / sizes.sum()
    change: Floats = np.sum([term.factor * term.trainings.means for term in terms], axis=0)
    trainings = tuple(variance_of(term, weights) for term in terms)
    holds = all(term.spread.holds_photographs for term in terms)
    if holds and abs(sum(term.factor for term in terms)) < 1e-12:
        photographs: Variance | None = Variance(0.0, 1.0)
    else:
        photographs = between_photographs(rows, change, weights, trainings)
    return Contrast(
        value=float(weights @ change),
        photographs=photographs,
        trainings=trainings,
        repeats=tuple(trainings_on(row, there) for row in rows),
        depth=min(float(weights @ row.counts) for row in rows),
        images=int(sizes.sum()),
        number=int(there.sum()),
        effective=float(1 / (weights**2).sum()),
    )


def trainings_on(row: Trainings, there: np.ndarray) -> int:
    """Return how many trainings tested the photographs `there` (P,)."""
    return int(row.repeats[np.bincount(row.folds[there], minlength=len(row.repeats)) > 0].sum())


def variance_of(term: Term, weights: Floats) -> Variance:
    """Return the variance of a row's part in a contrast from its trainings."""
    row, spread = term.trainings, term.spread
    of_fold = np.bincount(row.folds, weights=weights, minlength=len(row.repeats))
    share = term.factor**2 * of_fold**2 / np.maximum(row.repeats, 1)
    crossed = None if spread.crossed is None else float(share @ spread.crossed)
    return Variance(float(spread.variance * share.sum()), spread.freedom, crossed)


def between_photographs(
    rows: Sequence[Trainings], change: Floats, weights: Floats, trainings: Sequence[Variance]
) -> Variance | None:
    """Return the variance of the weighted mean of `change` (P,) between photographs.

    Photographs are compared with others of their fold alone, whose level is the trainings'. What
    the trainings make of single photographs is subtracted, for it is part of their own variance;
    the rest is not below 0 (Hillis 2007).
    """
    there = weights > 0
    cells = rows[0].folds[there]
    for row in rows[1:]:
        cells = cells * len(row.repeats) + row.folds[there]
    places = np.unique(cells, return_inverse=True)[1]
    weights, change = weights[there], change[there]
    members = np.arange(places.max() + 1)[:, None] == places
    of_fold = members @ weights
    within = members * weights / of_fold[:, None]
    apart = change - (within @ change)[places]
    raw = within**2 @ apart**2 * correction(within)
    if not np.isfinite(raw).any():
        return None
    raw = np.where(np.isfinite(raw), raw, np.nanmean(raw))
    total = float(of_fold**2 @ raw)
    # Of the weights: few large photographs make few degrees of freedom. Judged before subtraction,
    # for that does not make the estimate surer.
    freedom = (weights**2).sum() ** 2 / (weights**4).sum() - len(members)
    left = max(0.0, total - sum(part.crossed or 0.0 for part in trainings))
    if left > 0:
        freedom *= (left / total) ** 2
    return Variance(left, max(1.0, float(freedom)))


def least(power: Callable[[float], float], most: float = MOST_TIMES) -> float | None:
    """Return the smallest number from 1 to `most` at which `power` reaches POWER."""
    from scipy.optimize import brentq

    if power(1) >= POWER:
        return 1.0
    if power(most) < POWER:
        return None
    return float(np.exp(brentq(lambda x: power(np.exp(x)) - POWER, 0, np.log(most), xtol=1e-3)))


@dataclass(frozen=True)
class Components:
    """The variance of one accuracy (fractions, squared): photographs tested once by one training
    (of each fold).
    """

    photographs: float  # other photographs
    training: float  # another training, on all photographs alike
    crossed: float  # what a training makes of single photographs
    split: float | None = None  # another cut of the same photographs; None where there is only one

    @property
    def total(self) -> float:
        return self.photographs + self.training + self.crossed + (self.split or 0.0)


def components_of(rows: Sequence[Trainings], spreads: Sequence[Spread]) -> Components | None:
    """Return the variance components of a series, means over its rows; None where trainings and
    photographs are not separable, for there are no repeats.
    """
    parts, freedoms = [], []
    for row, spread in zip(rows, spreads, strict=True):
        alone = contrast([Term(1, row, spread)])
        variance, freedom = between_repeats(row)
        if spread.crossed is None or alone.photographs is None or not freedom:
            continue
        share = row.weights_of_folds**2
        crossed = float(share @ spread.crossed)
        parts.append([alone.photographs.value, variance * share.sum() - crossed, crossed])
        freedoms.append(freedom)
    if not parts:
        return None
    means = np.average(parts, axis=0, weights=freedoms)
    return Components(*(max(0.0, float(mean)) for mean in means))


def components_over_cuts(
    cuts: Sequence[tuple[Sequence[Trainings], Sequence[Spread]]],
) -> Components | None:
    """Return the variance components of rows whose images were cut several times; None as above.

    The choice of the split is what remains of the variance between cuts beside the trainings and
    the photographs in which their tests differ.

    Args:
        cuts: the rows, in the same order, and their spreads.
    """
    found = [components_of(rows, spreads) for rows, spreads in cuts]
    known = [parts for parts in found if parts]
    if len(known) < len(found):
        return None
    photographs = fmean(parts.photographs for parts in known)
    levels = [
        [contrast([Term(1, row, one)]).value for row, one in zip(*cut, strict=True)] for cut in cuts
    ]
    between = float(np.var(levels, axis=0, ddof=1).mean())
    trainings = fmean(
        between_repeats(row)[0] * (row.weights_of_folds**2 / np.maximum(row.repeats, 1)).sum()
        for rows, _ in cuts
        for row in rows
    )
    tests = [rows[0] for rows, _ in cuts]
    shared = fmean(overlap(one, other) for one, other in itertools.combinations(tests, 2))
    return Components(
        photographs,
        fmean(parts.training for parts in known),
        fmean(parts.crossed for parts in known),
        max(0.0, between - trainings - photographs * (1 - shared)),
    )


def overlap(first: Trainings, second: Trainings) -> float:
    """Return which part of the photographs' variance two tests share: 1 for the same photographs
    with the same numbers of images, 0 for others.
    """
    a, b = (dict(zip(row.photographs, row.sizes, strict=True)) for row in (first, second))
    both = sum(size * b.get(photograph, 0) for photograph, size in a.items())
    return float(both / np.sqrt((first.sizes**2).sum() * (second.sizes**2).sum()))
