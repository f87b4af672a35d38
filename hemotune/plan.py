"""Which files of a source are used, and where each is written in data/raw/."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from hemotune.errors import StudyError
from hemotune.given_groups import given_groups
from hemotune.layout import Folder, Layout, folder_of, is_split, layout_of, split_of
from hemotune.settings.dataset import Selection

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
# Control characters, backslash, bytes that are not UTF-8
UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


@dataclass(frozen=True)
class Plan:
    """Where each file of a source is written, and which files are ignored."""

    # Path in the source: path in data/raw/, images/SPLIT/CLASS/NAME or photographs/NAME
    targets: dict[str, str]
    ignored: Counter[str]  # number of files that are not used, by kind
    # The group of each image where groups are given, by its path in data/raw/images
    groups: dict[str, str] = field(default_factory=dict)


def plan(
    name: str,
    paths: Collection[str],
    folders: Iterable[str] = (),
    selection: Selection | None = None,
) -> Plan:
    """Decide which files of a source are used, and where each is written.

    Args:
        name: the user's name for the source, for messages.
        paths: posix paths of all its files, relative to its top.
        folders: posix paths of its folders, to detect empty classes; the folders of `paths` may be
            omitted.
        selection: what the profile says of the source; by default nothing.

    Raises:
        StudyError: the layout is not supported, a class is empty, two names collide, something that
            `selection` names does not exist, or an image has no group where groups are given.
    """
    selection = selection or Selection()
    ignored: Counter[str] = Counter()
    images: list[str] = []
    for path in sorted(paths):
        if kind := kind_ignored(path):
            ignored[kind] += 1
        else:
            images.append(path)
    used = [path for path in images if wanted(path, selection)]
    unlabelled = [path for path in used if is_below(path, selection.unlabelled)]
    if left_out := len(images) - len(used):
        ignored["left out by dataset.include or exclude"] = left_out
    if unlabelled:
        ignored["left out by dataset.unlabelled"] = len(unlabelled)
        used = [path for path in used if not is_below(path, selection.unlabelled)]
    if not used:
        found = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(6)) or "no files"
        suffixes = ", ".join(sorted(SUFFIXES))
        raise StudyError(f"{name}: no usable image (found: {found}); images end in {suffixes}")

    everything = [*paths, *(f"{folder.rstrip('/')}/" for folder in folders)]
    refuse_unknown_folders(name, everything, selection)
    layout = layout_of(name, used, selection)
    refuse_empty_folders(name, layout, images, everything, selection)
    folder = {path: folder_of(path, layout.shape.collapsed) for path in used}
    chosen = {path: place for path, place in folder.items() if place not in layout.others}
    if left_out := len(folder) - len(chosen):
        ignored["of classes that dataset.classes does not list"] = left_out
    targets = targets_of(name, chosen, layout, selection)
    return Plan(targets, ignored, groups_of(name, images, chosen, targets, layout, selection))


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


def wanted(path: str, selection: Selection) -> bool:
    """Whether dataset.include and dataset.exclude let an image be used."""
    include = selection.include
    included = not include or any(matches(path, pattern) for pattern in include)
    return included and not any(matches(path, pattern) for pattern in selection.exclude)


def is_below(path: str, folders: Sequence[str]) -> bool:
    """Whether a file is in one of the folders, each one or more names, at any depth."""
    return any(f"/{folder.strip('/')}/" in f"/{path}" for folder in folders)


def would_use_images(folder: str, selection: Selection) -> bool:
    """Whether an image in `folder`, a path that ends in a slash, would be used."""
    examples = [f"{folder}x{suffix}" for suffix in SUFFIXES]
    return any(
        not kind_ignored(path)
        and wanted(path, selection)
        and not is_below(path, selection.unlabelled)
        for path in examples
    )


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern: `*` is any text, across folders too, `?` one character.

    All other characters, including `[`, are literal: brackets are more common in names than
    character sets in patterns. `[[]`, fnmatch's escape of `[`, also works.
    """
    return fnmatchcase(path, pattern.replace("[[]", "[").replace("[", "[[]"))


def refuse_unknown_folders(name: str, paths: Collection[str], selection: Selection) -> None:
    """Check that every folder that the profile names is a folder of the source.

    Args:
        paths: of files, and of folders, which end in a slash.

    Raises:
        StudyError: there is no such folder.
    """
    for key, told in (
        ("splits", selection.splits),
        ("unlabelled", selection.unlabelled),
        ("classes", selection.classes),
    ):
        for folder in told:
            if not any(is_below(path, [folder]) for path in paths):
                raise StudyError(
                    f"{name}: has no folder {folder}, which dataset.{key} names; correct it in the"
                    " profile"
                )


def refuse_empty_folders(
    name: str, layout: Layout, images: Sequence[str], known: Collection[str], selection: Selection
) -> None:
    """Check that no class or split folder is empty, which is usually a mistake.

    Args:
        images: all images of the source.
        known: paths of all its files, and of folders, which end in a slash.

    Raises:
        StudyError: one is. A folder may be empty because the profile leaves out all of its images.
    """
    collapsed = layout.shape.collapsed
    folders = {folder_of(path, collapsed) for path in known}
    all_images = with_parents(folder_of(path, collapsed) for path in images)
    included = with_parents(
        folder_of(path, collapsed)
        for path in images
        if wanted(path, selection.model_copy(update={"exclude": []}))
    )
    for folder in empty_folders(layout, folders - (all_images - included), selection):
        path = "/".join(folder) + "/"
        if would_use_images(path, selection):
            pattern = f"*{path}*".replace("'", "''")  # as YAML quotes it
            raise StudyError(
                f"{name}: the folder {path} should be a class, but contains no images; add images "
                f"to it, or leave it out with dataset.exclude: ['{pattern}']"
            )


def empty_folders(layout: Layout, known: set[Folder], selection: Selection) -> list[Folder]:
    """Return the `known` folders that are class or split folders but contain no images."""
    shape = layout.shape
    beside = {folder[: len(folder) - 1 - shape.below] for folder in layout.classes}
    empty = known - layout.photographs - with_parents(layout.classes | layout.others)
    return [
        folder
        for folder in sorted(filter(None, empty))
        if (folder[:-1] in beside and (not selection.classes or folder[-1] in selection.classes))
        or (shape.has_splits and folder[:-1] == layout.top and is_split(folder[-1], selection))
    ]


def with_parents(folders: Iterable[Folder]) -> set[Folder]:
    """Return folders with all their parents."""
    return {folder[:end] for folder in folders for end in range(len(folder) + 1)}


def targets_of(
    name: str, chosen: Mapping[str, Folder], layout: Layout, selection: Selection
) -> dict[str, str]:
    """Return the path in data/raw/ for each chosen path of the source.

    Raises:
        StudyError: two targets or two classes have names that some file systems or readers cannot
            distinguish, or a name has an unusable character.
    """
    targets: dict[str, str] = {}
    path_of: dict[str, str] = {}
    class_of: dict[str, str] = {}
    for path, folder in chosen.items():
        cut = layout.shape.cut(folder) if folder in layout.classes else None
        file = path.split("/")[-1]
        if cut:
            split = split_of(cut.split, selection) or "ALL"
            target = f"images/{split}/{cut.image_class}/{'-'.join([*cut.above, *cut.below, file])}"
            other = class_of.setdefault(normalized(cut.image_class), cut.image_class)
            if other != cut.image_class:
                raise StudyError(
                    f"{name}: the class folders {difference(other, cut.image_class)}; rename one"
                )
        else:
            target = f"photographs/{file}"
        targets[path] = target
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


def normalized(name: str) -> str:
    """Return a form of a name that is equal for names that some file systems cannot distinguish."""
    return unicodedata.normalize("NFC", name).lower()


def difference(one: str, other: str) -> str:
    """Describe the difference between two names that are equal when normalized."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        # Without escapes they would look the same.
        return f"{ascii(one)} and {ascii(other)} differ in Unicode composition only"
    return f"{one} and {other} differ in case only"


def groups_of(
    name: str,
    images: Collection[str],
    chosen: Mapping[str, Folder],
    targets: Mapping[str, str],
    layout: Layout,
    selection: Selection,
) -> dict[str, str]:
    """Return the group of each image by its path in data/raw/images; {} where none are given.

    Args:
        images: all images of the source.
        chosen, targets: the folders of each path that is used, and where it is written.

    Raises:
        StudyError: groups are given and an image has none.
    """
    labelled = {path: folder for path, folder in chosen.items() if folder in layout.classes}
    if selection.groups.file or selection.groups.pattern:
        found = given_groups(name, selection.groups, labelled, images)
    elif layout.shape.below:
        cuts = {path: layout.shape.cut(folder) for path, folder in labelled.items()}
        found = {path: "/".join(cut.below) for path, cut in cuts.items() if cut}
    else:
        return {}
    return {targets[path].removeprefix("images/"): group for path, group in found.items()}
