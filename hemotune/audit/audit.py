"""All that an audit finds, and its verdict: which split measures what."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hemotune.audit.groups import Pair, Pixels, group_images, pairs_across
from hemotune.audit.measures import LEARNT_FROM, Measure, measures_of
from hemotune.local_source import Source, inventory_of, refuse_one_class, refuse_unreadable

SIZE = 64  # pixels, side of the images that the controls and the hashes compare
# Findings about single files; a file may have several.
ODD = {
    "unreadable": "cannot be read",
    "mode": "another colour mode than most",
    "size": "another size than most",
    "shape": "another shape than most (width / height differs by more than a fifth)",
    "tiny": "a side of less than 32 pixels",
    "flat": "hardly any contrast",
}
TINY, FLAT = 32, 2.0  # pixels; standard deviation of the grey levels
LEAST_SHAPE = 1.2  # width / height, divided by the median
MOST_ODD = 0.1  # of the images: where more differ from the most frequent size, sizes just vary


@dataclass(frozen=True)
class Odd:
    """One kind of odd files: (path below the source's folder, what is odd) of each."""

    kind: str  # a key of ODD
    files: list[tuple[str, str]]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        inventory: all images, with `name`, the path below `top`; row i is image i of `pixels`.
        groups: of `groups.group_images`: a row for each readable image.
        leaks: test images with a copy in training or validation.
        validation_leaks: validation images with a copy in training.
        within: training images, or all where there is no split, with a copy among them.
        two_classes: images with a copy in another class.
    """

    path: Path  # of the source, as the user wrote it
    folder: Path  # that the paths of the inventory are relative to
    top: str  # folder in the source that holds all images; "" for the source itself
    inventory: pd.DataFrame
    pixels: Pixels
    ignored: Counter[str]
    odd: list[Odd]
    groups: pd.DataFrame
    leaks: list[Pair]
    validation_leaks: list[Pair]
    within: list[Pair]
    two_classes: list[Pair]
    measures: list[Measure]

    @property
    def readable(self) -> pd.DataFrame:
        return self.inventory.loc[self.groups.index]

    @property
    def given(self) -> Measure | None:
        """The measure of the split that the source has, None if it has none."""
        return next((found for found in self.measures if found.way == "given"), None)

    @property
    def blind(self) -> float:
        """The share of readable images that cannot be compared by what they show."""
        return float((~self.groups["comparable"]).mean())

    @property
    def verdict(self) -> str:
        """Which split measures what, in one line."""
        if self.given:
            return given_verdict(self.given, len(self.leaks))
        random, by_group = self.measures
        if not random.controls:
            return f"NO TEST: there is no given test set, and a random one {random.why_not}"
        if random.shared:
            advice = "cut by group to measure new images"
            if not by_group.controls:
                advice = f"a split by group {by_group.why_not}"
            return (
                "NO TEST: there is no given test set, and at random "
                f"{random.shared:.0%} of the test images would have a copy in training; {advice}"
            )
        return f"NO TEST: there is no given test set; a random one measures {random.meaning}"


def given_verdict(given: Measure, leaks: int) -> str:
    """Return what the given split measures, in one line."""
    if not leaks:
        return (
            f"NO LEAK FOUND: none of {given.test:,} test images has a copy in training; the given"
            f" split measures {given.meaning}"
        )
    verb = "has" if leaks == 1 else "have"
    return (
        f"LEAK: {leaks:,} of {given.test:,} test images ({given.shared:.1%}) {verb} a copy in"
        f" training; the given split measures {given.meaning}"
    )


def examine(path: Path, source: Source, pixels_path: Path) -> Audit:
    """Return what is found in a source.

    Args:
        path: of the source, as the user wrote it.
        pixels_path: the .npy file to write the images' pixels to.

    Raises:
        StudyError: nothing is readable, or there is one class only.
    """
    inventory = inventory_of(source, SIZE, pixels_path)
    top = os.path.commonpath([os.path.dirname(name) for name in inventory["name"]])
    inventory["name"] = [os.path.relpath(name, top or ".") for name in inventory["name"]]
    refuse_unreadable(path, inventory)
    readable = inventory[inventory["readable"]]
    refuse_one_class(path, readable["class"])
    pixels = np.load(pixels_path, mmap_mode="r")
    groups = group_images(readable, pixels, source.images, source.photographs, source.groups)
    split, learnt = readable["split"], readable["split"].isin(LEARNT_FROM)
    return Audit(
        path=path,
        folder=source.images,
        top=top,
        inventory=inventory,
        pixels=pixels,
        ignored=source.ignored,
        odd=odd_files(inventory, pixels),
        groups=groups,
        leaks=pairs_across(readable, groups, split == "TEST", learnt),
        validation_leaks=pairs_across(readable, groups, split == "VALIDATION", split == "TRAIN"),
        within=[
            pair
            for name in sorted(split.unique())
            for pair in pairs_across(readable, groups, split == name, split == name)
        ],
        two_classes=pairs_of_two_classes(readable, groups),
        measures=measures_of(inventory, pixels, groups),
    )


def pairs_of_two_classes(readable: pd.DataFrame, groups: pd.DataFrame) -> list[Pair]:
    """Return for each image that has a copy in a class after its own, by name, one such pair."""
    numbers = groups["group"]
    mixed = numbers[readable["class"].groupby(numbers).transform("nunique") > 1]
    some, those = readable.loc[mixed.index], groups.loc[mixed.index]
    classes = some["class"]
    return [
        pair
        for name in sorted(classes.unique())
        for pair in pairs_across(some, those, classes == name, classes > name)
    ]


def odd_files(inventory: pd.DataFrame, pixels: Pixels) -> list[Odd]:
    """Return the odd files of each kind of ODD that there are."""
    readable = inventory[inventory["readable"]]
    width, height, sizes = sizes_of(readable)
    shape = (width / height).map(math.log)
    contrast = pd.Series(
        [float(pixels[row].mean(axis=2).std()) for row in readable.index], readable.index
    )
    broken = inventory[~inventory["readable"]]
    found = {
        "unreadable": broken["error"],
        "mode": minority(readable["mode"]),
        "size": minority(sizes),
        "shape": few(sizes.loc[(shape - shape.median()).abs() > math.log(LEAST_SHAPE)], len(sizes)),
        "tiny": sizes[np.minimum(width, height) < TINY],
        "flat": contrast[contrast < FLAT].map("grey levels spread by {:.1f}".format),
    }
    return [
        Odd(kind, list(zip(inventory.loc[what.index, "name"], what, strict=True)))
        for kind, what in found.items()
        if len(what)
    ]


def sizes_of(readable: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return width, height and, as text, the size of each image."""
    width, height = readable["width"].astype(int), readable["height"].astype(int)
    return width, height, width.astype(str) + " x " + height.astype(str)


def minority(values: pd.Series) -> pd.Series:
    """Return the values that are not the most frequent one, if they are few."""
    others = values[values != values.value_counts().sort_index().idxmax()]
    return few(others, len(values))


def few(odd: pd.Series, images: int) -> pd.Series:
    """Return `odd`, or nothing where it is too large a part of all images to be odd."""
    return odd if len(odd) <= MOST_ODD * images else odd[:0]


def variety(audit: Audit) -> dict[str, str]:
    """Return what the readable images are like: {"sizes": ..., "modes": ...}."""
    readable = audit.readable
    width, height, sizes = sizes_of(readable)
    counts, area = sizes.value_counts(), (width * height).to_numpy()
    ends = f"{sizes.iloc[area.argmin()]} to {sizes.iloc[area.argmax()]}"
    common = f"{counts.index[0]} ({counts.iloc[0]:,})"
    modes = readable["mode"].value_counts()
    return {
        "sizes": f"{len(counts):,} from {ends}, most often {common}" if len(counts) > 1 else common,
        "modes": ", ".join(f"{mode} {count:,}" for mode, count in modes.items()),
    }
