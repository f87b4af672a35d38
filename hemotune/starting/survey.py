"""What is found in a user's images before any settings exist."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from hemotune.copies import same_bytes
from hemotune.errors import StudyError
from hemotune.groups import groups_across
from hemotune.layout import PARTS, SPLITS, folder_of
from hemotune.local_source import (
    inventory_of,
    names_of,
    opened,
    refuse_one_class,
    refuse_unreadable,
)
from hemotune.plan import kind_ignored, plan
from hemotune.settings.dataset import GROUP, Groups, Selection

SIZE = 32  # px, of the pixels that are decoded here and thrown away
# What separates a group from the rest of a file's name
SEPARATORS = ("_", "-", " ", ".")
PART_OF = {folder: part for part, folder in PARTS.items()}
FEWEST_IMAGES, SMALLEST_CLASS = 3, 10  # of a class: for each part of a split one; usually
FEWEST_GROUPS = 3  # of each class, to train on, to validate on and to test on


@dataclass(frozen=True)
class Survey:
    """What is found.

    Attributes:
        path: of the images, as the user wrote it.
        is_zip: else a folder.
        selection: how the source has to be read.
        inventory: of all images, see hemotune.inventory, and `name`, the path in the source. The
            split is ALL where there is none.
        groups: of each image by its path in the inventory; {} where none are given.
        groups_are_folders: whether folders below the classes give them.
    """

    path: str
    is_zip: bool
    selection: Selection
    inventory: pd.DataFrame
    groups: dict[str, str]
    groups_are_folders: bool

    @property
    def readable(self) -> pd.DataFrame:
        return self.inventory[self.inventory["readable"]]

    @property
    def classes(self) -> dict[str, int]:
        """The number of readable images of each class, by name."""
        return counted(self.readable["class"])

    @property
    def splits(self) -> dict[str, int]:
        """The number of readable images of each split, ALL where there is none."""
        return counted(self.readable["split"])

    def sizes(self) -> Counter[tuple[int, int]]:
        """Return the number of readable images of each (width, height)."""
        sides = self.readable[["width", "height"]].astype(int)
        return Counter(sides.itertuples(index=False, name=None))

    def modes(self) -> dict[str, int]:
        """Return the number of readable images of each colour mode, most first."""
        return dict(Counter(self.readable["mode"].tolist()).most_common())

    def copies_across(self) -> list[str]:
        """Return the names of images whose bytes are also in another split or class."""
        rows = self.readable.reset_index(drop=True)
        across = same_bytes(rows).across
        return [name for name, other in zip(rows["name"], across, strict=True) if other]

    def split_groups(self) -> list[str]:
        """Return the given groups that are in two given splits, sorted."""
        across = groups_across(self.groups, self.readable, set(self.splits))
        paths = self.readable["path"]
        return sorted({self.groups[path] for path, one in zip(paths, across, strict=True) if one})

    def groups_of_classes(self) -> dict[str, int]:
        """Return the number of given groups of each class."""
        rows = self.readable.assign(group=self.readable["path"].map(self.groups))
        return counted(rows.drop_duplicates(["class", "group"])["class"])


def counted(values: pd.Series) -> dict[str, int]:
    """Return how often each value occurs, sorted by value."""
    return dict(sorted(Counter(values.tolist()).items()))


def look(path: str, groups: Groups) -> Survey:
    """Look at every image of a folder or a zip.

    Args:
        groups: as the user gives them.

    Raises:
        StudyError: there is no such source, its layout is not supported, nothing in it can be read,
            it holds one class only, or an image has no group where groups are given.
    """
    place = Path(path).expanduser()
    selection = selection_for(place, groups)
    with opened(place, selection) as source, TemporaryDirectory() as folder:
        inventory = inventory_of(source, SIZE, Path(folder) / "images.npy")
    found = Survey(
        path=path,
        is_zip=not place.is_dir(),
        selection=selection,
        inventory=inventory,
        groups=dict(source.groups),
        groups_are_folders=bool(source.groups) and not (groups.file or groups.pattern),
    )
    refuse_too_few(found)
    return found


def refuse_too_few(survey: Survey) -> None:
    """Check that there are two classes or more, each with images for every part of a split.

    Raises:
        StudyError: there are not.
    """
    path, inventory = survey.path, survey.inventory
    refuse_unreadable(path, inventory)
    refuse_one_class(path, inventory["class"])
    for name in sorted(inventory["class"].unique()):
        if (count := survey.classes.get(name, 0)) < FEWEST_IMAGES:
            raise StudyError(
                f"{path}: class {name} has {count} images that can be read; a study needs"
                f" {FEWEST_IMAGES} of each class, better {SMALLEST_CLASS}: add images, or move the"
                " folder away"
            )


def selection_for(path: Path, groups: Groups) -> Selection:
    """Return how a source has to be read: as it is, or with splits of other names, or without
    folders whose images have no class.

    Raises:
        StudyError: there is no such source, or its layout is not supported in any of these ways.
    """
    files, folders = names_of(path)
    plain = Selection(groups=groups)
    try:
        plan(str(path), files, folders, plain)
        return plain
    except StudyError as error:
        refused = error
    for guess in guesses([file for file in files if not kind_ignored(file)]):
        try:
            selection = plain.model_copy(update=guess)
            plan(str(path), files, folders, selection)
            return selection
        except StudyError:
            continue
    raise refused


def guesses(images: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield what may have to be said of a source whose layout is not understood.

    Folders whose names contain a word for a split are splits; folders of images that are less deep
    than the others, or as deep as the splits, have no class.
    """
    folders = {folder_of(path) for path in images}
    splits = {}
    for name in sorted({part for folder in folders for part in folder}):
        words = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
        if len(words) == 1 and (part := PART_OF.get(words.pop())):
            splits[name] = part
    deepest = max(map(len, folders), default=0)
    unlabelled = sorted({folder[-1] for folder in folders if 0 < len(folder) < deepest})
    rest = {name: part for name, part in splits.items() if name not in unlabelled}
    if set(rest.values()) >= {"train"}:
        yield {"splits": rest}
        yield {"splits": rest, "unlabelled": unlabelled}
    yield {"unlabelled": unlabelled}


@dataclass(frozen=True)
class NameGroups:
    """Groups that the file names suggest."""

    pattern: str
    groups: int
    example: str


def groups_in_names(survey: Survey) -> NameGroups | None:
    """Return what the beginnings of the file names suggest as groups, such as p01 of p01_3.png.

    None unless every class has FEWEST_GROUPS of them or more and they hold two images on average:
    names such as cat_1 and cat_2 say nothing of groups.
    """
    names = survey.readable["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    for separator in SEPARATORS:
        if not names.str.contains(separator, regex=False).all():
            continue
        beginnings = names.str.partition(separator)[0]
        fewest = beginnings.groupby(survey.readable["class"]).nunique().min()
        number = beginnings.nunique()
        if fewest >= FEWEST_GROUPS and 2 * number <= len(names):
            return NameGroups(f"{GROUP}{separator}*", number, str(beginnings.iloc[0]))
    return None
