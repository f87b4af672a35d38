"""The images of a study as the folders from which the notebook's way reads them.

    python -m benchmarks.notebook_images FOLDER

Links the images of this checkout's split random-1 as FOLDER/PART/CLASS/IMAGE; PART is train,
validation or test.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd


def link_images(folder: Path) -> None:
    """Make the folders in `folder`, which must not exist."""
    inventory = pd.read_parquet("data/inventory.parquet", columns=["path", "class"])
    paths, labels = inventory["path"].tolist(), inventory["class"].tolist()
    split = json.loads(Path("data/splits/random-1.json").read_text())
    for part in ("train", "validation", "test"):
        for label in set(labels):
            (folder / part / label).mkdir(parents=True)
        for row in split[part]:
            link = folder / part / labels[row] / paths[row].replace("/", "_")
            link.symlink_to(Path("data/raw/images", paths[row]).resolve())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.notebook_images", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    link_images(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
