"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.paths import INVENTORY, PHOTOGRAPHS, SPLITS
from hemotune.settings.protocols import Protocols
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from hemotune.splits import ImageSplit
from tasks.prepare.protocols import PROTOCOLS, describe_validation, rows_of, validation_share


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    wanted, split = read_params("protocols", Protocols), read_profile("split", Split)
    inventory = pd.read_parquet(INVENTORY)
    photographs = inventory[["path"]].merge(pd.read_parquet(PHOTOGRAPHS), on="path", how="left")[
        "photograph"
    ]
    # An image without a known photograph is its own photograph.
    photographs = photographs.fillna(inventory["path"])
    # Where a profile makes unreadable images a warning, they are left out: their rows of images.npy
    # are black.
    readable = inventory[inventory["readable"]]
    if readable.empty:
        raise StudyError(f"{INVENTORY}: no image is readable; correct the profile's dataset")
    if unreadable := len(inventory) - len(readable):
        print(f"left out as unreadable: {unreadable:,} images")
    classes = sorted(readable["class"].unique())
    with new_folder(SPLITS) as folder:
        for protocol in PROTOCOLS:
            try:
                rows = rows_of(protocol, readable, photographs, split)
            except StudyError:
                # A protocol that params.yaml does not list may be impossible on this data set.
                if protocol in wanted:
                    raise
                continue
            found = ImageSplit(protocol=protocol, seed=split.seed, classes=classes, **rows)
            write_json(folder / f"{protocol}.json", found.model_dump())
            counts = ", ".join(f"{len(chosen)} {part}" for part, chosen in rows.items())
            print(f"{protocol}: {counts} images of {len(classes)} classes")
            if protocol == "held-out":
                share = validation_share(split)
                print(f"{protocol}: {describe_validation(rows, readable['class'], share)}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
