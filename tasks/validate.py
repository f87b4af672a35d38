"""Stage validate: look at every image once, judge them all, and stop the study where they must not be trained on.

Writes data/inventory.parquet (a row an image), data/images.npy (their pixels), data/images.json (how files become pixels) and
reports/validation/ (a page and result.json).
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import StudyError, entry_point
from tasks.expectations import judge, load_great_expectations, rules_for, tables_of
from tasks.files import new_file, new_folder, write_json
from tasks.inventory import list_images, recipe, take_inventory
from tasks.settings.images import Images
from tasks.settings.reading import read_profile
from tasks.settings.validation import Validation
from tasks.validation_page import write_page

IMAGES = Path("data/raw/images")
INVENTORY = Path("data/inventory.parquet")
PIXELS = Path("data/images.npy")
RECIPE = Path("data/images.json")
REPORT = Path("reports/validation")


@entry_point
def main():
    size, rules_of = read_profile("images", Images).size, read_profile("validation", Validation)
    paths, folders = list_images(IMAGES)
    if not paths:
        raise StudyError(f"{IMAGES} holds no image and so no class; check dataset in the profile, then run `dvc repro download`")
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


def common_size(decoded):
    """Return 'WIDTHxHEIGHT' of most images; the smaller name where two are equally frequent."""
    return decoded["size"].value_counts().sort_index().idxmax() if len(decoded) else "any"


def told(result, severity):
    """Return the broken rules of a severity for the terminal: each in one line, with up to five offenders and the fix."""
    broken = [rule for rule in result["rules"] if not rule["passed"] and rule["severity"] == severity]
    lines = [f"{IMAGES}: {len(broken)} of {len(result['rules'])} rules are broken; the pictures are in {REPORT / 'index.html'}"]
    for rule in broken:
        needed = f"Expected: {rule['expected']}. Fix: {rule['fix']}"
        lines.append(f"  {rule['rule']}: {told_rule(rule)}. {needed}")
    return "\n".join(lines)


def told_rule(rule: dict[str, Any]) -> str:
    """Return what one broken rule found, with up to five offenders."""
    if not rule["count"]:
        return rule["found"]
    pairs = list(zip(rule["offenders"], rule["details"], strict=True))[:5]
    shown = ", ".join(f"{path} ({detail})" if detail else path for path, detail in pairs)
    more = f" and {rule['count'] - len(pairs):,} more" if rule["count"] > len(pairs) else ""
    return f"{rule['count']:,} found: {shown}{more}"


if __name__ == "__main__":
    sys.exit(main())
