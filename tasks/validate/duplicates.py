"""Images that show the same: the same bytes, or nearly the same picture by perceptual hash."""

import numpy as np

# The hash is 16 words of 16 bits, low frequencies first. The first three hardly differ within one
# data set; two hashes that differ in at most MOST_BITS bits have one of the other 13 words in
# common, so only such pairs are compared.
WORDS = slice(3, 16)
MOST_BITS = 12
# Pairs further apart than this in a run of equal words are not compared: thousands of nearly blank
# images stay affordable.
LONGEST_RUN = 200


def same_bytes(inventory):
    """For each image find another one with the same bytes.

    Args:
        inventory: DataFrame with path, split, class, sha256.

    Returns:
        Two lists of paths, a value a row, None where there is none: the first such image in another
            split or class, and the
        first in the same split and class.
    """
    across, within = [None] * len(inventory), [None] * len(inventory)
    # Numbers: the texts would need a hundred bytes each
    contents = inventory["sha256"].factorize()[0]
    files = inventory[["path", "split", "class"]].assign(
        content=contents, row=np.arange(len(inventory))
    )
    files = files[(files["content"] >= 0) & files["content"].duplicated(keep=False)]
    by_content = {}
    for path, split, cell_class, content, row in files.itertuples(index=False, name=None):
        by_content.setdefault(content, {}).setdefault((split, cell_class), []).append((path, row))
    for by_place in by_content.values():
        for place, here in by_place.items():
            elsewhere = next(
                (there[0][0] for other, there in by_place.items() if other != place), None
            )
            for path, row in here:
                across[row] = elsewhere
                if len(here) > 1:
                    within[row] = next(other for other, _ in here if other != path)
    return across, within


def nearly_same(inventory, bits):
    """For each image find the one that looks most like it, by perceptual hash; images with the same
    bytes are left out.

    Args:
        inventory: DataFrame with path, split, sha256, phash (256 bits in hexadecimal, null where
            unreadable).
        bits: how many of the 256 bits may differ, at most MOST_BITS.

    Returns:
        Two lists of paths, a value a row, None where there is none: an image of another split, and
            one of the same split.
    """
    hashed = np.flatnonzero(inventory["phash"].notna())
    digests = bytes.fromhex("".join(inventory["phash"].iloc[hashed].tolist()))
    words = np.frombuffer(digests, np.uint16).reshape(-1, 16)
    longs = np.frombuffer(digests, np.uint64).reshape(-1, 4)
    split = inventory["split"].iloc[hashed].factorize()[0]
    content = inventory["sha256"].iloc[hashed].factorize()[0]
    # Distance and row of the best partner in one number, so that the order of comparing does not
    # matter; 0: another split, 1: the same.
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
    found = [[None] * len(inventory), [None] * len(inventory)]
    for kind, row in zip(*np.nonzero(best < none), strict=True):
        found[kind][hashed[row]] = paths[hashed[best[kind, row] % len(hashed)]]
    return found
