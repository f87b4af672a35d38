"""Results of the controls on a split: their accuracies without any training, and the share of
photographs that train and test have in common.
"""

from pydantic import BaseModel, ConfigDict

THUMBNAIL = 12  # pixels a side
NAMES = {
    "majority_class": "always predicting the most frequent class",
    "nearest_histogram": "the nearest training image by colour histogram",
    "nearest_thumbnail": f"the nearest training image by a {THUMBNAIL} x {THUMBNAIL} thumbnail",
}
# If no larger share of the test images are copies, they change an accuracy by at most the margin
# within which the report warns.
MOST_SHARED = 0.05


class Control(BaseModel):
    """A control's accuracy (fraction) on `images` test images, given `train_images`."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    images: int
    train_images: int


class SharedPhotographs(BaseModel):
    """How many test images share a photograph with training images.

    share: fraction of the `images` of the test. not_found: test images whose photograph was not
    found, some of which may be shared, so the share is a lower bound.
    validation_share: the share for the validation images, None if there are none.
    """

    model_config = ConfigDict(frozen=True)

    share: float
    images: int
    not_found: int
    validation_share: float | None = None


class Controls(BaseModel):
    """One protocol's entry in data/controls.json; the fields are the keys of NAMES.

    shared_photographs is None where photographs are unknown.
    """

    model_config = ConfigDict(frozen=True)

    majority_class: Control
    nearest_histogram: Control
    nearest_thumbnail: Control
    shared_photographs: SharedPhotographs | None

    def accuracies(self) -> dict[str, float]:
        """Return {control: accuracy}, in the order of NAMES."""
        return {name: getattr(self, name).accuracy for name in NAMES}


def known_share(shared: SharedPhotographs | None) -> float | None:
    """Return the share of test images whose photograph is also in train.

    None if photographs are unknown, or if so many were not found that the share may exceed
    MOST_SHARED.
    """
    if shared is None:
        return None
    most = shared.share + shared.not_found / shared.images
    return None if shared.share <= MOST_SHARED < most else shared.share
