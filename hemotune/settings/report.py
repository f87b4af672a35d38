"""Section `report` of a profile."""

from typing import Annotated

from pydantic import Field

from hemotune.settings.reading import Section

Points = Annotated[float, Field(gt=0, le=100)]  # percentage points of accuracy


class Unsound(Section):
    """The bounds beyond which a training is unsound; only validation and training figures count."""

    # Share of a layer's units that are zero on every training image
    dead_units: Annotated[float, Field(gt=0, le=1)] = 0.5
    # Points by which validation changes, either way, with other averages of BatchNormalization
    averages: Points = 1.0
    # Standard errors of the delivered epoch below the median of the last five, on validation
    below_median: Annotated[float, Field(gt=0, le=100)] = 2.0
    # Points of accuracy on training images, without dropout, below what fit reported
    below_fit: Points = 2.0


class Report(Section):
    """What the report calls a difference that matters, and an unsound training."""

    difference: Points = 2.0
    unsound: Unsound = Unsound()
