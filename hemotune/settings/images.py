"""Section `images` of a profile."""

from typing import Annotated, Literal

from pydantic import Field

from hemotune.settings.reading import Section

# How an image becomes a square: its proportions are changed, it is laid on white, or it is cut.
Fit = Literal["squeeze", "pad", "crop"]


class Images(Section):
    """Every image is decoded once to a square of `size` x `size` pixels, RGB."""

    size: Annotated[int, Field(ge=32, le=1024)]
    # Proportions changed, padded with white, or cropped
    fit: Fit = "squeeze"
