"""Stage prepare: which image is trained on, validated on and tested on, in each protocol."""

import sys

import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.paths import INVENTORY, PHOTOGRAPHS, SPLITS
from hemotune.protocols import has_own_test, has_own_validation, rows_by_protocol
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from hemotune.settings.trainings import Trainings, parse, require_folds, require_repeats
from hemotune.splits import ImageSplit, suffix_of_cut
from tasks.prepare.shares import describe


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    entries, split = read_params("trainings", Trainings), read_profile("split", Split)
    require_folds(entries, split.folds)
    require_repeats(entries, split.repeats)
    trainings = [parse(entry) for entry in entries]
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
    rows = {
        cut: rows_by_protocol(
            [training for training in trainings if split.cut(training.repeat) == cut],
            readable,
            photographs,
            split.model_copy(update={"seed": split.seed_of(cut)}),
        )
        for cut in range(1, split.repeats + 1)
    }
    own_test, own_validation = has_own_test(readable), has_own_validation(readable)
    made: dict[str, ImageSplit] = {}
    with new_folder(SPLITS) as folder:
        for protocol, fold, repeat in trainings:
            cut = split.cut(repeat)
            found = ImageSplit(
                protocol=protocol,
                repeat=repeat,
                cut=cut,
                folds=split.folds if fold else None,
                own_test=own_test and protocol == "held-out",
                own_validation=own_validation and protocol == "held-out",
                seed=split.seed_of(cut),
                classes=classes,
                **rows[cut][protocol],
            )
            write_json(folder / f"{found.training}.json", found.model_dump())
            made.setdefault(protocol + suffix_of_cut(cut), found)
    for protocol, found in made.items():
        for line in describe(found, readable["class"], photographs, split):
            print(f"{protocol}: {line}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
