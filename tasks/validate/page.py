"""The validation page, reports/validation/index.html, from the template page.html."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hemotune.pages.drawing import Thumbnail, histogram, templates, thumbnail
from tasks.validate.expectations import Result
from tasks.validate.tables import Tables

IMAGES = "../../data/raw/images/"  # as seen from reports/validation/
THUMBNAILS = 12  # per class; fewer if there are many classes
PAIRS = 8  # shown of each kind of duplicates
SIZES = 8  # the most frequent ones, each with its own bar
TOOLS = ("great_expectations", "pillow", "numpy", "scipy", "pandas", "pyarrow")

VERDICTS = {
    "passed": ("✓", "Passed", "No rule is broken."),
    "warnings": (
        "!",
        "Passed with warnings",
        "Nothing stops the study; read the warnings before you trust its figures.",
    ),
    "failed": ("✕", "Failed", "The study stops here. Fix the errors below, then run it again."),
}
# In the order of the table of rules
STATES = {"failed": "✕ error", "warnings": "! warning", "passed": "✓ passed", "off": "– off"}
DUPLICATES = {
    "same_bytes_across": "The same bytes in two splits or classes",
    "same_bytes_within": "The same bytes within a split and class",
    "near_duplicate_across": "Nearly the same image in two splits",
    "near_duplicate_within": "Nearly the same image within a split",
}

Pixels = npt.NDArray[np.uint8]  # (N, size, size, 3), row i for row i of the table `images`


@dataclass(frozen=True)
class Sheet:
    """Thumbnails of a class, spread over its readable images."""

    name: str
    count: int
    thumbnails: list[Thumbnail]


@dataclass(frozen=True)
class Duplicates:
    """One kind of duplicates."""

    title: str
    count: int  # number of images
    pairs: list[tuple[Thumbnail, Thumbnail]]
    more: int  # number of pairs that are not shown


def write_page(path: Path, result: Result, tables: Tables, pixels: Pixels) -> None:
    """Write the page to `path`.

    Args:
        pixels: uint8 (N, size, size, 3), row i for row i of tables.images.
    """
    environment = templates(Path(__file__).parent)
    sign, title, meaning = VERDICTS[result.verdict]
    images, decoded = tables.images, tables.decoded
    page = environment.get_template("page.html").render(
        images=IMAGES,
        result=result,
        states=STATES,
        sign=sign,
        title=title,
        meaning=meaning,
        images_count=len(images),
        classes=images["class"].nunique(),
        splits=sorted(images["split"].unique()),
        unreadable=len(images) - len(decoded),
        broken=[rule.rule for rule in result.rules if not rule.passed],
        off=[rule.rule for rule in result.rules if rule.severity == "off"],
        class_counts=class_counts(tables),
        size_counts=size_counts(decoded),
        brightness=histogram(decoded["brightness"], (0, 255)),
        file_sizes=histogram(images["bytes"].dropna() / 1000),
        sheets=sheets(decoded, pixels),
        duplicates=duplicates(decoded, pixels),
        python=platform.python_version(),
        tools={tool: version(tool) for tool in TOOLS},
        zip=zip,
    )
    path.write_text(page, encoding="utf-8")


def class_counts(tables: Tables) -> list[tuple[str, int]]:
    """Return pairs of 'SPLIT CLASS' and the number of its readable images; of 'CLASS' where there
    is one split alone.
    """
    counts = tables.decoded.groupby(["split", "class"]).size().to_dict()
    places = zip(tables.folders["split"], tables.folders["class"], strict=True)
    alone = tables.folders["split"].nunique() == 1
    return [
        (name if alone else f"{split} {name}", counts.get((split, name), 0))
        for split, name in places
    ]


def size_counts(decoded: pd.DataFrame) -> list[tuple[str, int]]:
    """Return pairs of WIDTHxHEIGHT and the number of images, the most frequent first; sizes beyond
    the first SIZES are combined.
    """
    counts = decoded.groupby("size").size().sort_values(ascending=False, kind="stable")
    pairs = [(str(size), int(count)) for size, count in counts.items()]
    if rest := pairs[SIZES:]:
        return [*pairs[:SIZES], (f"{len(rest)} other sizes", sum(count for _, count in rest))]
    return pairs


def sheets(decoded: pd.DataFrame, pixels: Pixels) -> Iterator[Sheet]:
    """Yield a sheet of thumbnails for each class."""
    classes = decoded["class"].nunique()
    each = max(4, min(THUMBNAILS, 240 // max(classes, 1)))
    for name, rows in decoded.groupby("class"):
        spread = np.unique(np.linspace(0, len(rows) - 1, each).astype(int))
        shown = zip(rows.index[spread].tolist(), rows["path"].iloc[spread], strict=True)
        yield Sheet(str(name), len(rows), [thumbnail(pixels[row], path) for row, path in shown])


def duplicates(decoded: pd.DataFrame, pixels: Pixels) -> Iterator[Duplicates]:
    """Yield each kind of duplicates with some pairs."""
    row_of = dict(zip(decoded["path"], decoded.index, strict=True))

    def small(path: str) -> Thumbnail:
        return thumbnail(pixels[row_of[path]], path)

    for column, title in DUPLICATES.items():
        found = decoded[decoded[column].notna()]
        pairs = sorted(
            {(min(pair), max(pair)) for pair in zip(found["path"], found[column], strict=True)}
        )
        shown = [(small(left), small(right)) for left, right in pairs[:PAIRS]]
        yield Duplicates(title, len(found), shown, len(pairs) - len(shown))
