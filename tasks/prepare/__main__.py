"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.settings.protocols import Protocols
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from tasks.prepare.protocols import PROTOCOLS, counted, parts_of, validation_share, what_came_out


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    wanted, split = read_params("protocols", Protocols), read_profile("split", Split)
    inventory = pd.read_parquet("data/inventory.parquet")
    photographs = inventory[["path"]].merge(
        pd.read_parquet("data/photographs.parquet"), on="path", how="left"
    )["photograph"]
    # An image that no photograph is known of is one of its own.
    photographs = photographs.fillna(inventory["path"])
    # Where a profile makes unreadable images a warning, they are left out: their rows of images.npy
    # are black.
    readable = inventory[inventory["readable"]]
    if readable.empty:
        raise StudyError(
            "data/inventory.parquet: no image is readable; correct the profile's dataset"
        )
    if unreadable := len(inventory) - len(readable):
        print(f"left out as unreadable: {unreadable:,} images")
    with new_folder("data/splits") as folder:
        for protocol in PROTOCOLS:
            try:
                parts = parts_of(protocol, readable, photographs, split)
            except StudyError:
                # A protocol that nobody asked for may be impossible on this data set.
                if protocol in wanted:
                    raise
                continue
            classes = sorted(readable["class"].unique())
            write_json(
                folder / f"{protocol}.json",
                {"protocol": protocol, "seed": split.seed, "classes": classes, **parts},
            )
            print(f"{protocol}: {counted(parts)} images of {len(classes)} classes")
            if protocol == "held-out":
                came_out = what_came_out(parts, readable["class"], validation_share(split))
                print(f"{protocol}: {came_out}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
