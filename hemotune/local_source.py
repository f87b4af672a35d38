"""A folder or a zip of images on this machine, in the layout that stages have: SPLIT/CLASS/NAME.

`hemotune init` and `hemotune audit` look at it so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from hemotune.archive import names_in, open_zip, unpack_images
from hemotune.errors import StudyError
from hemotune.inventory import list_images, take_inventory
from hemotune.plan import Plan, plan
from hemotune.settings.dataset import Selection
from hemotune.tree import walk


@dataclass(frozen=True)
class Source:
    """Where the images are."""

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
    refuse_missing(path)
    with TemporaryDirectory(prefix="hemotune-") as temporary:
        folder = Path(temporary)
        fetch = link_folder if path.is_dir() else unpack_images
        chosen = fetch(path, folder, selection)
        names = {
            target.removeprefix("images/"): name
            for name, target in chosen.targets.items()
            if target.startswith("images/")
        }
        photographs = sorted((folder / "photographs").glob("*"))
        yield Source(folder / "images", photographs, names, chosen.groups, chosen.ignored)


def refuse_missing(path: Path) -> None:
    if not path.exists():
        raise StudyError(f"{path}: there is no such file or folder; correct the path")


def link_folder(path: Path, folder: Path, selection: Selection | None) -> Plan:
    """Make links in `folder` to the images below `path`."""
    chosen = plan(str(path), *names_of(path), selection)
    top = path.resolve()
    for name, target in chosen.targets.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).symlink_to(top / name)
    return chosen


def names_of(path: Path) -> tuple[list[str], list[str]]:
    """Return the paths of the files and of the folders in a folder or a zip.

    Raises:
        StudyError: there is no such file or folder, or it cannot be read.
    """
    refuse_missing(path)
    if not path.is_dir():
        with open_zip(path) as zipped:
            return names_in(zipped)
    try:
        tree = walk(path)
    except OSError as error:
        raise StudyError(
            f"{error.filename}: cannot be read ({error.strerror}); correct its permissions"
        ) from None
    return tree.files, tree.folders


def inventory_of(source: Source, size: int, pixels: Path) -> pd.DataFrame:
    """Return the inventory of all images (hemotune.inventory), with `name`, the path in the source.

    Args:
        size, pixels: the side that images are decoded to, and the .npy file to write.
    """
    paths, _ = list_images(source.images)
    inventory = take_inventory(source.images, paths, size, pixels)
    return inventory.assign(name=inventory["path"].map(source.names))


def refuse_unreadable(path: Path | str, inventory: pd.DataFrame) -> None:
    """Raise StudyError if no image of an inventory with `name` can be read."""
    if not inventory["readable"].any():
        first = inventory.iloc[0]
        raise StudyError(
            f"{path}: none of {len(inventory):,} images can be read: {first['name']}"
            f" {first['error']}; replace them"
        )


def refuse_one_class(path: Path | str, classes: pd.Series) -> None:
    """Raise StudyError if all images, whose classes these are, are of one class."""
    if classes.nunique() < 2:
        raise StudyError(
            f"{path}: holds one class only, {classes.iloc[0]}; name the folder that holds a folder"
            " for each class"
        )
