"""The images to audit, a folder or a zip, in the layout that stages have: SPLIT/CLASS/NAME."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hemotune.archive import open_zip, unpack
from hemotune.errors import StudyError
from hemotune.layout import Plan, plan
from hemotune.settings.dataset import Selection
from hemotune.tree import walk


@dataclass(frozen=True)
class Source:
    """Where the images to audit are."""

    images: Path  # a folder of SPLIT/CLASS/NAME
    photographs: list[Path]  # that the images were made of, where the source has them
    names: Mapping[str, str]  # the path in the source, by the path below `images`
    groups: Mapping[str, str]  # the group that folders give an image, by the path below `images`
    ignored: Counter[str]  # number of files that are not used, by kind


@contextmanager
def opened(path: Path, selection: Selection | None = None) -> Iterator[Source]:
    """Yield the images of a folder, as links, or of a zip, unpacked, in a temporary folder.

    Args:
        selection: what the folders mean, where their names do not tell.

    Raises:
        StudyError: there is none, it cannot be read, or its layout is not supported.
    """
    if not path.exists():
        raise StudyError(f"{path}: there is no such file or folder; correct the path")
    with TemporaryDirectory(prefix="hemotune-audit-") as temporary:
        folder = Path(temporary)
        fetch = link_folder if path.is_dir() else unpack_zip
        chosen = fetch(path, folder, selection)
        names = {
            target.removeprefix("images/"): name
            for name, target in chosen.targets.items()
            if target.startswith("images/")
        }
        photographs = sorted((folder / "photographs").glob("*"))
        yield Source(
            folder / "images", photographs, names, getattr(chosen, "groups", {}), chosen.ignored
        )


def link_folder(path: Path, folder: Path, selection: Selection | None) -> Plan:
    """Make links in `folder` to the images below `path`."""
    try:
        tree = walk(path)
    except OSError as error:
        raise StudyError(
            f"{error.filename}: cannot be read ({error.strerror}); correct its permissions"
        ) from None
    chosen = plan(str(path), tree.files, tree.folders, selection)
    top = path.resolve()
    for name, target in chosen.targets.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).symlink_to(top / name)
    return chosen


def unpack_zip(path: Path, folder: Path, selection: Selection | None) -> Plan:
    """Unpack the images of the zip at `path` to `folder`."""
    with open_zip(path) as zipped:
        entries = zipped.infolist()
        files = [entry.filename for entry in entries if not entry.is_dir()]
        folders = [entry.filename for entry in entries if entry.is_dir()]
        chosen = plan(str(path), files, folders, selection)
        unpack(zipped, chosen.targets, folder)
    return chosen
