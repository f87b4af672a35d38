"""validate + prepare against one bare decode of the same images with as many processes: the goal is at most 1.3.

    python -m benchmarks.decode                    on 12,500 drawn images
    python -m benchmarks.decode data/raw/images    on the images of a study

Imports are left out on both sides; they cost the same for ten images and for a million.
"""

import concurrent.futures
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from PIL import Image

from benchmarks import tell
from tasks import cells, prepare, settings
from tasks.expectations import judge, load_great_expectations, rules_for, tables_of
from tasks.hardware import cores
from tasks.inventory import list_images, take_inventory
from tasks.validate import common_size

SIZE = 64  # px


def decode(path):
    """Fully decode one image, and nothing else."""
    with Image.open(path) as image:
        image.load()


def bare(folder, paths):
    """Seconds to decode all images with all processors."""
    started = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(cores()) as pool:
        for _ in pool.map(decode, [str(folder / path) for path in paths], chunksize=64):
            pass
    return time.monotonic() - started


def ours(folder, paths, folders):
    """Seconds for the inventory, the pixels, the judging and the splits of both protocols."""
    rules = settings.read_section(Path("profiles/sample.yaml"), settings.Profile).validation
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        inventory = take_inventory(folder, paths, SIZE, Path(scratch, "images.npy"))
        tables = tables_of(inventory, folders, rules.near_duplicate_bits)
        judge(tables, rules_for(rules, common_size(tables["decoded"])))
        photographs = pd.Series(inventory["path"])
        for make in prepare.PROTOCOLS.values():
            make(inventory, photographs, settings.Split())
    return time.monotonic() - started


def main(folder=None):
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            cells.write_sample(scratch, photographs=125, copies=25, width=320, height=240, seed=1)
            folder = Path(scratch, "images")
        folder = Path(folder)
        paths, folders = list_images(folder)
        load_great_expectations()
        bare(folder, paths[:64])
        # In turns, so that a change of the machine's speed meets both.
        rounds = [(bare(folder, paths), ours(folder, paths, folders)) for _ in range(3)]
    ratio = sorted(mine / base for base, mine in rounds)[1]
    base, mine = (sorted(column)[1] for column in zip(*rounds, strict=True))
    tell(f"validate + prepare / bare decode, {len(paths)} images", ratio, 1.3, f"{mine:.1f} s / {base:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
