"""Which images show the same, found as the stages validate and group find it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from hemotune.copies import nearly_same
from hemotune.photographs import group
from hemotune.settings.validation import Validation

BITS = Validation().near_duplicate_bits  # of the perceptual hash's 256 that may differ
# Of an image that is smaller or flatter than this, features and hash are noise.
SMALLEST_SIDE = 64  # pixels
LEAST_CONTRAST = 6.0  # standard deviation of its grey levels
LEAST_CORRELATION = 0.95  # of the pixels of two images whose hashes are equal enough
# Images of a group among which an image's partner is looked for
MOST_PARTNERS = 200

KINDS = {
    "identical": "identical files",
    "nearly": "nearly identical, as after saving again or scaling",
    "changed": "turned, sheared, mirrored, cropped or brightened",
    "given": "of one group by their folders",
}

Pixels = NDArray[np.uint8]  # (N, size, size, 3)


@dataclass(frozen=True)
class Pair:
    """Two images of one group, by their rows of the inventory."""

    row: int
    other: int
    kind: str  # a key of KINDS


def group_images(
    images: pd.DataFrame,
    pixels: Pixels,
    folder: Path,
    photographs: Sequence[Path],
    given: Mapping[str, str],
) -> pd.DataFrame:
    """Return for each image its group and whether it can be compared with others.

    One group are images of one photograph (see `hemotune.photographs`), the same file, nearly the
    same pixels, and images that are given as one group. Of small images only those with the same
    pixels are, and those that are given.

    Args:
        images: the readable rows of the inventory, their index the rows of `pixels`.
        folder: that the paths of images are relative to.
        photographs: files of the originals; may be empty.
        given: the group of an image by its path; may be empty.

    Returns:
        DataFrame indexed as `images`: path; group, an integer; found, the same without the given
        groups; comparable (bool): whether a changed copy of it would be found.
    """
    large = images[["width", "height"]].min(axis=1) >= SMALLEST_SIDE
    paths = images["path"]
    table = group([folder / path for path in paths[large]], photographs)
    table = table.set_index(paths.index[large]).reindex(paths.index)
    marks = [table["photograph"], images["sha256"], equal_pixels(images[~large], pixels)]
    near = near_pairs(images[large], pixels)
    found = joined(images.index, marks, near)
    groups = joined(images.index, [*marks, paths.map(given)], near) if given else found
    return pd.DataFrame(
        {
            "path": paths,
            "group": groups,
            "found": found,
            "comparable": large & (table["method"] != "unknown"),
        }
    )


def equal_pixels(images: pd.DataFrame, pixels: Pixels) -> pd.Series:
    """Return a mark of each image that is the same for images of equal size and pixels."""
    marks = {
        row: f"{width} {height} {hashlib.sha256(pixels[row].tobytes()).hexdigest()}"
        for row, width, height in zip(images.index, images["width"], images["height"], strict=True)
    }
    return pd.Series(marks, dtype=str)


def joined(
    index: pd.Index, marks: Sequence[pd.Series], pairs: Sequence[tuple[int, int]]
) -> pd.Series:
    """Return the number of each row's group: rows with an equal mark, and pairs, are one group."""
    groups = DisjointSet(index.tolist())
    for mark in marks:
        for rows in mark.dropna().groupby(mark).groups.values():
            for row in rows[1:]:
                groups.merge(rows[0], row)
    for one, other in pairs:
        groups.merge(one, other)
    numbers = {row: number for number, rows in enumerate(groups.subsets()) for row in rows}
    return pd.Series(numbers).reindex(index)


def near_pairs(images: pd.DataFrame, pixels: Pixels) -> list[tuple[int, int]]:
    """Return pairs of rows whose perceptual hashes are nearly equal and whose pixels agree."""
    row_of = pd.Series(images.index, index=images["path"])
    pairs = {
        tuple(sorted((row, int(row_of[partner]))))
        for partners in nearly_same(images, BITS)
        for row, partner in zip(images.index.tolist(), partners, strict=True)
        if partner
    }
    return [(one, other) for one, other in sorted(pairs) if agree(pixels[one], pixels[other])]


def agree(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two images (size, size, 3) differ at most in brightness and contrast."""
    left, right = one.mean(axis=2).ravel(), other.mean(axis=2).ravel()
    if min(left.std(), right.std()) < LEAST_CONTRAST:
        return False
    return float(np.corrcoef(left, right)[0, 1]) >= LEAST_CORRELATION


def pairs_across(
    images: pd.DataFrame, groups: pd.DataFrame, these: pd.Series, those: pd.Series
) -> list[Pair]:
    """Return for each of `these` images that has an image of its group among `those` the pair with
    the likest one.

    Args:
        images: indexed as `groups`, with sha256 and phash.
        these, those: bool of each image. An image in both is not paired with itself.
    """
    digests = bytes.fromhex("".join(images["phash"].tolist()))
    words = np.frombuffer(digests, np.uint64).reshape(-1, 4)
    hashes = dict(zip(images.index.tolist(), words, strict=True))
    partners = {
        number: rows[: MOST_PARTNERS + 1].tolist()
        for number, rows in groups[those.to_numpy()].groupby("group").groups.items()
    }
    pairs = []
    asked = groups[these.to_numpy()]
    for row, number in zip(asked.index.tolist(), asked["group"], strict=True):
        others = [other for other in partners.get(number, ()) if other != row]
        if others:
            differing = np.bitwise_count(
                np.stack([hashes[other] for other in others]) ^ hashes[row]
            ).sum(axis=1)
            other = others[int(differing.argmin())]
            same_file = images["sha256"][row] == images["sha256"][other]
            same_picture = groups["found"][row] == groups["found"][other]
            pairs.append(
                Pair(row, other, kind_of_pair(same_file, same_picture, int(differing.min())))
            )
    return pairs


def kind_of_pair(same_file: bool, same_picture: bool, bits: int) -> str:
    """Return the key of KINDS for two images of one group whose hashes differ in `bits`."""
    if same_file:
        return "identical"
    if not same_picture:
        return "given"
    return "nearly" if bits <= BITS else "changed"
