"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.paths import INVENTORY, PHOTOGRAPHS, SPLITS
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from hemotune.settings.trainings import Trainings, parse
from hemotune.splits import ImageSplit
from tasks.prepare.protocols import describe_validation, rows_of, validation_share


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    trainings = [parse(entry) for entry in read_params("trainings", Trainings)]
    split = read_profile("split", Split)
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
        for protocol in dict.fromkeys(training.protocol for training in trainings):
            rows = rows_of(protocol, readable, photographs, split)
            for repeat in [one.repeat for one in trainings if one.protocol == protocol]:
                found = ImageSplit(
                    protocol=protocol, repeat=repeat, seed=split.seed, classes=classes, **rows
                )
                write_json(folder / f"{found.training}.json", found.model_dump())
            counts = ", ".join(f"{len(chosen)} {part}" for part, chosen in rows.items())
            print(f"{protocol}: {counts} images of {len(classes)} classes")
            if protocol == "held-out":
                share = validation_share(split)
                print(f"{protocol}: {describe_validation(rows, readable['class'], share)}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
