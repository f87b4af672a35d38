"""The sources of images (drawn, Kaggle, a zip, a folder): their state, and how they are fetched."""

import hashlib
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from hemotune.archive import unpack_images
from hemotune.errors import StudyError
from hemotune.file_kind import HEAD_LENGTH, kind_of
from hemotune.files import sha256_of
from hemotune.groups import read_groups, write_groups
from hemotune.paths import GIVEN_GROUPS, RAW
from hemotune.plan import Plan, plan
from hemotune.progress import Progress
from hemotune.settings.dataset import Dataset
from hemotune.tree import state_of, walk

# The state of a source as JSON; it changes when the source does. The keys depend on the kind of
# source; `asked`, when a server last answered, is not compared (flows/source.py).
State = dict[str, str | int | float | None | dict[str, str | int]]


@dataclass(frozen=True)
class Fetched:
    """A source whose images were written to data/raw/."""

    reference: str  # "drawn", OWNER/NAME, or the path as in the profile
    version: str | None  # None if the source has no versions
    ignored: Counter[str]  # number of files that are not used, by kind
    state: State  # before the images were read


@dataclass(frozen=True)
class Contents:
    """What data/raw/ holds; the fields are keys of source.json."""

    images: int
    photographs: int
    groups: int  # that are given; 0 where they are looked for
    splits: dict[str, Counter[str]]  # number of images by split and class
    # Of the sorted lines "sha256 of the file, two spaces, path", as sha256sum prints them
    sha256: str


def fetch(dataset: Dataset, folder: Path) -> Fetched:
    """Write the images of the source that `dataset` names to the empty `folder`.

    Raises:
        StudyError: the source cannot be read, or its layout is not supported.
    """
    if dataset.source == "sample":
        from hemotune.cells.dataset import write_sample

        write_sample(folder, **dataset.sample.model_dump())
        return Fetched("drawn", None, Counter(), source_state(dataset))
    if dataset.source == "kaggle":
        from tasks.download.kaggle_source import download_zip

        handle, version = kaggle_version(dataset)
        path, found = download_zip(handle, version)
        ignored = fetch_zip(path, folder, dataset)
        state = kaggle_state(handle, found.number, found.updated, found.asked)
        state |= groups_state(dataset)
        return Fetched(handle, str(found.number), ignored, state)
    path = local_path(dataset)
    refuse_own_output(path)
    state = source_state(dataset)
    fetch_local = fetch_zip if dataset.source == "archive" else fetch_folder
    return Fetched(str(dataset.path), None, fetch_local(path, folder, dataset), state)


def fetch_zip(path: Path, folder: Path, dataset: Dataset) -> Counter[str]:
    """Unpack the images of the zip at `path` to `folder`; return the ignored files by kind."""
    chosen = unpack_images(path, folder, dataset)
    record_groups(chosen, folder)
    return chosen.ignored


def fetch_folder(path: Path, folder: Path, dataset: Dataset) -> Counter[str]:
    """Copy the images below `path` to `folder`; return the ignored files by kind.

    They are copied, not linked, so that changes in data/raw never affect the originals. (If
    configured to, DVC replaces the copies with links to its cache.)
    """
    if path.is_file():
        with open(path, "rb") as file:
            kind = kind_of(file.read(HEAD_LENGTH)) or "a file"
        raise StudyError(
            f"{path}: is {kind}, not a folder; unpack it and name the folder, or set source: "
            "archive for a zip"
        )
    tree = walk(path)
    chosen = plan(str(path), tree.files, tree.folders, dataset)
    progress = Progress("copy", len(chosen.targets), "files")
    for done, (name, target) in enumerate(chosen.targets.items(), start=1):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path / name, folder / target)
        except (FileNotFoundError, PermissionError) as error:
            raise StudyError(
                f"{path / name}: cannot be read ({error.strerror}); correct its permissions, or "
                "leave it out with dataset.exclude"
            ) from None
        progress.update(done)
    record_groups(chosen, folder)
    return chosen.ignored + Counter({"not a file": tree.special})


def record_groups(chosen: Plan, folder: Path) -> None:
    """Write the groups of a plan, if any are given, to `folder`."""
    if chosen.groups:
        write_groups(folder / GIVEN_GROUPS.name, chosen.groups)


def source_state(dataset: Dataset) -> State:
    """Return the state of the source without fetching it: at most one small request.

    Raises:
        StudyError: the source or the table of groups is missing, or a server does not answer.
    """
    return images_state(dataset) | groups_state(dataset)


def images_state(dataset: Dataset) -> State:
    """Return the state of the images alone, see `source_state`."""
    if dataset.source == "sample":
        return {"source": "sample"} | dataset.sample.model_dump()
    if dataset.source == "kaggle":
        from tasks.download.kaggle_source import latest_version

        handle, version = kaggle_version(dataset)
        if version != "latest":
            return kaggle_state(handle, version)  # a version never changes
        found = latest_version(handle)
        return kaggle_state(handle, found.number, found.updated, found.asked)
    return local_state(dataset)


def local_state(dataset: Dataset) -> State:
    """Return the state of a zip or folder on this machine.

    Raises:
        StudyError: it is missing, or cannot be read.
    """
    try:
        state = asdict(state_of(local_path(dataset)))
    except FileNotFoundError as error:
        what = "file" if dataset.source == "archive" else "folder"
        raise StudyError(
            f"{error.filename}: there is no such {what}; correct dataset.path in the profile"
        ) from None
    except OSError as error:
        raise StudyError(
            f"{error.filename}: cannot be read ({error.strerror}); correct its permissions"
        ) from None
    return {"source": dataset.source, "path": dataset.path, **state}


def groups_state(dataset: Dataset) -> State:
    """Return {"groups": the state of the table of groups}; {} if the profile names none.

    Raises:
        StudyError: it is missing, or cannot be read.
    """
    if not dataset.groups.file:
        return {}
    try:
        state = asdict(state_of(Path(dataset.groups.file).expanduser()))
    except OSError as error:
        raise StudyError(
            f"dataset.groups.file: {error.filename}: cannot be read ({error.strerror}); correct it"
            " in the profile"
        ) from None
    return {"groups": {"path": dataset.groups.file, **state}}


def local_path(dataset: Dataset) -> Path:
    assert dataset.path is not None  # Dataset requires it for these sources
    return Path(dataset.path).expanduser()


def kaggle_version(dataset: Dataset) -> tuple[str, int | str]:
    """Return the handle, OWNER/NAME, and the version, a number or "latest"."""
    assert dataset.handle is not None and dataset.version is not None  # Dataset requires both
    return dataset.handle, dataset.version


def kaggle_state(
    handle: str, version: int | str, updated: str | None = None, asked: datetime | None = None
) -> State:
    """Return the state of a version of a data set.

    Args:
        updated: ISO date of the version; None if unknown.
        asked: when Kaggle answered; None if it was not queried.
    """
    state: State = {
        "source": "kaggle",
        "reference": handle,
        "version": version,
        "last_updated": updated,
    }
    if asked:
        state["asked"] = asked.astimezone(UTC).isoformat(timespec="seconds")
    return state


def refuse_own_output(path: Path) -> None:
    """Raise StudyError if the source is inside data/raw/, which is replaced, or contains it."""
    source, raw = path.resolve(), RAW.resolve()
    if source == raw or raw in source.parents or source in raw.parents:
        raise StudyError(
            f"dataset.path: {path}: this stage replaces {RAW}/; move the source to a place "
            "outside it"
        )


def contents_of(folder: Path) -> Contents:
    """Count and hash everything in `folder`."""
    paths = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    digest = hashlib.sha256()
    splits: dict[str, Counter[str]] = {}
    progress = Progress("checksum", len(paths), "files")
    for done, path in enumerate(paths, start=1):
        digest.update(f"{sha256_of(folder / path)}  {path}\n".encode())
        if path.startswith("images/"):
            _, split, name, _ = path.split("/")
            splits.setdefault(split, Counter())[name] += 1
        progress.update(done)
    return Contents(
        images=sum(sum(classes.values()) for classes in splits.values()),
        photographs=len([path for path in paths if path.startswith("photographs/")]),
        groups=len(set(read_groups(folder).values())),
        splits=splits,
        sha256=digest.hexdigest(),
    )
