"""What the trainings of a row answered, photograph by photograph, and how much they vary.

A row of a study is trained several times: in each repeat, and in each fold where the protocol has
folds. Trainings of one fold differ by their seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.errors import StudyError
from hemotune.evaluation.moderation import moderated
from hemotune.evaluation.predictions import Judged, photographs_known
from hemotune.evaluation.statistics import Counts, Floats, same_images


class Training(NamedTuple):
    """The judged test images of one training; the fold is 0 where the protocol has none."""

    fold: int
    repeat: int
    judged: Judged


@dataclass(frozen=True)
class Trainings:
    """The right answers of all trainings of one row.

    Args:
        photographs: (P,) their names; images' paths where photographs are unknown.
        sizes: (P,) images of each.
        folds: (P,) number of the fold that tests it, from 0.
        shares: (P, repeats) share of a photograph's images that are predicted correctly; NaN where
            the training is missing.
    """

    photographs: NDArray[np.object_]
    sizes: Counts
    folds: Counts
    shares: Floats

    @cached_property
    def tested(self) -> NDArray[np.bool_]:
        """(P, repeats) whether there is a training."""
        return np.isfinite(self.shares)

    @cached_property
    def counts(self) -> Counts:
        """(P,) trainings that tested a photograph."""
        counted: Counts = self.tested.sum(axis=1)
        return counted

    @cached_property
    def means(self) -> Floats:
        """(P,) mean share over repeats, 0 where nothing tested the photograph."""
        means: Floats = np.where(self.tested, self.shares, 0).sum(axis=1)
        return means / np.maximum(self.counts, 1)

    @cached_property
    def members(self) -> Floats:
        """(folds, P) weight of a photograph in its fold, by images; a row sums to 1."""
        images = (np.arange(self.folds.max() + 1)[:, None] == self.folds) * self.sizes
        weights: Floats = images / images.sum(axis=1, keepdims=True)
        return weights

    @cached_property
    def weights_of_folds(self) -> Floats:
        """(folds,) share of the images that were tested."""
        images = np.bincount(self.folds, weights=self.sizes * (self.counts > 0))
        weights: Floats = images / images.sum()
        return weights

    @cached_property
    def repeats(self) -> Counts:
        """(folds,) trainings of each fold."""
        counted: Counts = (self.members @ self.tested).round().astype(int).sum(axis=1)
        return counted

    @cached_property
    def accuracies(self) -> Floats:
        """(folds, repeats) accuracy of each training on its own images, NaN where missing."""
        tested = self.members @ self.tested > 0.5
        accuracies: Floats = self.members @ np.where(self.tested, self.shares, 0)
        return np.where(tested, accuracies, np.nan)

    @cached_property
    def apart(self) -> Floats:
        """(folds, repeats) accuracy minus the mean of its fold, 0 where a training is missing."""
        tested = np.isfinite(self.accuracies)
        accuracies = np.where(tested, self.accuracies, 0)
        means = accuracies.sum(axis=1) / np.maximum(self.repeats, 1)
        return np.where(tested, accuracies - means[:, None], 0)


@dataclass(frozen=True)
class Spread:
    """How much the trainings of a row vary.

    variance: of the accuracy of one training on its fold's images, between seeds (fractions,
        squared), or the mean of the rows where that is greater.
    freedom: its degrees of freedom.
    crossed: (folds,) the part of it that comes from what a training makes of single photographs
        (training x photograph), as estimated; None where it cannot be separated.
    holds_photographs: whether the variance is of a training in another fold, so of one that is
        tested on other photographs too. Then it holds all that varies in a difference of rows.
    """

    variance: float
    freedom: float
    crossed: Floats | None
    holds_photographs: bool = False


def rows_of(rows: Sequence[Sequence[Training]]) -> list[Trainings]:
    """Return the right answers of the rows of a series, all over the same photographs.

    Raises:
        StudyError: trainings of one fold were tested on different images.
    """
    found = [training for row in rows for training in row]
    folds = sorted({training.fold for training in found})
    repeats = sorted({training.repeat for training in found})
    names, sizes, places = [], [], {}
    for fold in folds:
        tables = [training.judged for training in found if training.fold == fold]
        same_images(tables)
        known = photographs_known(tables[0])
        places[fold], unique = pd.factorize(tables[0]["photograph"] if known else tables[0].index)
        names.append(np.asarray(unique, dtype=object))
        sizes.append(np.bincount(places[fold]))
    shares = [[np.full((len(part), len(repeats)), np.nan) for part in sizes] for _ in rows]
    for row, parts in zip(rows, shares, strict=True):
        for fold, repeat, judged in row:
            number = folds.index(fold)
            right = np.bincount(places[fold], weights=judged["correct"].to_numpy(dtype=float))
            parts[number][:, repeats.index(repeat)] = right / sizes[number]
    numbers = np.repeat(np.arange(len(folds)), [len(part) for part in sizes])
    if len(photographs := np.concatenate(names)) > len(set(photographs)):
        raise StudyError("a group is tested in two folds: run `dvc repro prepare`")
    return [
        Trainings(photographs, np.concatenate(sizes), numbers, np.concatenate(parts))
        for parts in shares
    ]


def paired_rows(
    first: Sequence[Sequence[Training]], second: Sequence[Sequence[Training]]
) -> tuple[list[Trainings], list[Trainings]]:
    """Return the rows of two series on the images that both were tested on, photographs in the same
    order.
    """
    tested = [
        pd.Index(np.unique(np.concatenate([t.judged.index for row in rows for t in row])))
        for rows in (first, second)
    ]
    shared = tested[0].intersection(tested[1])
    a, b = (
        rows_of(
            [
                [t._replace(judged=part) for t in row if len(part := on_images(t.judged, shared))]
                for row in rows
            ]
        )
        for rows in (first, second)
    )
    order = pd.Index(b[0].photographs).get_indexer(pd.Index(a[0].photographs))
    return a, [
        Trainings(row.photographs[order], row.sizes[order], row.folds[order], row.shares[order])
        for row in b
    ]


def on_images(judged: Judged, images: "pd.Index[str]") -> Judged:
    return judged[images.get_indexer(judged.index) >= 0]


def spreads_of(rows: Sequence[Trainings]) -> list[Spread] | None:
    """Return the spread of each row of a series; None where one training says nothing about it:
    without repeats, and with fewer than three folds or a single row.

    Rows of one repeat share their seed and with it the order of the images. Their trainings are
    positively correlated, so to treat rows as independent overstates the variance of a difference.
    """
    if any((row.repeats > 1).any() for row in rows):
        found = [between_repeats(row) for row in rows]
        crossed = filled([crossed_of(row) for row in rows])
        parts: list[Floats | None] = [*crossed]
    elif len(rows) > 1 and len(rows[0].members) > 2:
        found = between_folds(rows)
        parts = [None] * len(rows)
    else:
        return None
    variances, freedoms = (np.array(values) for values in zip(*found, strict=True))
    if not freedoms.any():
        return None
    return [
        Spread(variance, freedom, part, holds_photographs=part is None)
        for (variance, freedom), part in zip(moderated(variances, freedoms), parts, strict=True)
    ]


def between_repeats(row: Trainings) -> tuple[float, float]:
    """Return the variance of the accuracies within folds and its degrees of freedom."""
    freedom = float(np.maximum(row.repeats - 1, 0).sum())
    return float((row.apart**2).sum()) / max(freedom, 1.0), freedom


def between_folds(rows: Sequence[Trainings]) -> list[tuple[float, float]]:
    """Return the same from the folds of a single repeat: the variance that remains in each row
    beside the levels of rows and folds, by least squares, so that a fold may be missing.
    """
    accuracies = np.array([np.nanmax(row.accuracies, axis=1, initial=-1) for row in rows])
    row, fold = np.nonzero(accuracies >= 0)
    levels = np.hstack(
        [row[:, None] == np.arange(len(rows)), fold[:, None] == np.arange(accuracies.shape[1])]
    ).astype(float)
    fit = levels @ np.linalg.pinv(levels)
    apart = accuracies[row, fold] - fit @ accuracies[row, fold]
    freedoms = np.bincount(row, weights=1 - np.diag(fit), minlength=len(rows)).round(9)
    squares = np.bincount(row, weights=apart**2, minlength=len(rows))
    return [
        (float(total / max(freedom, 1e-9)), float(freedom))
        for total, freedom in zip(squares, freedoms, strict=True)
    ]


def crossed_of(row: Trainings) -> Floats:
    """Return (folds,) the variance of a training's accuracy from training x photograph, estimated
    from the residuals of each photograph over repeats; NaN in a fold with fewer than two.
    """
    apart = np.where(row.tested, row.shares - row.means[:, None] - row.apart[row.folds], 0)
    freedom = np.where(row.repeats > 1, row.repeats - 1.0, np.nan)
    squares: Floats = (row.members**2 @ apart**2).sum(axis=1) * correction(row.members)
    return squares / freedom


def correction(weights: Floats) -> Floats:
    """Return (...) the factor by which the sum of w^2 (d - mean)^2 is too small for the variance of
    the mean, with weights w (..., P) that sum to 1. For n equal weights it is n / (n - 1); NaN
    where there is one photograph.
    """
    squares, cubes = (weights**2).sum(axis=-1), (weights**3).sum(axis=-1)
    left = squares - 2 * cubes + squares**2
    factor: Floats = np.where(left > 1e-12, squares / np.where(left > 1e-12, left, 1), np.nan)
    return factor


def filled(parts: Sequence[Floats]) -> list[Floats]:
    """Return variances (folds,) of rows, where NaN is the mean of the row, or else of all rows."""
    table = np.array(parts)
    if np.isfinite(table).all():
        return list(table)
    of_all = np.nanmean(table) if np.isfinite(table).any() else 0.0
    for line in table:
        of_row = np.nanmean(line) if np.isfinite(line).any() else of_all
        line[np.isnan(line)] = of_row
    return list(table)
