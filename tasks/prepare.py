"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import numpy as np
import pandas as pd

from tasks import settings
from tasks.errors import StudyError, entry_point
from tasks.files import new_folder, write_json


def published(inventory, split):
    """The published protocol: all splits that are not mere copies of others merged, then cut at random, stratified by class.

    Args:
        inventory: DataFrame with `split` and `class`, a row an image.
        split: settings.Split: fractions and seed.

    Returns:
        dict of 'train', 'validation', 'test' to sorted row numbers.
    """
    rows = inventory[inventory["split"] != "TEST_SIMPLE"]
    return cut(rows["class"], {"train": split.train, "validation": split.validation, "test": split.test}, split.seed)


def held_out(inventory, split):
    """The held-out protocol: TRAIN gives train and validation in the profile's ratio, TEST is the test.

    Raises:
        StudyError: the data set has no TRAIN or no TEST.
    """
    present = sorted(inventory["split"].unique())
    if not {"TRAIN", "TEST"} <= set(present):
        raise StudyError(
            f"params.yaml: protocols: held-out needs a data set with TRAIN and TEST; this one has {', '.join(present)}. "
            "Remove held-out from protocols, or give the images in train/ and test/ folders"
        )
    kept = split.train + split.validation
    train = inventory[inventory["split"] == "TRAIN"]
    parts = cut(train["class"], {"train": split.train / kept, "validation": split.validation / kept}, split.seed)
    return parts | {"test": np.flatnonzero(inventory["split"] == "TEST").tolist()}


def cut(classes, fractions, seed):
    """Cut rows at random, each class in the same fractions.

    Args:
        classes: Series of class names, its index the row numbers.
        fractions: dict of part name to fraction; they sum to one.

    Returns:
        dict of part name to sorted row numbers. No class lacks in a part.

    Raises:
        StudyError: a class has too few images to be in every part.
    """
    random = np.random.default_rng(seed)
    parts = {name: [] for name in fractions}
    for cell_class, rows in classes.groupby(classes, sort=True):
        if len(rows) < len(fractions):
            raise StudyError(f"class {cell_class} has {len(rows)} images; {len(fractions)} parts need at least one each. Add images or leave it out")
        order = random.permutation(rows.index.to_numpy())
        # Rounded ends, pushed apart so that a small class is in every part.
        ends = np.round(np.cumsum(list(fractions.values())) * len(order)).astype(int)
        ends = np.maximum(ends, np.arange(1, len(ends) + 1))
        ends = np.minimum(ends, len(order) - np.arange(len(ends) - 1, -1, -1))
        for name, start, end in zip(fractions, [0, *ends], ends, strict=False):
            parts[name].extend(order[start:end].tolist())
    return {name: sorted(rows) for name, rows in parts.items()}


PROTOCOLS = {"published": published, "held-out": held_out}


@entry_point
def main():
    study = settings.load()
    inventory = pd.read_parquet("data/inventory.parquet")
    split = study.profile.split
    with new_folder("data/splits") as folder:
        for protocol, make in PROTOCOLS.items():
            try:
                parts = make(inventory, split)
            except StudyError:
                # A protocol that nobody asked for may be impossible on this data set.
                if protocol in study.params.protocols:
                    raise
                continue
            classes = sorted(inventory["class"].unique())
            write_json(folder / f"{protocol}.json", {"protocol": protocol, "seed": split.seed, "classes": classes, **parts})
            print(f"{protocol}: " + ", ".join(f"{len(rows)} {name}" for name, rows in parts.items()) + f" images of {len(classes)} classes")


if __name__ == "__main__":
    sys.exit(main())
