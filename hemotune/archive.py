"""Check zip files and unpack them."""

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from hemotune.errors import StudyError
from hemotune.file_kind import HEAD_LENGTH, kind_of
from hemotune.plan import UNUSABLE, Plan, plan
from hemotune.progress import Progress
from hemotune.settings.dataset import Selection

# A zip beyond these limits is rejected. The largest image data sets in use (14 million files,
# images of some 100 MB) fit; deflate reaches 1032:1 on zeros, while images, even flat bitmaps, stay
# well below 100:1 over a whole archive.
LARGEST_COUNT = 20_000_000
LARGEST_FILE = 1_000_000_000  # bytes
LARGEST_TOTAL = 2_000_000_000_000  # bytes
LARGEST_RATIO = 100  # unpacked bytes / packed bytes
# Unpacked bytes; below this, a few small flat images may reach any ratio.
RATIO_MATTERS_FROM = 10_000_000


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip after checking its entries.

    Raises:
        StudyError: it is missing, truncated or not a zip, or an entry is dangerous or unreadable.
    """
    try:
        opened = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise StudyError(
            f"{path}: there is no such file; correct dataset.path in the profile, or put the zip "
            "there"
        ) from None
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, EOFError) as error:
        raise StudyError(f"{path}: {why_not_a_zip(path, error)}") from None
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


def why_not_a_zip(path: Path, error: Exception) -> str:
    """Return why zipfile rejected the file with `error`, and how to fix it."""
    with open(path, "rb") as file:
        start = file.read(HEAD_LENGTH)
    if not start:
        return "is empty; download it again"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return (
            f"is truncated ({path.stat().st_size} bytes, the table of contents at its end is "
            "missing); download it again"
        )
    if start.startswith(b"PK"):
        return f"is a damaged zip ({error}); download it again"
    kind = kind_of(start) or f"something else (it begins with {start[:12]!r})"
    fix = "pack the images as a zip, or name an unpacked folder (in a profile: source: folder)"
    return f"is not a zip but {kind}; {fix}"


def check_entries(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Check a zip by its table of contents, before anything is unpacked.

    Raises:
        StudyError: an entry is dangerous, encrypted or duplicated, there are too many or too large
            entries, or the compression ratio is too high for images.
    """
    names: set[str] = set()
    for entry in entries:
        name = entry.orig_filename.lower()
        problem = entry_problem(entry)
        if not problem and name in names and not entry.is_dir():
            problem = "occurs twice (ignoring case)"
        if problem:
            raise StudyError(
                f"{path}: entry {entry.orig_filename!r} {problem}; nothing was unpacked. Correct "
                "the zip, or pack the images again"
            )
        names.add(name)
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if len(entries) > LARGEST_COUNT or total > LARGEST_TOTAL:
        raise StudyError(
            f"{path}: {len(entries)} entries unpack to {format_bytes(total)}; the limits are "
            f"{LARGEST_COUNT} and {format_bytes(LARGEST_TOTAL)}. Nothing was unpacked; unpack it "
            "yourself and name the folder (in a profile: source: folder)"
        )
    if total > RATIO_MATTERS_FROM and total > LARGEST_RATIO * packed:
        raise StudyError(
            f"{path}: {format_bytes(packed)} unpack to {format_bytes(total)}, more than "
            f"{LARGEST_RATIO} times as much: images are never compressed that far, so it looks "
            "like a zip bomb. Nothing was unpacked; check where it comes from"
        )


def entry_problem(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry must not be unpacked, or None."""
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if ".." in parts or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "points outside the folder it is unpacked to"
    if UNUSABLE.search(name):
        return "has a control character or a backslash in its name"
    if "" in parts or "." in parts or max(len(part.encode()) for part in parts) > 255:
        return "has an empty or over-long part in its name"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or another special file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.file_size > LARGEST_FILE:
        return (
            f"unpacks to {format_bytes(entry.file_size)}, the limit is {format_bytes(LARGEST_FILE)}"
        )
    return None


def names_in(opened: zipfile.ZipFile) -> tuple[list[str], list[str]]:
    """Return the names of the files in an open zip, and those of its folders."""
    entries = opened.infolist()
    files = [entry.filename for entry in entries if not entry.is_dir()]
    return files, [entry.filename for entry in entries if entry.is_dir()]


def unpack_images(path: Path, folder: Path, selection: Selection | None) -> Plan:
    """Unpack the images of the zip at `path` to `folder`, as the returned plan says.

    Raises:
        StudyError: as `open_zip`, `plan` and `unpack`.
    """
    with open_zip(path) as opened:
        chosen = plan(str(path), *names_in(opened), selection)
        unpack(opened, chosen.targets, folder)
    return chosen


def unpack(opened: zipfile.ZipFile, targets: dict[str, str], folder: Path) -> None:
    """Unpack the entries {name: target} of an open zip to `folder`; zipfile checks the CRC of each.

    Raises:
        StudyError: the disk has too little space, an entry is damaged or its compression method is
            unknown.
    """
    total = sum(opened.getinfo(name).file_size for name in targets)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise StudyError(
            f"{opened.filename}: unpacks to {format_bytes(total)}, but {folder.parent} has "
            f"{format_bytes(free)} free; free some space"
        )
    for parent in {Path(target).parent for target in targets.values()}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    progress = Progress("unpack", len(targets), "files")
    # In the order of the entries on disk: one pass over a zip that may be larger than memory.
    names = sorted(targets, key=lambda name: opened.getinfo(name).header_offset)
    for done, name in enumerate(names, start=1):
        try:
            with opened.open(name) as packed, open(folder / targets[name], "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        except NotImplementedError as error:
            raise StudyError(
                f"{opened.filename}: entry {name!r}: {error}; pack the images again with deflate"
            ) from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise StudyError(
                f"{opened.filename}: entry {name!r} is damaged ({error}); download the zip again"
            ) from None
        progress.update(done)


def format_bytes(count: float) -> str:
    """Return a number of bytes as text, e.g. 113 MB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    digits = 1 if units[0] != "bytes" and count < 10 else 0
    return f"{count:.{digits}f} {units[0]}"
