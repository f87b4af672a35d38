"""Where images come from: a zip, a folder, Kaggle, or drawn; and whether a source has changed."""

import hashlib
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hemotune.errors import StudyError
from hemotune.file_kind import LONGEST, kind_of
from hemotune.files import sha256_of
from hemotune.progress import Progress
from hemotune.settings.dataset import Dataset
from hemotune.tree import state_of, walk
from tasks.download.archive import open_zip, plan, unpack

RAW = Path("data/raw")
# Apart from data/raw: a source that was touched, with the same images, repeats no other stage
STATE = Path("data/source_state.json")


def bring(dataset, folder):
    """Fill the empty `folder` from the source that `dataset` (settings.dataset.Dataset) names.

    Returns:
        dict: reference, version (None where the source has none), ignored (Counter by kind), state
            (as of source_state, before).
    """
    if dataset.source == "sample":
        from hemotune.cells.dataset import write_sample

        drawn = dataset.sample
        write_sample(
            folder,
            drawn.photographs,
            drawn.copies,
            drawn.width,
            drawn.height,
            drawn.seed,
            drawn.magnification,
        )
        return {
            "reference": "drawn",
            "version": None,
            "ignored": Counter(),
            "state": source_state(dataset),
        }
    if dataset.source == "kaggle":
        from tasks.download.kaggle_source import fetch

        path, version, updated, asked = fetch(dataset.handle, dataset.version)
        ignored = from_zip(path, folder, dataset.include, dataset.exclude)
        state = kaggle_state(dataset, version, updated, asked)
        return {
            "reference": dataset.handle,
            "version": str(version),
            "ignored": ignored,
            "state": state,
        }
    path = Path(dataset.path).expanduser()
    refuse_own_output(path)
    state = local_state(dataset)
    ignored = (from_zip if dataset.source == "archive" else from_folder)(
        path, folder, dataset.include, dataset.exclude
    )
    return {"reference": dataset.path, "version": None, "ignored": ignored, "state": state}


def from_zip(path, folder, include, exclude):
    """Unpack the images of the zip at `path`; return the files ignored, by kind."""
    with open_zip(path) as opened:
        entries = opened.infolist()
        names = [entry.filename for entry in entries if not entry.is_dir()]
        targets, ignored = plan(
            str(path), names, [e.filename for e in entries if e.is_dir()], include, exclude
        )
        unpack(opened, targets, folder)
    return ignored


def from_folder(path, folder, include, exclude):
    """Copy the images below `path`; return the files ignored, by kind.

    A copy and no link: the original stays as it is, whatever is done to data/raw. (DVC replaces the
    copies by links to its cache where it is told to.)
    """
    if path.is_file():
        with open(path, "rb") as file:
            kind = kind_of(file.read(LONGEST)) or "a file"
        raise StudyError(
            f"{path}: is {kind}, not a folder; unpack it and name the folder, or set source:"
            " archive for a zip"
        )
    files, folders, special = walk(path)
    targets, ignored = plan(str(path), files, folders, include, exclude)
    progress = Progress("copy", len(targets), "files")
    for done, (name, target) in enumerate(targets.items(), start=1):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path / name, folder / target)
        except (FileNotFoundError, PermissionError) as error:
            raise StudyError(
                f"{path / name}: cannot be read ({error.strerror}); mend it, or leave it out with"
                " dataset.exclude"
            ) from None
        progress.update(done)
    return ignored + Counter({"not a file": special} if special else {})


def source_state(dataset: Dataset) -> dict[str, Any]:
    """Return the state of the source, another one when the source changed: never a download, at
    most one request. For flows/source.py.

    Raises:
        StudyError: the source is not there, or does not answer.
    """
    if dataset.source == "sample":
        return {"source": "sample"} | dataset.sample.model_dump()
    if dataset.source == "kaggle":
        from tasks.download.kaggle_source import latest_version

        if dataset.version != "latest":
            return kaggle_state(dataset, dataset.version)  # a version never changes
        return kaggle_state(dataset, *latest_version(dataset.handle), asked=datetime.now(UTC))
    return local_state(dataset)


def local_state(dataset: Dataset) -> dict[str, Any]:
    """Return the state of a zip or folder on this machine.

    Raises:
        StudyError: it is not there, or cannot be read.
    """
    try:
        return {"source": dataset.source, "path": dataset.path} | state_of(
            Path(dataset.path).expanduser()
        )
    except FileNotFoundError as error:
        what = "file" if dataset.source == "archive" else "folder"
        raise StudyError(
            f"{error.filename}: there is no such {what}; correct dataset.path in the profile"
        ) from None
    except OSError as error:
        raise StudyError(
            f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to"
            " read it"
        ) from None


def kaggle_state(
    dataset: Dataset, version: int, updated: str | None = None, asked: datetime | None = None
) -> dict[str, Any]:
    """Return the state of a version of a data set; `updated` is the ISO date of it, `asked` when
    Kaggle gave an answer.
    """
    state = {
        "source": "kaggle",
        "reference": dataset.handle,
        "version": version,
        "last_updated": updated,
    }
    return state | ({"asked": asked.astimezone(UTC).isoformat(timespec="seconds")} if asked else {})


def refuse_own_output(path):
    """data/raw/ is replaced as a whole, and its source must not go with it."""
    source, raw = path.resolve(), RAW.resolve()
    if source == raw or raw in source.parents or source in raw.parents:
        raise StudyError(
            f"dataset.path: {path}: this stage replaces {RAW}/; move the source to a place"
            " outside it"
        )


def describe(folder):
    """Return images and photographs (counts), splits (images by split and class) and sha256 of
    everything in `folder`.

    The sha256 is over sorted lines "path, two spaces, sha256 of the file", as sha256sum prints
    them.
    """
    paths = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    whole, splits, progress = hashlib.sha256(), {}, Progress("checksum", len(paths), "files")
    for done, path in enumerate(paths, start=1):
        whole.update(f"{sha256_of(folder / path)}  {path}\n".encode())
        if path.startswith("images/"):
            _, split, name, _ = path.split("/")
            splits.setdefault(split, Counter()).update([name])
        progress.update(done)
    images = sum(sum(classes.values()) for classes in splits.values())
    photographs = sum(path.startswith("photographs/") for path in paths)
    return {
        "images": images,
        "photographs": photographs,
        "splits": splits,
        "sha256": whole.hexdigest(),
    }
