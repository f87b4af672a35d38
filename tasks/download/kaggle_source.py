"""Download a version of a Kaggle data set into a cache folder: resumed, checked, retried.

Kaggle's client signs in and returns the link to the zip (tasks/download/kaggle_client.py); the zip
is streamed here. The download of the kaggle package (2.2.5) is not used: it appends a part without
checking its Content-Range, checks neither the free space nor the zip's CRC, and importing it can
print the token.

Environment: Kaggle's own variables and files for the token (see kaggle_client.find_credentials);
HEMOTUNE_CACHE, the cache folder; HEMOTUNE_TIMEOUT, seconds without a byte after which a connection
counts as stalled; HEMOTUNE_PAUSE, seconds before the second attempt, doubled before each later one.
"""

import errno
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

import requests
from filelock import AcquireReturnProxy, FileLock, Timeout
from platformdirs import user_cache_path

from hemotune.archive import check_entries, format_bytes
from hemotune.errors import StudyError, TemporaryError
from hemotune.files import read_json, write_json
from hemotune.progress import Progress
from tasks.download.kaggle_client import (
    WEB_PAGE,
    RetryableError,
    Version,
    current_version,
    describe_failure,
    error_of_status,
    request_zip,
    seconds,
    timeout,
)

ATTEMPTS = 6  # consecutive failures without a megabyte received in between
LONGEST_WAIT = 900  # seconds; the longest pause accepted from a server
BLOCK = 1 << 14  # bytes; at most this much is lost with a connection


T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """The server's description of the whole file, kept as JSON beside the part that has arrived."""

    size: int | None = None  # bytes
    # Differs once the file has changed: a strong ETag, or the date of the last change
    validator: str | None = None


def download_zip(handle: str, version: int | str) -> tuple[Path, Version]:
    """Download the data set `handle`, OWNER/NAME, in a `version`, a number or "latest".

    A version that is complete and undamaged in the cache is not downloaded again: then no network
    is needed.

    Returns:
        The path of the zip, and its version; `asked` is when Kaggle sent the version or the zip.

    Raises:
        StudyError: the zip cannot be downloaded. What has arrived is kept for the next run.
    """
    latest = None
    if version == "latest":
        latest = retry(f"kaggle: {handle}", lambda: current_version(handle))
    number = latest.number if latest else int(version)
    folder = cache_folder() / handle / str(number)
    path = folder / f"{handle.split('/')[1]}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if path.exists() and (problem := damage(path)):
                print(f"kaggle: {path} is damaged ({problem}); downloading it again", flush=True)
                path.unlink()
            if not path.exists():
                download_whole(handle, number, path)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise StudyError(
            f"{error.filename}: cannot be written ({error.strerror}); set HEMOTUNE_CACHE to a "
            "folder of your own"
        ) from None
    print(f"kaggle: {handle} version {number}: {path} ({format_bytes(length(path))})", flush=True)
    came = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return path, latest or Version(number, None, came)


def latest_version(handle: str) -> Version:
    """Return the current version of OWNER/NAME, in one small request.

    Raises:
        StudyError: there is no valid response. There is no second attempt: a watch checks again
            later.
    """
    try:
        return current_version(handle)
    except RetryableError as problem:
        raise StudyError(f"kaggle: {handle}: {problem}") from None


def cache_folder() -> Path:
    """Return the folder that holds OWNER/NAME/VERSION/NAME.zip: HEMOTUNE_CACHE, else hemotune in
    the user's cache folder.
    """
    folder = os.environ.get("HEMOTUNE_CACHE") or user_cache_path("hemotune")
    return Path(folder).expanduser().resolve()


def download_whole(handle: str, version: int, path: Path) -> None:
    """Download the zip to `path`; download it again if it arrives damaged.

    Raises:
        StudyError: it cannot be downloaded.
        TemporaryError: it arrived damaged twice, or not within the attempts.
    """
    partial = path.with_name(f"{path.name}.partial")
    what = f"kaggle: {handle} version {version}"
    for remaining in ("; downloading it again", ""):
        retry(what, lambda: transfer(handle, version, partial), lambda: length(partial))
        problem = damage(partial)
        if not problem:
            os.replace(partial, path)
            forget(partial)
            return
        print(f"kaggle: the download is damaged ({problem}){remaining}", flush=True)
        forget(partial)
    raise TemporaryError(
        f"{what}: arrived damaged twice ({problem}); try later, or another network"
    )


def retry(what: str, attempt: Callable[[], T], gained: Callable[[], int] = lambda: 0) -> T:
    """Return the result of `attempt`, called until it raises no RetryableError.

    Each pause is twice the previous one, unless the server requests a pause.

    Args:
        what: what is attempted, for messages.
        gained: returns the number of bytes received. Each further megabyte resets the count of
            attempts, so that a download over a poor connection completes eventually.

    Raises:
        TemporaryError: too many consecutive failures, or the server requests too long a pause.
    """
    failures, before = 0, gained()
    while True:
        try:
            return attempt()
        except RetryableError as problem:
            if gained() - before >= 1_000_000:
                failures, before = 0, gained()
            failures += 1
            pause = seconds("HEMOTUNE_PAUSE", 2) * 2 ** (failures - 1)
            wait = pause if problem.wait is None else problem.wait
            if failures == ATTEMPTS or wait > LONGEST_WAIT:
                why = (
                    f"the server requests a pause of {round(wait, 1):g} s"
                    if wait > LONGEST_WAIT
                    else f"gave up after {failures} attempts"
                )
                kept = f"; {kept_text(gained())}" if gained() else ""
                raise TemporaryError(
                    f"{what}: {problem}; {why}. Check the network and try again later{kept}"
                ) from None
            print(
                f"{what}: {problem}; attempt {failures + 1} of {ATTEMPTS} in {round(wait, 1):g} s",
                flush=True,
            )
            time.sleep(wait)


def locked(folder: Path) -> AcquireReturnProxy[FileLock]:
    """Take the lock of a folder and return it, to be released by a `with` block: if two checkouts
    download at once, the second waits for the zip.

    The lock is released when its process ends.
    """
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        print(f"kaggle: another run is downloading to {folder}; waiting for it", flush=True)
        return lock.acquire()


def transfer(handle: str, version: int, partial: Path) -> None:
    """Try once to complete the file `partial`, from the byte where it ends.

    Bytes are only appended if the server confirms that they belong to the same file.

    Raises:
        RetryableError: it is not complete yet.
        StudyError: another attempt would fail too.
    """
    have, known = length(partial), read_note(partial)
    if have and have == known.size:
        return  # interrupted between the last byte and the check
    headers = {"Accept-Encoding": "identity"}
    if have and known.validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    answer = request_zip(handle, version)
    try:
        if answer.is_redirect:
            # Without the token: the link is signed and points to another host.
            link = urljoin(answer.url, answer.headers.get("Location", ""))
            answer = requests.get(link, headers=headers, stream=True, timeout=timeout())
        with answer as response:
            prepare_partial(response, partial, f"{handle} version {version}")
            receive(response, partial)
    except requests.RequestException as error:
        raise RetryableError(describe_failure(error)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise disk_full(partial, os.strerror(error.errno)) from None
    except KeyboardInterrupt:
        print(f"\nkaggle: {partial}: {kept_text(length(partial))}", flush=True)
        raise


def prepare_partial(response: requests.Response, partial: Path, what: str) -> None:
    """Check the headers of a response, and truncate `partial` to where its body starts.

    If that is its first byte, write the server's description of the whole file beside it.

    Raises:
        RetryableError, StudyError: the body is not (a part of) the zip.
    """
    status, headers = response.status_code, response.headers
    have, known = length(partial), read_note(partial)
    if status == 416:
        forget(partial)
        raise RetryableError("the partial file is longer than the one on the server; discarded it")
    if status in (401, 403, 404, 410):
        raise RetryableError(f"the link to the zip was refused ({status}); requesting a new one")
    if status not in (200, 206):
        raise error_of_status(status, response, what, signed_in=True)
    if "html" in headers.get("Content-Type", ""):
        raise StudyError(f"kaggle: {what}: {WEB_PAGE}")
    etag = headers.get("ETag", "")  # a weak one (W/) does not guarantee the same bytes
    validator = etag if etag.startswith('"') else headers.get("Last-Modified")
    if status == 206:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if not part or int(part[1]) != have or RemoteFile(int(part[2]), validator) != known:
            forget(partial)
            raise RetryableError(
                "the file on the server changed between two parts; discarded the first"
            )
        return
    if have:
        print(
            f"kaggle: {what}: the server sends the whole file again; discarding the "
            f"{format_bytes(have)} that had arrived",
            flush=True,
        )
    size = headers.get("Content-Length", "")
    partial.write_bytes(b"")  # before the note, which never describes the bytes of another file
    write_json(
        note_of(partial), asdict(RemoteFile(int(size) if size.isdigit() else None, validator))
    )


def receive(response: requests.Response, partial: Path) -> None:
    """Append the body, which starts where `partial` ends, with progress.

    Raises:
        RetryableError: the body ended early.
        StudyError: the disk has too little space.
    """
    start, total = length(partial), read_note(partial).size
    left = total - start if total is not None else 0
    free = shutil.disk_usage(partial.parent).free
    if left > free:
        raise disk_full(
            partial, f"{format_bytes(left)} still to download, {format_bytes(free)} free"
        )
    scale, unit = (1e6, "MB") if left > 1e7 else (1e3, "kB")
    if start:
        print(
            f"kaggle: resuming at {format_bytes(start)} of {format_bytes(start + left)}", flush=True
        )
    progress, done = Progress("download", ceil(left / scale), unit), 0
    with open(partial, "ab") as file:
        for block in response.iter_content(BLOCK):
            file.write(block)
            done += len(block)
            if total is not None:
                progress.update(ceil(done / scale))
    if total is not None and length(partial) != total:
        raise RetryableError(f"the body ended at {length(partial)} of {total} bytes")


def disk_full(partial: Path, why: str) -> StudyError:
    return StudyError(
        f"{partial}: the disk is full ({why}); free some space, or set HEMOTUNE_CACHE to a folder "
        f"on another disk; {kept_text(length(partial))}"
    )


def kept_text(count: int) -> str:
    return f"the {format_bytes(count)} that have arrived are kept, and the next run resumes there"


def damage(path: Path) -> str:
    """Return what is wrong with a zip, or "". Every entry is read to check its CRC.

    Raises:
        StudyError: the zip is undamaged but dangerous, so downloading it again would not help.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            check_entries(path, opened.infolist())
            bad = opened.testzip()
            return f"the CRC of {bad} does not match" if bad else ""
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        UnicodeDecodeError,
        NotImplementedError,
    ) as error:
        return str(error)


def length(path: Path) -> int:
    """Return the length of a file in bytes; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def note_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def read_note(partial: Path) -> RemoteFile:
    """Return the server's description of the file; an empty RemoteFile if it is unknown."""
    try:
        return RemoteFile(**read_json(note_of(partial)))
    except (FileNotFoundError, ValueError, TypeError):
        return RemoteFile()


def forget(partial: Path) -> None:
    """Delete a partial file and its note: each is useless without the other."""
    partial.unlink(missing_ok=True)
    note_of(partial).unlink(missing_ok=True)
