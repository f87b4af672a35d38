"""data/raw/groups.csv: the group of each image (its patient, slide or the like), where a profile
gives them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from hemotune.paths import GIVEN_GROUPS, RAW

COLUMNS = ["path", "group"]


def write_groups(path: Path, groups: Mapping[str, str]) -> None:
    """Write the group of each image, by its path in data/raw/images, as a table."""
    pd.DataFrame(sorted(groups.items()), columns=COLUMNS).to_csv(path, index=False)


def read_groups(folder: Path = RAW) -> dict[str, str]:
    """Return the group of each image by its path in `folder`/images; {} if no groups are given."""
    path = folder / GIVEN_GROUPS.name
    if not path.exists():
        return {}
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return dict(zip(table["path"], table["group"], strict=True))


def groups_across(
    groups: Mapping[str, str], inventory: pd.DataFrame, splits: Collection[str]
) -> list[str | None]:
    """Return for each image the first image of its group in another split, or None.

    Args:
        groups: of an image by its path; {} if none are given.
        inventory: with path and split.
        splits: that count.
    """
    if not groups:
        return [None] * len(inventory)
    known = inventory[["path", "split"]].assign(group=inventory["path"].map(groups))
    counted = known[known["split"].isin(list(splits))].dropna(subset="group")
    first: dict[str, dict[str, str]] = {}  # path by group and split
    for path, split, group in counted.itertuples(index=False, name=None):
        first.setdefault(group, {}).setdefault(split, path)
    return [
        next((other for place, other in first.get(group, {}).items() if place != split), None)
        if split in splits
        else None
        for _, split, group in known.itertuples(index=False, name=None)
    ]
