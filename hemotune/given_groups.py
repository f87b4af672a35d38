"""The groups that a user knows: which images come from one patient, slide or photograph.

They are given by a table of paths, by a pattern over paths, or by folders below the classes.
"""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hemotune.errors import StudyError
from hemotune.settings.dataset import CLASS, GROUP, Groups

COLUMNS = ["path", "group"]


def levels_around_class(groups: Groups) -> tuple[int, int] | None:
    """Return how many folders lie above and below the class, as the pattern has them; None if it
    does not say where the class is.
    """
    parts = (groups.pattern or "").split("/")
    if CLASS not in parts:
        return None
    place = parts.index(CLASS)
    is_above = any(GROUP in part for part in parts[:place])
    return place if is_above else 0, len(parts) - place - 2


def given_groups(
    name: str, groups: Groups, chosen: Mapping[str, Sequence[str]], images: Collection[str]
) -> dict[str, str]:
    """Return the group of each chosen image, as the profile gives it.

    Args:
        name: the user's name for the source, for messages.
        chosen: the folders of each path that is used.
        images: all image paths of the source.

    Raises:
        StudyError: an image has no group, or the table cannot be read or names an unknown path.
    """
    if groups.file:
        found = read_table(Path(groups.file).expanduser(), name, images)
        fix = f"add it to {groups.file}"
    else:
        found = by_pattern(name, groups.pattern or "", chosen)
        fix = f"dataset.groups.pattern is {groups.pattern}: correct it"
    if missing := [path for path in chosen if path not in found]:
        more = f" (nor have {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise StudyError(
            f"{name}: {missing[0]} has no group{more}; {fix}, or leave the image out with"
            " dataset.exclude in the profile"
        )
    return {path: found[path] for path in chosen}


def by_pattern(name: str, pattern: str, chosen: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the group of each path that matches the pattern, which describes the end of a path."""
    expression, levels = compiled(pattern), pattern.count("/")
    found = {}
    for path, folders in chosen.items():
        parts = [*(folders[-levels:] if levels else []), path.rsplit("/", 1)[-1]]
        if match := expression.fullmatch("/".join(parts)):
            found[path] = match["group"]
    if not found:
        raise StudyError(
            f"{name}: dataset.groups.pattern: {pattern} matches no image; a path is for example"
            f" {next(iter(chosen))}"
        )
    return found


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression; its wildcards take as little text as they can."""
    wildcards = {GROUP: "(?P<group>[^/]+?)", "*": "[^/]*?", "?": "[^/]"}
    parts = [
        "[^/]+"
        if part == CLASS
        else "".join(
            wildcards.get(piece, re.escape(piece))
            for piece in re.split(f"({re.escape(GROUP)}|[*?])", part)
        )
        for part in pattern.split("/")
    ]
    return re.compile("/".join(parts))


def read_table(file: Path, name: str, images: Collection[str]) -> dict[str, str]:
    """Return the group of each path that a CSV file with the columns path and group lists.

    Raises:
        StudyError: it is missing or no such table, or a line has no group, contradicts another, or
            names a path that is no image of the source.
    """
    where, known = f"dataset.groups.file: {file}", set(images)
    found: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            if missing := [column for column in COLUMNS if column not in (rows.fieldnames or [])]:
                raise StudyError(
                    f"{where}: has no column {missing[0]}; its first line must be"
                    f" {','.join(COLUMNS)}"
                )
            for row in rows:
                path, group = (row[column] or "" for column in COLUMNS)
                if path not in known:
                    raise StudyError(
                        f"{where}, line {rows.line_num}: {name} has no image {path!r}; paths are"
                        f" relative to it, such as {min(known)}"
                    )
                if not group.strip():
                    raise StudyError(
                        f"{where}, line {rows.line_num}: {path} has no group; write one"
                    )
                if found.setdefault(path, group.strip()) != group.strip():
                    raise StudyError(
                        f"{where}, line {rows.line_num}: {path} has two groups, {found[path]} and"
                        f" {group.strip()}; keep one"
                    )
    except OSError as error:
        raise StudyError(f"{where}: cannot be read ({error.strerror}); correct it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StudyError(
            f"{where}: is not a CSV table in UTF-8 ({error}); save it as one"
        ) from None
    return found
