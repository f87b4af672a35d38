"""The tables that the rules judge: each rule checks one column."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hemotune.copies import nearly_same, same_bytes
from hemotune.groups import groups_across

# TEST_SIMPLE contains unaugmented copies of TEST. No protocol trains or tests on them, so their
# classes may be small.
UNUSED_SPLITS = {"TEST_SIMPLE"}
# Columns of the inventory that have a value for every image, and for every readable one
OF_ALL = ["path", "split", "class", "readable"]
OF_READABLE = ["width", "height", "format", "mode", "bytes", "sha256", "brightness", "phash"]

Place = tuple[str, str]  # split, class


@dataclass(frozen=True)
class Tables:
    """What the rules judge."""

    # The inventory and `lacks`: names of the columns without a value, or None
    images: pd.DataFrame
    # The readable ones, and `size`, `same_bytes_across`, `same_bytes_within`,
    # `near_duplicate_across`, `near_duplicate_within` and `group_across`: path of another image, or
    # None
    decoded: pd.DataFrame
    folders: pd.DataFrame  # see folder_table


def tables_of(
    inventory: pd.DataFrame,
    folders: list[str],
    near_duplicate_bits: int,
    groups: Mapping[str, str] | None = None,
) -> Tables:
    """Return the tables that the rules judge.

    Args:
        inventory: with the columns of inventory.SCHEMA.
        folders: the existing class folders, SPLIT/CLASS.
        near_duplicate_bits: how many bits of the perceptual hash may differ between near
            duplicates.
        groups: of each image by its path, where groups are given.
    """
    images = inventory.copy(deep=False)
    images["lacks"] = lacking(inventory)
    # Only readable images are used for training, so the other rules ignore the rest. Selecting
    # rows copies every string.
    decoded = images if images["readable"].all() else images[images["readable"]]
    width, height = (decoded[side].astype("Int64").astype("string") for side in ("width", "height"))
    decoded["size"] = width + "x" + height
    decoded["same_bytes_across"], decoded["same_bytes_within"] = same_bytes(decoded)
    decoded["near_duplicate_across"], decoded["near_duplicate_within"] = nearly_same(
        decoded, near_duplicate_bits
    )
    used = {split for split in decoded["split"].unique() if split not in UNUSED_SPLITS}
    decoded["group_across"] = groups_across(groups or {}, decoded, used)
    return Tables(images, decoded, folder_table(images, decoded, folders))


def lacking(inventory: pd.DataFrame) -> list[str | None]:
    """Return for each row the columns that lack a required value, separated by commas, or None."""
    missing = inventory[OF_ALL + OF_READABLE].isna()
    missing.loc[~inventory["readable"], OF_READABLE] = False
    names: list[str | None] = [None] * len(missing)
    for row in np.flatnonzero(missing.to_numpy().any(axis=1)):
        names[row] = ", ".join(missing.columns[missing.iloc[row]])
    return names


def common_size(decoded: pd.DataFrame) -> str:
    """Return the most frequent WIDTHxHEIGHT; the first by name if several are equally frequent."""
    return str(decoded["size"].value_counts().sort_index().idxmax()) if len(decoded) else "any"


def folder_table(images: pd.DataFrame, decoded: pd.DataFrame, folders: list[str]) -> pd.DataFrame:
    """Return a row for each class of each split, and for each existing class folder.

    Args:
        images, decoded: the tables of that name.
        folders: the existing class folders, SPLIT/CLASS.

    Returns:
        path, split and class; images, the number of readable ones; empty, why no model can be
        trained or tested on it, or None; classes, the number of usable classes in the whole data;
        imbalance, the size of the split's largest class divided by that of this one.
    """
    files = Counter(zip(images["split"].tolist(), images["class"].tolist(), strict=True))
    counts = Counter(zip(decoded["split"].tolist(), decoded["class"].tolist(), strict=True))
    parts = [folder.partition("/") for folder in folders]
    existing: set[Place] = {(split, name) for split, _, name in parts}
    splits = {split for split, _ in existing} - UNUSED_SPLITS
    classes = {name for _, name in existing}
    usable = {name for split, name in counts if split in splits}
    broken = images.loc[images["error"].notna(), ["split", "class", "error"]]
    error_of = {(split, name): error for split, name, error in broken.itertuples(index=False)}

    def why_empty(place: Place) -> str | None:
        if place not in existing:
            return None
        if not files[place]:
            return "no file"
        if not counts[place]:
            return f"none of {files[place]:,} files is readable: {error_of.get(place)}"
        return None if place[1] in usable else "no readable image of this class outside TEST_SIMPLE"

    # A class that is missing in a split has zero images there.
    places = sorted({(split, name) for split in splits for name in classes} | existing)
    table = pd.DataFrame(places, columns=["split", "class"])
    table["path"] = table["split"] + "/" + table["class"]
    table["empty"] = [why_empty(place) for place in places]
    table["classes"] = len(usable)
    sizes = pd.Series([counts[place] for place in places])
    used = ~table["split"].isin(list(UNUSED_SPLITS))
    largest = sizes.groupby(table["split"]).transform("max")
    table["imbalance"] = (largest / sizes).where(used & (sizes > 0)).round(2)
    # Of the folders of an unused split, only `empty` is judged.
    table["images"] = sizes.where(used).astype("Int64")
    return table
