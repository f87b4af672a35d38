"""validate + prepare against one bare decode of the same images with as many processes: the goal is
at most 1.3.

    python -m benchmarks.decode                    on 12,500 drawn images
    python -m benchmarks.decode data/raw/images    on the images of a study

Imports are left out on both sides; they cost the same for ten images and for a million.

How fast libjpeg decodes hangs on where the stack and the heap happen to lie in a process, by up to
a half, and the size of the environment decides that (Mytkowicz et al., Producing wrong data without
doing anything obviously wrong, 2009). So each round runs in a process of its own with another size
of environment, and the sums of all rounds are compared.
"""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from benchmarks import print_row
from hemotune.cells import dataset as cells
from hemotune.inventory import list_images, take_inventory
from hemotune.progress import cores
from hemotune.protocols import rows_by_protocol
from hemotune.settings.reading import read
from hemotune.settings.split import Split
from hemotune.settings.trainings import parse
from hemotune.settings.validation import Validation
from tasks.validate.expectations import judge, load_great_expectations
from tasks.validate.rules import rules_for
from tasks.validate.tables import common_size, tables_of

SIZE = 64  # px
# Bytes more in the environment: one page, after which the stack lies as at first
PADDINGS = range(0, 4096, 512)


def decode(path: str) -> None:
    """Fully decode one image, and nothing else."""
    with Image.open(path) as image:
        image.load()


def bare(folder: Path, paths: Sequence[str]) -> float:
    """Seconds to decode all images with all cores."""
    started = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, [str(folder / path) for path in paths], chunksize=64):
            pass
    return time.monotonic() - started


def ours(folder: Path, paths: list[str], folders: list[str]) -> float:
    """Seconds for the inventory, the pixels, the judging and the splits of both protocols."""
    rules = read(Path("profiles/sample.yaml"), "validation", Validation)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        inventory = take_inventory(folder, paths, SIZE, Path(scratch, "images.npy"))
        tables = tables_of(inventory, folders, rules.near_duplicate_bits)
        judge(tables, rules_for(rules, common_size(tables.decoded)))
        photographs = pd.Series(inventory["path"])
        trainings = [parse("random-1"), parse("held-out-1")]
        rows_by_protocol(trainings, inventory, photographs, Split())
    return time.monotonic() - started


def one_round(folder: Path) -> None:
    """Print the seconds of both ways, once; a few images go before, so that everything is
    imported.
    """
    paths, folders = list_images(folder)
    load_great_expectations()
    few = paths[::100]
    bare(folder, few)
    ours(folder, few, folders)
    print(bare(folder, paths), ours(folder, paths, folders))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument(
        "folder", nargs="?", type=Path, help="images in SPLIT/CLASS folders; left out: drawn ones"
    )
    parser.add_argument(
        "--one-round", action="store_true", help="in this process, and print seconds"
    )
    arguments = parser.parse_args()
    if arguments.one_round:
        return one_round(arguments.folder)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder
        if folder is None:
            cells.write_sample(
                Path(scratch), photographs=125, copies=25, width=320, height=240, seed=1
            )
            folder = Path(scratch, "images")
        count = len(list_images(folder)[0])
        rounds = []
        for padding in PADDINGS:
            command = [sys.executable, "-m", "benchmarks.decode", "--one-round", str(folder)]
            environment = os.environ | {"PADDING": "x" * padding}
            output = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            rounds.append([float(seconds) for seconds in output.splitlines()[-1].split()])
            print("bare {:.2f} s, validate + prepare {:.2f} s".format(*rounds[-1]), flush=True)
    base, mine = (sum(column) / len(rounds) for column in zip(*rounds, strict=True))
    print_row(
        f"validate + prepare / bare decode, {count} images",
        mine / base,
        1.3,
        f"{mine:.1f} s / {base:.1f} s, mean of {len(rounds)}",
    )


if __name__ == "__main__":
    main()
