"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import numpy as np
import pandas as pd

from tasks.errors import StudyError, entry_point
from tasks.files import new_folder, write_json
from tasks.settings.protocols import Protocols
from tasks.settings.reading import read_params, read_profile
from tasks.settings.split import Split


def published(inventory, photographs, split):
    """The published protocol: all splits that are not mere copies of others merged, then cut at random, stratified by class.

    Args:
        inventory: DataFrame with `split` and `class`, a row an image.
        photographs: not looked at: copies of one photograph fall on both sides, which is what this protocol is known for.
        split: settings.split.Split: fractions and seed.

    Returns:
        dict of 'train', 'validation', 'test' to sorted row numbers.
    """
    rows = inventory[inventory["split"] != "TEST_SIMPLE"]
    return cut(rows["class"], {"train": split.train, "validation": split.validation, "test": split.test}, split.seed)


def held_out(inventory, photographs, split):
    """The held-out protocol: TRAIN gives train and validation in the profile's ratio, TEST is the test.

    All copies of a photograph fall on the same side of the cut between train and validation.

    Args:
        photographs: Series of photograph names, a row an image, in the inventory's order.

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
    groups = photographs[train.index]
    # A photograph has one class; where grouping joined two, it counts for the more frequent one.
    counts = pd.DataFrame({"photograph": groups, "class": train["class"]}).value_counts().reset_index()
    counts = counts.sort_values(["count", "class"], ascending=[False, True])
    class_of = counts.drop_duplicates("photograph").set_index("photograph")["class"].sort_index()
    sides = cut(class_of, {"train": split.train / kept, "validation": split.validation / kept}, split.seed, "photographs")
    side_of = {photograph: name for name, chosen in sides.items() for photograph in chosen}
    side = groups.map(side_of)
    parts = {name: train.index[side == name].tolist() for name in sides}
    return parts | {"test": inventory.index[inventory["split"] == "TEST"].tolist()}


def cut(classes, fractions, seed, what="images"):
    """Cut rows at random, each class in the same fractions.

    Args:
        classes: Series of class names; its index names what is cut, by `what`.
        fractions: dict of part name to fraction; they sum to one.

    Returns:
        dict of part name to sorted index values. Every class is in every part.

    Raises:
        StudyError: a class has too few to be in every part.
    """
    random = np.random.default_rng(seed)
    parts = {name: [] for name in fractions}
    for cell_class, members in classes.groupby(classes, sort=True):
        if len(members) < len(fractions):
            raise StudyError(
                f"class {cell_class} has {len(members)} {what} to cut; {len(fractions)} parts ({', '.join(fractions)}) need at least one "
                "each. Add images, or leave the class out"
            )
        order = random.permutation(members.index.to_numpy())
        # Rounded ends, pushed apart so that a small class is in every part.
        ends = np.round(np.cumsum(list(fractions.values())) * len(order)).astype(int)
        ends = np.maximum(ends, np.arange(1, len(ends) + 1))
        ends = np.minimum(ends, len(order) - np.arange(len(ends) - 1, -1, -1))
        for name, start, end in zip(fractions, [0, *ends], ends, strict=False):
            parts[name].extend(order[start:end].tolist())
    return {name: sorted(chosen) for name, chosen in parts.items()}


PROTOCOLS = {"published": published, "held-out": held_out}


@entry_point
def main():
    wanted, split = read_params("protocols", Protocols), read_profile("split", Split)
    inventory = pd.read_parquet("data/inventory.parquet")
    photographs = inventory[["path"]].merge(pd.read_parquet("data/photographs.parquet"), on="path", how="left")["photograph"]
    # An image that no photograph is known of is one of its own.
    photographs = photographs.fillna(inventory["path"])
    # Where a profile makes unreadable images a warning, they are left out: their rows of images.npy are black.
    inventory = inventory[inventory["readable"]]
    with new_folder("data/splits") as folder:
        for protocol, make in PROTOCOLS.items():
            try:
                parts = make(inventory, photographs, split)
            except StudyError:
                # A protocol that nobody asked for may be impossible on this data set.
                if protocol in wanted:
                    raise
                continue
            classes = sorted(inventory["class"].unique())
            write_json(folder / f"{protocol}.json", {"protocol": protocol, "seed": split.seed, "classes": classes, **parts})
            print(f"{protocol}: " + ", ".join(f"{len(rows)} {name}" for name, rows in parts.items()) + f" images of {len(classes)} classes")


if __name__ == "__main__":
    sys.exit(main())
