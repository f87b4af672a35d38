"""What the controls say about a split: their accuracies, and the share of photographs that train
and test have in common.
"""

THUMBNAIL = 12  # pixels a side
NAMES = {
    "majority_class": "always answering the most frequent class",
    "nearest_histogram": "the nearest training image by colour histogram",
    "nearest_thumbnail": f"the nearest training image by a {THUMBNAIL} x {THUMBNAIL} thumbnail",
}


def accuracies(controls):
    """Return {control: accuracy} of one protocol's entry in data/controls.json."""
    return {control: controls[control]["accuracy"] for control in NAMES if control in controls}


# Up to this share of test images, copies can move an accuracy by no more than the margin of the
# report's warning itself.
MOST_SHARED = 0.05


def known_share(shared):
    """Return the share of test images whose photograph is in train too, of what shared_photographs
    returns.

    Returns:
        fraction, or None where nobody knows: so many photographs were not found that the share may
            be more than MOST_SHARED.
    """
    if shared is None:
        return None
    most = shared["share"] + shared["not_found"] / shared["images"]
    return None if shared["share"] <= MOST_SHARED < most else shared["share"]
