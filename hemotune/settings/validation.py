"""Section `validation` of a profile."""

from typing import Annotated, Literal

from pydantic import Field

from hemotune.settings.reading import Section

Severity = Literal["error", "warning", "off"]
# Colour modes that files come in and that hemotune/images.py turns into RGB.
Mode = Literal["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"]


class Validation(Section):
    """Severity of each rule, and the bounds it judges by."""

    unreadable: Severity = "error"
    mode: Severity = "error"
    size: Severity = "error"  # images of another size than most have
    duplicate_across: Severity = "error"  # the same bytes in two splits or two classes
    duplicate_within: Severity = "warning"
    near_duplicate_across: Severity = "warning"
    group_across: Severity = "error"  # a group that is given, in two given splits
    small_class: Severity = "error"
    imbalance: Severity = "warning"
    allowed_modes: Annotated[list[Mode], Field(min_length=1)] = ["RGB"]
    smallest_class: Annotated[int, Field(ge=5, le=1_000_000)] = 10  # images per class in a split
    # Largest class / smallest class
    largest_imbalance: Annotated[float, Field(gt=1, le=1_000_000)] = 3.0
    # Of the perceptual hash's 256 that may differ
    near_duplicate_bits: Annotated[int, Field(ge=0, le=12)] = 10
