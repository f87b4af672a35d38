"""The page of an audit, from the template page.html: one file that needs nothing from outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hemotune.audit.audit import ODD, Audit, variety
from hemotune.audit.groups import KINDS, SMALLEST_SIDE, Pair
from hemotune.audit.text import WAYS, class_table
from hemotune.evaluation.leaks import NAMES
from hemotune.images import FileFacts, decode
from hemotune.pages.drawing import Thumbnail, templates, thumbnail
from hemotune.photographs import FEWEST, WIDTH

PAIRS = 24  # shown of each kind of copies
FILES = 20  # named of each kind of odd files
GROUP_SIZES = (1, 2, 3, 6, 11, 21, 51, 101, 1001)  # at which a bar of sizes begins
SIDE = 160  # pixels: the square that an image is decoded to for its thumbnail


@dataclass(frozen=True)
class ShownPair:
    """Two images that show the same."""

    left: Thumbnail
    right: Thumbnail
    kind: str


@dataclass(frozen=True)
class Copies:
    """One kind of copies; some of the pairs are shown."""

    title: str
    meaning: str  # why they matter
    count: int  # images
    pairs: list[ShownPair]


def write_page(path: Path, audit: Audit) -> None:
    """Write the page to `path`."""
    sizes = audit.groups["group"].value_counts()
    page = (
        templates(Path(__file__).parent)
        .get_template("page.html")
        .render(
            audit=audit,
            state="failed" if audit.leaks else "passed" if audit.given else "warnings",
            ways=WAYS,
            controls=NAMES,
            copies=copies_of(audit),
            odd=ODD,
            variety=variety(audit),
            files=FILES,
            classes=class_table(audit),
            class_bars=list(class_table(audit).drop(columns="groups").sum(axis=1).items()),
            group_bars=group_bars(sizes),
            groups=len(sizes),
            width=WIDTH,
            fewest=FEWEST,
            smallest=SMALLEST_SIDE,
        )
    )
    path.write_text(page, encoding="utf-8")


def group_bars(sizes: pd.Series) -> list[tuple[str, int]]:
    """Return pairs of a range of sizes and the number of groups of such a size."""
    ends = [first for first in GROUP_SIZES if first <= sizes.max()]
    bars = []
    for first, after in zip(ends, [*ends[1:], None], strict=True):
        last = int(sizes.max()) if after is None else after - 1
        label = f"{first:,} to {last:,} images" if last > first else f"{first:,} images"
        bars.append((label, int(sizes.between(first, last).sum())))
    return [("1 image", bars[0][1]), *bars[1:]]


def copies_of(audit: Audit) -> list[Copies]:
    """Return each kind of copies that there are."""
    kinds = [
        (
            "Test images with a copy in training",
            "A network can answer these from memory. Each is shown beside its likest training"
            " image.",
            audit.leaks,
        ),
        (
            "Validation images with a copy in training",
            "They make the validation choose networks that remember.",
            audit.validation_leaks,
        ),
        (
            "Images with a copy in another class",
            "One of the two has a wrong class, or both classes are in the picture.",
            audit.two_classes,
        ),
        (
            "Images with a copy within their split",
            "They do no harm where they stay together; cut by group, not at random.",
            audit.within,
        ),
    ]
    return [
        Copies(title, meaning, len(pairs), [shown(audit, pair) for pair in spread(pairs)])
        for title, meaning, pairs in kinds
        if pairs
    ]


def spread(pairs: Sequence[Pair]) -> list[Pair]:
    """Return PAIRS or fewer of the pairs, evenly spread over all."""
    places = np.unique(np.linspace(0, len(pairs) - 1, PAIRS).astype(int))
    return [pairs[place] for place in places]


def shown(audit: Audit, pair: Pair) -> ShownPair:
    return ShownPair(small(audit, pair.row), small(audit, pair.other), KINDS[pair.kind])


def small(audit: Audit, row: int) -> Thumbnail:
    """Return a thumbnail of an image in its own proportions, under its path in the source."""
    images = audit.inventory
    square = decode((audit.folder / images["path"][row]).read_bytes(), SIDE, FileFacts())
    width, height = int(images["width"][row]), int(images["height"][row])
    longest = max(width, height)
    size = (max(round(SIDE * width / longest), 1), max(round(SIDE * height / longest), 1))
    return thumbnail(np.asarray(square.resize(size)), images["name"][row])
