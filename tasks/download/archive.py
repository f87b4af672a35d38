"""What a source may look like: which of its files are used and where they go; and the checks of a
zip before it is unpacked.
"""

import lzma
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from hemotune.errors import StudyError
from hemotune.file_kind import LONGEST, kind_of
from hemotune.progress import Progress

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
# The study cuts its validation images off TRAIN in its own ratio, so a source's own validation
# folder joins TRAIN.
SPLITS = {
    "train": "TRAIN",
    "training": "TRAIN",
    "test": "TEST",
    "testing": "TEST",
    "test_simple": "TEST_SIMPLE",
}
SPLITS |= {"train_set": "TRAIN", "training_set": "TRAIN", "test_set": "TEST"}
JOIN_TRAIN = {"val", "valid", "validation", "dev"}
PHOTOGRAPHS = {"jpegimages", "photographs"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
# Control characters, backslash, bytes that are not UTF-8
UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")

# A zip beyond these is refused. The largest sets of images in use (14 million files, pictures of
# some 100 MB) fit; deflate reaches 1032:1 on zeros, while images, even flat bitmaps, stay well
# below 100:1 over a whole archive.
LARGEST_COUNT = 20_000_000
LARGEST_FILE = 1_000_000_000  # bytes
LARGEST_TOTAL = 2_000_000_000_000  # bytes
LARGEST_RATIO = 100  # unpacked bytes / packed bytes
# Unpacked bytes: a few small flat images may pack as well as they like
RATIO_MATTERS_FROM = 10_000_000

UNDERSTOOD = """understood are, below any number of wrapping folders:
         SPLIT/CLASS/images      SPLIT one of train, test, test_simple, val, in any case
                                 (also training, testing, valid, validation)
         CLASS/images            plain class folders, side by side
         JPEGImages/images       photographs, beside one of the two (Kaggle's blood-cells)"""


def plan(name, paths, folders=(), include=(), exclude=()):
    """Decide which files of a source are used, and where each goes.

    Args:
        name: what the user calls the source, for messages.
        paths: posix paths of all its files, relative to its top.
        folders: posix paths of its folders, so that an empty class is noticed; those of `paths` are
            known.
        include: patterns (see matches) of which an image must match one; none: every image is used.
        exclude: patterns of paths that are left out.
    Returns:
        ({path: target}, Counter of ignored files by kind); a target is images/SPLIT/CLASS/NAME or
        photographs/NAME.
    Raises:
        StudyError: the layout is not understood, a class is empty, or two files would get one name.
    """
    used, ignored = {}, Counter()  # path: its folder
    for path in sorted(paths):
        kind = ignored_as(path) or (
            "" if wanted(path, include, exclude) else "left out by dataset.include or exclude"
        )
        if kind:
            ignored[kind] += 1
        else:
            used[path] = folder_of(path)
    if not used:
        found = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(6)) or "no files"
        raise StudyError(
            f"{name}: holds no image to use (found: {found}); images end in"
            f" {', '.join(sorted(SUFFIXES))}"
        )

    images = Counter(used.values())
    # A folder of photographs lies apart from the class folders; beside them, `photographs` is a
    # class as any other.
    photographs = {f for f in images if f and f[-1].lower() in PHOTOGRAPHS}
    photographs -= {
        f
        for f in photographs
        if f[-1].lower() != "jpegimages"
        and any(g[:-1] == f[:-1] for g in set(images) - photographs)
    }
    classes = set(images) - photographs
    split = any(is_split(folder[:-1]) for folder in classes)
    tops = {folder[: -2 if split else -1] for folder in classes}
    straight_in_splits = not split and all(map(is_split, classes))
    if (
        len(tops) != 1
        or () in classes
        or straight_in_splits
        or split != all(is_split(folder[:-1]) for folder in classes)
    ):
        raise StudyError(
            f"{name}: its layout is not understood; {found_in(images)}\n       {UNDERSTOOD}"
        )

    known = {folder_of(path) for path in paths} | {
        folder_of(f"{folder.rstrip('/')}/") for folder in folders
    }
    # A folder that include emptied is no mistake.
    pictures = [path for path in paths if not ignored_as(path)]
    included = with_parents(folder_of(path) for path in pictures if wanted(path, include, ()))
    known -= with_parents(map(folder_of, pictures)) - included
    top = tops.pop() if split else None
    refuse_empty_folders(name, classes, known - photographs, top, include, exclude)
    return targets_of(name, used, photographs, split), ignored


def folder_of(path):
    """Return the folders of a path as a tuple, those that only repeat the one above left out:
    Kaggle wraps train/train/CLASS.
    """
    parts = path.split("/")[:-1]
    return tuple(
        part
        for above, part in zip(["", *parts], parts, strict=False)
        if part.lower() != above.lower()
    )


def ignored_as(path):
    """Return the kind under which a file is ignored and counted, or "" for an image."""
    parts = path.split("/")
    if "__MACOSX" in parts:
        return "__MACOSX"
    if parts[-1].lower() in SYSTEM_FILES:
        return parts[-1]
    if any(part.startswith(".") for part in parts):
        return "hidden"
    suffix = PurePosixPath(path).suffix.lower()
    return "" if suffix in SUFFIXES else suffix or "without suffix"


def with_parents(folders: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return folders, as folder_of gives them, with all those above them."""
    return {folder[:end] for folder in folders for end in range(len(folder) + 1)}


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    included = not include or any(matches(path, pattern) for pattern in include)
    return included and not any(matches(path, pattern) for pattern in exclude)


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern: `*` is any text, across folders too, `?` one character.

    All else stands for itself, `[` as well: names hold brackets more often than patterns need sets
    of characters. `[[]`, which fnmatch has for it, is understood.
    """
    return fnmatchcase(path, pattern.replace("[[]", "[").replace("[", "[[]"))


def is_split(folder):
    return bool(folder) and (folder[-1].lower() in SPLITS or folder[-1].lower() in JOIN_TRAIN)


def found_in(images):
    """Return the first folders with images, with their counts."""
    lines = [
        f"{count} in {'/'.join(folder) + '/' if folder else 'its top folder'}"
        for folder, count in sorted(images.items())
    ]
    return (
        "found images: "
        + ", ".join(lines[:8])
        + (f" and {len(lines) - 8} more folders" if len(lines) > 8 else "")
    )


def refuse_empty_folders(name, classes, folders, top, include, exclude):
    """A class folder (in the split layout also a split folder, below `top`) without an image is a
    mistake, or is left out by name.
    """
    beside = {folder[:-1] for folder in classes}
    for folder in sorted(folders - with_parents(classes)):
        if folder[:-1] in beside or (top is not None and folder[:-1] == top and is_split(folder)):
            path = "/".join(folder) + "/"
            examples = [f"{path}x{suffix}" for suffix in SUFFIXES]
            if any(not ignored_as(image) and wanted(image, include, exclude) for image in examples):
                pattern = f"*{path}*".replace("'", "''")  # as YAML writes it
                fix = f"add images to it, or leave it out with dataset.exclude: ['{pattern}']"
                raise StudyError(
                    f"{name}: the folder {path} stands where a class does, but holds no image;"
                    f" {fix}"
                )


def targets_of(name, used, photographs, split):
    """Return {path: target below data/raw}; no two may be alike.

    Some file systems take such names for the same, and people cannot tell apart those that differ
    in Unicode composition only.
    """
    targets, taken, classes = {}, {}, {}
    for path, folder in used.items():
        file = path.split("/")[-1]
        if folder in photographs:
            target = f"photographs/{file}"
        elif not split:
            target = f"images/ALL/{folder[-1]}/{file}"
        else:
            prefix = f"{folder[-2].lower()}-" if folder[-2].lower() in JOIN_TRAIN else ""
            target = f"images/{SPLITS.get(folder[-2].lower(), 'TRAIN')}/{folder[-1]}/{prefix}{file}"
        if folder not in photographs:
            other = classes.setdefault(alike(folder[-1]), folder[-1])
            if other != folder[-1]:
                problem = difference(other, folder[-1])
                raise StudyError(f"{name}: the class folders {problem}; rename one")
        if (other := taken.setdefault(alike(target), path)) != path:
            raise StudyError(
                f"{name}: {other} and {path} would both become {target}; rename one, or leave one"
                " out with dataset.exclude"
            )
        if bad := UNUSABLE.search(path):  # among others the bytes of a name that is not UTF-8
            raise StudyError(
                f"{name}: {path!r}: the character {bad[0]!r} cannot be in the name of an image;"
                " rename it"
            )
        targets[path] = target
    return targets


def alike(name: str) -> str:
    """Return what a name has in common with those that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).lower()


def difference(one: str, other: str) -> str:
    """Say how two names that are alike differ."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        # Without escapes they would look the same.
        return f"{ascii(one)} and {ascii(other)} differ in Unicode composition only"
    return f"{one} and {other} differ in case only"


def open_zip(path):
    """Open a zip, all of whose entries have passed the checks.

    Raises:
        StudyError: it is missing, truncated or no zip, or an entry is dangerous or unreadable.
    """
    path = Path(path)
    try:
        opened = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise StudyError(
            f"{path}: there is no such file; correct dataset.path in the profile, or put the zip"
            " there"
        ) from None
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, EOFError) as error:
        raise StudyError(f"{path}: {what_is_wrong(path, error)}") from None
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be read ({error.strerror}); dataset.path must name a zip file"
        ) from None
    try:
        check_entries(path, opened.infolist())
    except StudyError:
        opened.close()
        raise
    return opened


def what_is_wrong(path, error):
    """Say why zipfile refused the file."""
    with open(path, "rb") as file:
        start = file.read(LONGEST)
    if not start:
        return "is empty; fetch it again"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return (
            f"is truncated ({path.stat().st_size} bytes, its table of contents at the end is"
            " missing); fetch it again"
        )
    if start.startswith(b"PK"):
        return f"is a damaged zip ({error}); fetch it again"
    looks = kind_of(start) or f"something else (it begins with {start[:12]!r})"
    fix = "pack the images as a zip, or unpack them and name their folder (source: folder)"
    return f"is not a zip but {looks}; {fix}"


def check_entries(path, entries):
    """Refuse a zip by its table of contents, before a byte is unpacked.

    Raises:
        StudyError: a name that leads elsewhere, a link or other special file, an encrypted or
            doubled entry, too many or too large ones, or more unpacked than packed bytes than
            images can explain.
    """

    def refuse(entry, why):
        raise StudyError(
            f"{path}: entry {entry.orig_filename!r} {why}; nothing was unpacked. Correct the zip,"
            " or pack the images anew"
        )

    seen = set()
    for entry in entries:
        name = entry.orig_filename
        parts = name.removesuffix("/").split("/")
        if ".." in parts or name.startswith("/") or re.match(r"[A-Za-z]:", name):
            refuse(entry, "leads outside the folder it is unpacked to")
        if UNUSABLE.search(name):
            refuse(entry, "has a control character or a backslash in its name")
        if "" in parts or "." in parts or max(len(part.encode()) for part in parts) > 255:
            refuse(entry, "has an empty or over-long part in its name")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(entry, "is a link or another special file")
        if entry.flag_bits & 0x1:
            refuse(entry, "is encrypted")
        if name.lower() in seen and not entry.is_dir():
            refuse(entry, "is there twice (upper and lower case count as the same)")
        seen.add(name.lower())
        if entry.file_size > LARGEST_FILE:
            refuse(entry, f"unpacks to {size(entry.file_size)}, of {size(LARGEST_FILE)} allowed")
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if len(entries) > LARGEST_COUNT or total > LARGEST_TOTAL:
        raise StudyError(
            f"{path}: {len(entries)} entries unpack to {size(total)}, of {LARGEST_COUNT} and"
            f" {size(LARGEST_TOTAL)} allowed; nothing was unpacked. Pack the images in several zips"
            " and unpack them yourself, for the source 'folder'"
        )
    if total > RATIO_MATTERS_FROM and total > LARGEST_RATIO * packed:
        raise StudyError(
            f"{path}: {size(packed)} unpack to {size(total)}, more than {LARGEST_RATIO} times as"
            " much, as no images do: it looks like a zip bomb. Nothing was unpacked; check where"
            " it comes from"
        )


def unpack(opened, targets, folder):
    """Unpack the entries {name: target} of an open zip to `folder`; zipfile checks the CRC of each.

    Raises:
        StudyError: the disk has too little room, an entry is damaged or packed by an unknown
            method.
    """
    folder, done = Path(folder), 0
    total = sum(opened.getinfo(name).file_size for name in targets)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise StudyError(
            f"{opened.filename}: unpacks to {size(total)}, but {folder.parent} has {size(free)}"
            " free; free some space"
        )
    for target in {Path(target).parent for target in targets.values()}:
        (folder / target).mkdir(parents=True, exist_ok=True)
    progress = Progress("unpack", len(targets), "files")
    # In the order of the file on disk, not of the names: one pass over a zip that may be larger
    # than memory.
    for name in sorted(targets, key=lambda name: opened.getinfo(name).header_offset):
        try:
            with opened.open(name) as packed, open(folder / targets[name], "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except NotImplementedError as error:
            raise StudyError(
                f"{opened.filename}: entry {name!r}: {error}; pack the images anew with deflate"
            ) from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise StudyError(
                f"{opened.filename}: entry {name!r} is damaged ({error}); fetch the zip again"
            ) from None
        done += 1
        progress.update(done)


def size(count):
    """Return a number of bytes for people: 113 MB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return (
        f"{count:.1f} {units[0]}"
        if units[0] != "bytes" and count < 10
        else f"{count:.0f} {units[0]}"
    )
