"""The layout of a source: which of its files are used, and where each is written in data/raw/."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from hemotune.errors import StudyError

# The folders of a path from the top of the source, see folder_of.
Folder = tuple[str, ...]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
# The stage prepare takes validation images from TRAIN by the fractions of the profile, so the
# validation folder of a source is merged into TRAIN.
VALIDATION = {"val", "valid", "validation", "dev"}
SPLITS = {
    "train": "TRAIN",
    "training": "TRAIN",
    "train_set": "TRAIN",
    "training_set": "TRAIN",
    "test": "TEST",
    "testing": "TEST",
    "test_set": "TEST",
    "test_simple": "TEST_SIMPLE",
    **dict.fromkeys(VALIDATION, "TRAIN"),
}
PHOTOGRAPHS = {"jpegimages", "photographs"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
# Control characters, backslash, bytes that are not UTF-8
UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")

LAYOUTS = """supported layouts, below any number of wrapping folders:
         SPLIT/CLASS/images      SPLIT one of train, test, test_simple, val, in any case
                                 (also training, testing, valid, validation)
         CLASS/images            plain class folders, side by side
         JPEGImages/images       photographs, beside one of the two (Kaggle's blood-cells)"""


@dataclass(frozen=True)
class Plan:
    """Where each file of a source is written, and which files are ignored."""

    # Path in the source: path in data/raw/, images/SPLIT/CLASS/NAME or photographs/NAME
    targets: dict[str, str]
    ignored: Counter[str]  # number of files that are not used, by kind


@dataclass(frozen=True)
class Layout:
    """The role of each folder that holds images."""

    classes: set[Folder]
    photographs: set[Folder]
    top: Folder  # the folder that holds the splits, or the classes where there are no splits
    has_splits: bool


def plan(
    name: str,
    paths: Collection[str],
    folders: Iterable[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Plan:
    """Decide which files of a source are used, and where each is written.

    Args:
        name: the user's name for the source, for messages.
        paths: posix paths of all its files, relative to its top.
        folders: posix paths of its folders, to detect empty classes; the folders of `paths` may be
            omitted.
        include: patterns (see `matches`); if there are any, an image must match one of them.
        exclude: patterns of images that are not used.

    Raises:
        StudyError: the layout is not supported, a class is empty, or two names collide.
    """
    ignored: Counter[str] = Counter()
    images: dict[str, Folder] = {}
    for path in sorted(paths):
        if kind := kind_ignored(path):
            ignored[kind] += 1
        else:
            images[path] = folder_of(path)
    used = {path: folder for path, folder in images.items() if wanted(path, include, exclude)}
    if left_out := len(images) - len(used):
        ignored["left out by dataset.include or exclude"] = left_out
    if not used:
        found = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(6)) or "no files"
        suffixes = ", ".join(sorted(SUFFIXES))
        raise StudyError(f"{name}: no usable image (found: {found}); images end in {suffixes}")

    layout = layout_of(name, Counter(used.values()))
    known = {folder_of(path) for path in paths}
    known |= {folder_of(f"{folder.rstrip('/')}/") for folder in folders}
    # A folder may be empty because dataset.include leaves out all of its images.
    included = (folder for path, folder in images.items() if wanted(path, include, ()))
    known -= with_parents(images.values()) - with_parents(included)
    for folder in empty_folders(layout, known):
        path = "/".join(folder) + "/"
        if would_use_images(path, include, exclude):
            pattern = f"*{path}*".replace("'", "''")  # as YAML quotes it
            raise StudyError(
                f"{name}: the folder {path} should be a class, but contains no images; add images "
                f"to it, or leave it out with dataset.exclude: ['{pattern}']"
            )
    return Plan(targets_of(name, used, layout), ignored)


def folder_of(path: str) -> Folder:
    """Return the folders of a path, without a folder that repeats its parent's name, as Kaggle's
    train/train/CLASS does.
    """
    parts = path.split("/")[:-1]
    return tuple(
        part
        for above, part in zip(["", *parts], parts, strict=False)
        if part.lower() != above.lower()
    )


def kind_ignored(path: str) -> str:
    """Return the kind under which an ignored file is counted, or "" for an image."""
    parts = path.split("/")
    if "__MACOSX" in parts:
        return "__MACOSX"
    if parts[-1].lower() in SYSTEM_FILES:
        return parts[-1]
    if any(part.startswith(".") for part in parts):
        return "hidden"
    suffix = PurePosixPath(path).suffix.lower()
    return "" if suffix in SUFFIXES else suffix or "without suffix"


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether dataset.include and dataset.exclude let an image be used."""
    included = not include or any(matches(path, pattern) for pattern in include)
    return included and not any(matches(path, pattern) for pattern in exclude)


def would_use_images(folder: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether an image in `folder`, a path that ends in a slash, would be used."""
    examples = [f"{folder}x{suffix}" for suffix in SUFFIXES]
    return any(not kind_ignored(path) and wanted(path, include, exclude) for path in examples)


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern: `*` is any text, across folders too, `?` one character.

    All other characters, including `[`, are literal: brackets are more common in names than
    character sets in patterns. `[[]`, fnmatch's escape of `[`, also works.
    """
    return fnmatchcase(path, pattern.replace("[[]", "[").replace("[", "[[]"))


def layout_of(name: str, images: Counter[Folder]) -> Layout:
    """Find out which folders are classes, splits and photographs.

    Args:
        name: the user's name for the source, for messages.
        images: the number of used images by folder.

    Raises:
        StudyError: the layout is not supported.
    """
    photographs = photographs_of(set(images))
    classes = set(images) - photographs
    in_split = [is_split(folder[:-1]) for folder in classes]
    has_splits = any(in_split)
    tops = {folder[:-2] if has_splits else folder[:-1] for folder in classes}
    side_by_side = len(tops) == 1 and () not in classes
    # Not consistent: split folders beside plain classes, or images directly in split folders.
    consistent = all(in_split) if has_splits else not all(map(is_split, classes))
    if not (side_by_side and consistent):
        raise StudyError(
            f"{name}: its layout is not supported; {list_folders(images)}\n       {LAYOUTS}"
        )
    return Layout(classes, photographs, tops.pop(), has_splits)


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


def is_split(folder: Folder) -> bool:
    return bool(folder) and folder[-1].lower() in SPLITS


def list_folders(images: Counter[Folder]) -> str:
    """Return the first folders with images and their counts, for a message."""
    lines = [
        f"{count} in {'/'.join(folder) + '/' if folder else 'its top folder'}"
        for folder, count in sorted(images.items())
    ]
    more = f" and {len(lines) - 8} more folders" if len(lines) > 8 else ""
    return f"found images: {', '.join(lines[:8])}{more}"


def empty_folders(layout: Layout, known: set[Folder]) -> list[Folder]:
    """Return the `known` folders that are class or split folders but contain no images."""
    beside = {folder[:-1] for folder in layout.classes}
    empty = known - layout.photographs - with_parents(layout.classes)
    return [
        folder
        for folder in sorted(empty)
        if folder[:-1] in beside
        or (layout.has_splits and folder[:-1] == layout.top and is_split(folder))
    ]


def with_parents(folders: Iterable[Folder]) -> set[Folder]:
    """Return folders with all their parents."""
    return {folder[:end] for folder in folders for end in range(len(folder) + 1)}


def targets_of(name: str, used: dict[str, Folder], layout: Layout) -> dict[str, str]:
    """Return the path in data/raw/ for each used path of the source.

    Raises:
        StudyError: two targets or two classes have names that some file systems or readers cannot
            distinguish, or a name has an unusable character.
    """
    targets: dict[str, str] = {}
    path_of: dict[str, str] = {}
    class_of: dict[str, str] = {}
    for path, folder in used.items():
        targets[path] = target = target_of(path, folder, layout)
        if folder in layout.classes:
            other = class_of.setdefault(normalized(folder[-1]), folder[-1])
            if other != folder[-1]:
                raise StudyError(
                    f"{name}: the class folders {difference(other, folder[-1])}; rename one"
                )
        if (other := path_of.setdefault(normalized(target), path)) != path:
            raise StudyError(
                f"{name}: {other} and {path} would both become {target}; rename one, or leave one "
                "out with dataset.exclude"
            )
        if bad := UNUSABLE.search(path):  # also the bytes of a name that is not UTF-8
            raise StudyError(
                f"{name}: {path!r}: the name of an image cannot contain {bad[0]!r}; rename it"
            )
    return targets


def target_of(path: str, folder: Folder, layout: Layout) -> str:
    """Return the path in data/raw/ for one path of the source."""
    file = path.split("/")[-1]
    if folder in layout.photographs:
        return f"photographs/{file}"
    if not layout.has_splits:
        return f"images/ALL/{folder[-1]}/{file}"
    split = folder[-2].lower()
    prefix = f"{split}-" if split in VALIDATION else ""
    return f"images/{SPLITS[split]}/{folder[-1]}/{prefix}{file}"


def normalized(name: str) -> str:
    """Return a form of a name that is equal for names that some file systems cannot distinguish."""
    return unicodedata.normalize("NFC", name).lower()


def difference(one: str, other: str) -> str:
    """Describe the difference between two names that are equal when normalized."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        # Without escapes they would look the same.
        return f"{ascii(one)} and {ascii(other)} differ in Unicode composition only"
    return f"{one} and {other} differ in case only"
