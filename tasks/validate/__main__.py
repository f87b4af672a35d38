"""Stage validate: look at every image once, judge them all, and stop the study where they must not
be trained on.

Writes data/inventory.parquet (a row an image), data/images.npy (their pixels), data/images.json
(how files become pixels) and reports/validation/ (a page and result.json).
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_file, new_folder, write_json
from hemotune.settings.images import Images
from hemotune.settings.reading import read_profile
from hemotune.settings.validation import Validation
from tasks.validate.expectations import judge, load_great_expectations, rules_for, tables_of
from tasks.validate.inventory import list_images, recipe, take_inventory
from tasks.validate.page import write_page
from tasks.validate.summary import IMAGES, REPORT, common_size, told

INVENTORY = Path("data/inventory.parquet")
PIXELS = Path("data/images.npy")
RECIPE = Path("data/images.json")


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    size, rules_of = read_profile("images", Images).size, read_profile("validation", Validation)
    paths, folders = list_images(IMAGES)
    if not paths:
        raise StudyError(
            f"{IMAGES} holds no image and so no class; check dataset in the profile, then run `dvc"
            " repro download`"
        )
    with ExitStack() as outputs:
        pixels = outputs.enter_context(new_file(PIXELS))
        table = outputs.enter_context(new_file(INVENTORY))
        # The other processes decode meanwhile, and the import takes as long as they do.
        inventory = take_inventory(IMAGES, paths, size, pixels, meanwhile=load_great_expectations)
        tables = tables_of(inventory, folders, rules_of.near_duplicate_bits)
        result = judge(tables, rules_for(rules_of, common_size(tables["decoded"])))
        with new_folder(REPORT) as report:
            write_json(report / "result.json", result)
            write_page(report / "index.html", result, tables, np.load(pixels, mmap_mode="r"))
        if result["verdict"] == "failed":
            raise StudyError(told(result, "error"))
        inventory.to_parquet(table)
    write_json(RECIPE, recipe(size))
    if result["verdict"] == "warnings":
        print(f"warning: {told(result, 'warning')}")
    off = [rule["rule"] for rule in result["rules"] if rule["severity"] == "off"]
    unreadable = len(inventory) - len(tables["decoded"])
    counted = f"{len(tables['decoded']):,} images of {tables['decoded']['class'].nunique()} classes"
    left_out = f" ({unreadable:,} more left out as unreadable)" if unreadable else ""
    turned_off = f"; turned off: {', '.join(off)}" if off else ""
    print(f"{counted}{left_out}: {result['verdict']}{turned_off}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
