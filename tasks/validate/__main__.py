"""Check every image, and stop the study if the images break a rule of severity `error`.

Writes data/inventory.parquet (a row for each image), data/images.npy (their pixels),
data/images.json (how files become pixels) and reports/validation/ (a page and result.json).
"""

import sys
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_file, new_folder, write_json
from hemotune.groups import read_groups
from hemotune.images import recipe
from hemotune.inventory import list_images, take_inventory
from hemotune.paths import INVENTORY, PIXELS, RAW_IMAGES, RECIPE, VALIDATION
from hemotune.settings.images import Images
from hemotune.settings.reading import read_profile
from hemotune.settings.validation import Validation
from tasks.validate.expectations import Result, judge, load_great_expectations
from tasks.validate.page import write_page
from tasks.validate.rules import rules_for
from tasks.validate.summary import describe_broken_rules, rules_table
from tasks.validate.tables import Tables, common_size, tables_of


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    images: Images = read_profile("images", Images)
    settings: Validation = read_profile("validation", Validation)
    paths, folders = list_images(RAW_IMAGES)
    if not paths:
        raise StudyError(
            f"{RAW_IMAGES} contains no images; check dataset in the profile, then run `dvc repro "
            "download`"
        )
    with ExitStack() as outputs:
        pixels = outputs.enter_context(new_file(PIXELS))
        table = outputs.enter_context(new_file(INVENTORY))
        # The import takes about as long as the decoding in other processes.
        inventory = take_inventory(
            RAW_IMAGES,
            paths,
            images.size,
            pixels,
            meanwhile=load_great_expectations,
            fit=images.fit,
        )
        tables = tables_of(inventory, folders, settings.near_duplicate_bits, read_groups())
        result = judge(tables, rules_for(settings, common_size(tables.decoded)))
        with new_folder(VALIDATION) as report:
            write_json(report / "result.json", asdict(result))
            rules_table(result).to_csv(report / "rules.csv", index=False, lineterminator="\n")
            write_page(report / "index.html", result, tables, np.load(pixels, mmap_mode="r"))
        if result.verdict == "failed":
            raise StudyError(describe_broken_rules(result, "error"))
        inventory.to_parquet(table)
    write_json(RECIPE, recipe(images.size, images.fit))
    if result.verdict == "warnings":
        print(f"warning: {describe_broken_rules(result, 'warning')}")
    print(summarize(result, tables))


def summarize(result: Result, tables: Tables) -> str:
    """Return the number of images and the verdict in one line."""
    decoded = tables.decoded
    unreadable = len(tables.images) - len(decoded)
    off = [rule.rule for rule in result.rules if rule.severity == "off"]
    counted = f"{len(decoded):,} images of {decoded['class'].nunique()} classes"
    left_out = f" ({unreadable:,} more left out as unreadable)" if unreadable else ""
    turned_off = f"; turned off: {', '.join(off)}" if off else ""
    return f"{counted}{left_out}: {result.verdict}{turned_off}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
