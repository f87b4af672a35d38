"""The layout of a source: which folders are splits, classes, groups and photographs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hemotune.errors import StudyError
from hemotune.given_groups import levels_around_class
from hemotune.settings.dataset import Selection

# The folders of a path from the top of the source, see folder_of.
Folder = tuple[str, ...]
# The folders of data/raw/images, by what dataset.splits calls a part
PARTS = {"train": "TRAIN", "validation": "VALIDATION", "test": "TEST"}
SPLITS = {
    **dict.fromkeys(["train", "training", "train_set", "training_set"], "TRAIN"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "VALIDATION"),
    **dict.fromkeys(["test", "testing", "test_set"], "TEST"),
    "test_simple": "TEST_SIMPLE",
}
PHOTOGRAPHS = {"jpegimages", "photographs"}

LAYOUTS = """supported layouts, below any number of wrapping folders:
         SPLIT/CLASS/images      SPLIT one of train, test, test_simple, val, in any case
                                 (also training, testing, valid, validation), or as named in
                                 dataset.splits: {FOLDER: train}
         CLASS/images            plain class folders, side by side
         CLASS/GROUP/images      a folder for each patient, slide or the like, also below SPLIT; if
                                 classes have groups of the same name, list dataset.classes
         JPEGImages/images       the photographs of which the images are copies, beside one of these
       a folder of images without a class is left out by dataset.unlabelled: [FOLDER]"""


class Cut(NamedTuple):
    """What the folders of an image say of it."""

    top: Folder
    split: str  # its name in the source; empty where there are no splits
    above: Folder  # what lies between the split, or the top, and the class
    image_class: str
    below: Folder  # what lies between the class and the image


@dataclass(frozen=True)
class Shape:
    """How the folders of an image are read: TOP/SPLIT/ABOVE/CLASS/BELOW."""

    has_splits: bool
    above: int = 0  # levels between the split, or the top, and the class
    below: int = 0  # levels between the class and the image: 1 where each group has a folder
    collapsed: bool = False  # without a folder that repeats its parent's name

    def cut(self, folder: Folder) -> Cut | None:
        """Return what a folder says; None if it is not deep enough."""
        place = len(folder) - 1 - self.below
        first = place - self.above - self.has_splits
        if first < 0:
            return None
        split = folder[first] if self.has_splits else ""
        above = folder[place - self.above : place]
        return Cut(folder[:first], split, above, folder[place], folder[place + 1 :])


@dataclass(frozen=True)
class Layout:
    """The role of each folder that holds images."""

    shape: Shape
    classes: set[Folder]  # folders whose images have a class
    photographs: set[Folder]
    others: set[Folder]  # of classes that dataset.classes does not list
    top: Folder  # the folder that holds the splits, or the classes where there are no splits


def folder_of(path: str, collapsed: bool = True) -> Folder:
    """Return the folders of a path.

    Args:
        collapsed: without a folder that repeats its parent's name, as Kaggle's train/train/CLASS
            does.
    """
    parts = path.split("/")[:-1]
    return tuple(
        part
        for above, part in zip(["", *parts], parts, strict=False)
        if not collapsed or part.lower() != above.lower()
    )


def layout_of(name: str, paths: Sequence[str], selection: Selection) -> Layout:
    """Find out which folders are classes, splits, groups and photographs.

    Args:
        name: the user's name for the source, for messages.
        paths: the images that are used.

    Raises:
        StudyError: the layout is not supported.
    """
    found = {
        collapsed: Counter(folder_of(path, collapsed) for path in paths)
        for collapsed in (False, True)
    }
    for shape in shapes(selection):
        if layout := fit(shape, set(found[shape.collapsed]), selection):
            return layout
    raise StudyError(
        f"{name}: its layout is not supported; {list_folders(found[True])}\n       {LAYOUTS}"
    )


def shapes(selection: Selection) -> Iterator[Shape]:
    """Yield the shapes that a source may have, those that leave the least to guess first."""
    told = levels_around_class(selection.groups)
    for above, below in [told] if told else [(0, 0), (0, 1)]:
        for collapsed in (False, True):
            for has_splits in (True,) if selection.splits else (True, False):
                yield Shape(has_splits, above, below, collapsed)


def fit(shape: Shape, folders: set[Folder], selection: Selection) -> Layout | None:
    """Return the layout of `folders`, which hold images, or None if they have another shape."""
    photographs, listed = photographs_of(folders), set(selection.classes)
    cuts = {folder: shape.cut(folder) for folder in folders - photographs}
    kept = {
        folder: cut
        for folder, cut in cuts.items()
        if cut and (not listed or cut.image_class in listed)
    }
    others = set(cuts) - set(kept)
    if any(not listed or listed & without_splits(folder, selection) for folder in others):
        return None
    names, tops = {cut.image_class for cut in kept.values()}, {cut.top for cut in kept.values()}
    if len(tops) != 1 or not listed <= names:
        return None
    if shape.has_splits:
        fits = all(is_split(cut.split, selection) for cut in kept.values())
    else:
        fits = bool(listed) or not all(is_split(name, selection) for name in names)
    if shape.below and not listed and not selection.groups.pattern:
        fits = fits and are_groups(list(kept.values()), selection)
    return Layout(shape, set(kept), photographs, others, tops.pop()) if fits else None


def are_groups(cuts: Sequence[Cut], selection: Selection) -> bool:
    """Whether what is below the classes is surely groups: folders of the same name in two of them
    may be the classes, at two places.
    """
    classes = {cut.image_class for cut in cuts}
    owners = {(cut.below, cut.image_class) for cut in cuts}
    apart = len(owners) == len({cut.below for cut in cuts})
    return apart and len(classes) > 1 and not any(is_split(name, selection) for name in classes)


def photographs_of(folders: set[Folder]) -> set[Folder]:
    """Return the folders of photographs.

    A folder named `photographs` beside class folders is a class; elsewhere it contains
    photographs. `JPEGImages` always contains photographs.
    """
    named = {folder for folder in folders if folder and folder[-1].lower() in PHOTOGRAPHS}
    beside_classes = {folder[:-1] for folder in folders - named}
    return {
        folder
        for folder in named
        if folder[-1].lower() == "jpegimages" or folder[:-1] not in beside_classes
    }


def split_of(folder: str, selection: Selection) -> str | None:
    """Return the split, as data/raw/images names it, that a folder's name stands for."""
    if selection.splits:
        part = selection.splits.get(folder)
        return PARTS[part] if part else None
    return SPLITS.get(folder.lower())


def is_split(folder: str, selection: Selection) -> bool:
    return split_of(folder, selection) is not None


def without_splits(folder: Folder, selection: Selection) -> set[str]:
    return {part for part in folder if not is_split(part, selection)}


def list_folders(images: Counter[Folder]) -> str:
    """Return the first folders with images and their counts, for a message."""
    lines = [
        f"{count} in {'/'.join(folder) + '/' if folder else 'its top folder'}"
        for folder, count in sorted(images.items())
    ]
    more = f" and {len(lines) - 8} more folders" if len(lines) > 8 else ""
    return f"found images: {', '.join(lines[:8])}{more}"
