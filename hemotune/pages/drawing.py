"""Templates, histograms and small pictures for pages that need nothing from outside."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

THUMBNAIL_SIDE = 96  # pixels
BINS = 32  # of a histogram


@dataclass(frozen=True)
class Histogram:
    """The distribution of some values."""

    counts: list[int]  # of each of BINS bins between low and high
    low: float
    high: float
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image."""

    path: str  # of the image
    source: str  # the JPEG as a data URL


def templates(folder: Path) -> jinja2.Environment:
    """Return the templates in `folder`, which may use those beside this module.

    All values are escaped, and one that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment


def histogram(values: pd.Series, bounds: tuple[float, float] | None = None) -> Histogram | None:
    """Return the distribution of `values` between `bounds`, by default their own; None if there
    are none.
    """
    numbers = values.to_numpy(float)
    if not len(numbers):
        return None
    minimum, maximum = float(numbers.min()), float(numbers.max())
    low, high = bounds or (minimum, maximum)
    high = high if high > low else low + 1
    counts, _ = np.histogram(numbers, bins=BINS, range=(low, high))
    return Histogram(
        counts=counts.tolist(),
        low=low,
        high=high,
        median=float(np.median(numbers)),
        minimum=minimum,
        maximum=maximum,
    )


def thumbnail(pixels: npt.NDArray[np.uint8], path: str) -> Thumbnail:
    """Return a thumbnail of uint8 (height, width, 3)."""
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    source = base64.b64encode(data.getvalue()).decode()
    return Thumbnail(path, f"data:image/jpeg;base64,{source}")
