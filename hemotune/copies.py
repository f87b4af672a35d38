"""Find duplicate images: the same bytes, or perceptual hashes that differ in few bits."""

from typing import NamedTuple

import numpy as np
import pandas as pd

# The hash is 16 words of 16 bits, low frequencies first. The first three hardly differ within one
# data set; two hashes that differ in at most MOST_BITS bits share at least one of the other
# 13 words, so only such pairs are compared.
WORDS = slice(3, 16)
MOST_BITS = 12
# Pairs further apart than this in a run of equal words are not compared, which limits the time for
# thousands of nearly blank images.
LONGEST_RUN = 200


class Partners(NamedTuple):
    """For each image the path of a duplicate, or None."""

    across: list[str | None]
    within: list[str | None]


def same_bytes(inventory: pd.DataFrame) -> Partners:
    """Find for each image another one with the same bytes.

    Args:
        inventory: with path, split, class and sha256.

    Returns:
        The first such image in another split or class, and the first in the same split and class.
    """
    found = Partners([None] * len(inventory), [None] * len(inventory))
    # Integers, because strings would take a hundred bytes each
    contents = inventory["sha256"].factorize()[0]
    files = inventory[["path", "split", "class"]].assign(
        content=contents, row=np.arange(len(inventory))
    )
    files = files[(files["content"] >= 0) & files["content"].duplicated(keep=False)]
    # By content and by (split, class): the paths and rows of the images
    groups: dict[int, dict[tuple[str, str], list[tuple[str, int]]]] = {}
    for path, split, name, content, row in files.itertuples(index=False, name=None):
        groups.setdefault(content, {}).setdefault((split, name), []).append((path, row))
    for by_place in groups.values():
        for place, here in by_place.items():
            elsewhere = next(
                (there[0][0] for other, there in by_place.items() if other != place), None
            )
            for path, row in here:
                found.across[row] = elsewhere
                if len(here) > 1:
                    found.within[row] = next(other for other, _ in here if other != path)
    return found


def nearly_same(inventory: pd.DataFrame, bits: int) -> Partners:
    """Find for each image the most similar one by perceptual hash, other than copies of the same
    bytes.

    Args:
        inventory: with path, split, sha256 and phash (256 bits in hexadecimal, null if unreadable).
        bits: how many of the 256 bits may differ, at most MOST_BITS.

    Returns:
        The most similar image of another split, and of the same split.
    """
    hashed = np.flatnonzero(inventory["phash"].notna())
    digests = bytes.fromhex("".join(inventory["phash"].iloc[hashed].tolist()))
    words = np.frombuffer(digests, np.uint16).reshape(-1, 16)
    longs = np.frombuffer(digests, np.uint64).reshape(-1, 4)
    split = inventory["split"].iloc[hashed].factorize()[0]
    content = inventory["sha256"].iloc[hashed].factorize()[0]
    # Distance and row of the best partner in one number, so that the order of comparisons does not
    # matter. First row: partners in another split, second: in the same.
    none = (MOST_BITS + 1) * len(hashed)
    best = np.full((2, len(hashed)), none)
    for word in words.T[WORDS]:
        order = np.lexsort((*longs.T, word))
        begins = np.arange(len(order))
        for step in range(1, LONGEST_RUN + 1):
            begins = begins[begins + step < len(order)]
            left, right = order[begins], order[begins + step]
            same_run = word[left] == word[right]
            begins, left, right = begins[same_run], left[same_run], right[same_run]
            if not len(begins):
                break
            differing = np.bitwise_count(longs[left] ^ longs[right]).sum(axis=1, dtype=int)
            near = (differing <= bits) & (content[left] != content[right])
            left, right, differing = left[near], right[near], differing[near]
            kind = (split[left] == split[right]).astype(int)
            np.minimum.at(best, (kind, left), differing * len(hashed) + right)
            np.minimum.at(best, (kind, right), differing * len(hashed) + left)
    paths = inventory["path"].to_numpy()
    found = Partners([None] * len(inventory), [None] * len(inventory))
    for kind, row in zip(*np.nonzero(best < none), strict=True):
        found[kind][hashed[row]] = paths[hashed[best[kind, row] % len(hashed)]]
    return found
