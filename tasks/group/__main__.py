"""Stage group: which photograph (patient, slide) each image came from, as given or else found.

Writes data/photographs.parquet.
"""

import sys

import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_file
from hemotune.groups import read_groups
from hemotune.paths import INVENTORY, PHOTOGRAPHS, RAW, RAW_IMAGES
from hemotune.photographs import group


@entry_point
def main(*arguments: str) -> None:
    """Read data/raw and data/inventory.parquet, write data/photographs.parquet."""
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    paths = pd.read_parquet(INVENTORY, columns=["path"])["path"].tolist()
    missing = [path for path in paths if not (RAW_IMAGES / path).is_file()]
    if missing:
        raise StudyError(
            f"{RAW_IMAGES / missing[0]} is in {INVENTORY} but does not exist: rerun"
            " `dvc repro validate`"
        )
    if given := read_groups():
        table = pd.DataFrame(
            {"path": paths, "photograph": [given[path] for path in paths], "method": "given"}
        )
        save(table)
        print(f"{len(table)} images of {table['photograph'].nunique()} groups, as given")
        return
    originals = sorted(path for path in RAW.glob("photographs/*") if path.is_file())
    table = group([RAW_IMAGES / path for path in paths], originals)
    table["path"] = paths
    save(table)
    counts = table["method"].value_counts()
    methods = ("matched", "clustered", "alone", "unknown")
    found = ", ".join(f"{counts.get(method, 0)} {method}" for method in methods)
    matched = f", {len(originals)} photographs to match" if originals else ""
    print(f"{len(table)} images of {table['photograph'].nunique()} groups{matched}: {found}")


def save(table: pd.DataFrame) -> None:
    with new_file(PHOTOGRAPHS) as temporary:
        table.to_parquet(temporary, index=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
