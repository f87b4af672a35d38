"""Stage controls: what each split's test images score without any training.

Writes data/controls.json. A split in which looking up the nearest training image does as well as a
trained network does not test the network.
"""

import sys

import numpy as np
import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import write_json
from hemotune.paths import CONTROLS, INVENTORY, PHOTOGRAPHS, PIXELS, SPLITS
from hemotune.splits import read_split


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    # Loads scikit-learn, which takes seconds: not for help or wrong arguments.
    from hemotune.controls import controls_of

    read = [read_split(path) for path in sorted(SPLITS.glob("*.json"))]
    # Repeats of a protocol have the same images.
    splits = list({split.protocol: split for split in read}.values())
    if not splits:
        raise StudyError(f"{SPLITS} has no split: run `dvc repro prepare`")
    inventory = pd.read_parquet(INVENTORY, columns=["path", "class"])
    images = np.load(PIXELS, mmap_mode="r")
    photographs = pd.read_parquet(PHOTOGRAPHS) if PHOTOGRAPHS.exists() else None
    result = controls_of(splits, inventory, images, photographs)
    for protocol, found in result.items():
        accuracies = ", ".join(f"{name} {value:.2%}" for name, value in found.accuracies().items())
        shared = "groups unknown"
        if found.shared_photographs is not None:
            share = found.shared_photographs.share
            shared = f"{share:.1%} of test images are of groups that are in train too"
        print(f"{protocol}: {accuracies}; {shared}", flush=True)
    dumped = {protocol: found.model_dump() for protocol, found in result.items()}
    write_json(CONTROLS, dumped)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
