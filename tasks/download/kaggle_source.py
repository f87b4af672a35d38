"""Fetch a version of a Kaggle data set into a cache folder: resumed, checked, retried.

Kaggle's client signs in and names the link to the zip (tasks/download/kaggle_client.py); the body
is streamed here. The client's own download waits for ever on a silent server, ignores Retry-After,
gives up on the first 5xx and never looks at the zip's CRC.

Environment: Kaggle's own variables and files for the token (see kaggle_client.connect);
HEMOTUNE_CACHE, the cache folder; HEMOTUNE_TIMEOUT, seconds without a byte until a connection counts
as stalled; HEMOTUNE_PAUSE, seconds before the second attempt, doubled before each further one.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import zipfile
import zlib
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from urllib.parse import urljoin

from hemotune.errors import PassingError, StudyError
from hemotune.files import read_json, write_json
from hemotune.progress import Progress
from tasks.download.archive import check_entries, size
from tasks.download.kaggle_client import (
    WEB_PAGE,
    Again,
    current_version,
    link_to_zip,
    no_connection,
    refusal,
    seconds,
    timeout,
)

ATTEMPTS = 6  # in a row without a megabyte gained
LONGEST_WAIT = 900  # seconds that a server may ask us to wait


def fetch(handle, version):
    """Fetch the data set `handle`, "owner/name", in a `version`, a number or "latest".

    A version that lies in the cache complete and undamaged is not asked for again: then no network
    is needed.

    Returns:
        (path of the zip, number of the version, ISO date of it or None where Kaggle was not asked,
        when Kaggle gave the version or zip)

    Raises:
        StudyError: whatever keeps the zip from coming, with what to do about it. What came is kept
            for the next run.
    """
    updated = asked = None
    if version == "latest":
        version, updated = patiently(f"kaggle: {handle}", lambda: current_version(handle))
        asked = datetime.now(UTC)
    name = handle.split("/")[1]
    folder = cache_folder() / handle / str(version)
    path, partial = folder / f"{name}.zip", folder / f"{name}.zip.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            if path.exists() and (problem := damage(path)):
                print(f"kaggle: {path} is damaged ({problem}); fetching it anew", flush=True)
                path.unlink()
            for attempt in range(2):
                if path.exists():
                    break
                patiently(
                    f"kaggle: {handle} version {version}",
                    lambda: transfer(handle, version, partial),
                    lambda: length(partial),
                )
                problem = damage(partial)
                if not problem:
                    os.replace(partial, path)
                else:
                    print(
                        "kaggle: what came is damaged"
                        f" ({problem}){'; fetching it anew' if attempt == 0 else ''}",
                        flush=True,
                    )
                forget(partial)
            if not path.exists():
                raise PassingError(
                    f"kaggle: {handle} version {version}: came damaged twice ({problem}); try"
                    " later, or another network"
                )
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise StudyError(
            f"{error.filename}: cannot be written ({error.strerror}); set HEMOTUNE_CACHE to a"
            " folder of your own"
        ) from None
    print(f"kaggle: {handle} version {version}: {path} ({size(length(path))})", flush=True)
    return path, int(version), updated, asked or datetime.fromtimestamp(path.stat().st_mtime, UTC)


def latest_version(handle):
    """Return (number, ISO date of the last update) of the current version of "owner/name", in one
    small request.

    Raises:
        StudyError: no answer or no good one. There is no second attempt: who watches asks again
            next time.
    """
    try:
        return current_version(handle)
    except Again as problem:
        raise StudyError(f"kaggle: {handle}: {problem}") from None


def cache_folder():
    """Return the folder that holds OWNER/NAME/VERSION/NAME.zip: HEMOTUNE_CACHE, else hemotune in
    the user's cache folder.
    """
    from platformdirs import user_cache_path

    return (
        Path(os.environ.get("HEMOTUNE_CACHE") or user_cache_path("hemotune")).expanduser().resolve()
    )


def patiently(what, attempt, gained=lambda: 0):
    """Call `attempt` until it no longer raises Again: with growing pauses, or as long as the server
    says.

    The count starts anew whenever `gained()` (bytes) grew by a megabyte: a bad line takes long, but
    arrives.
    """
    failures, before = 0, gained()
    while True:
        try:
            return attempt()
        except Again as problem:
            if gained() - before >= 1_000_000:
                failures, before = 0, gained()
            failures += 1
            wait = (
                problem.wait
                if problem.wait is not None
                else seconds("HEMOTUNE_PAUSE", 2) * 2 ** (failures - 1)
            )
            if failures == ATTEMPTS or wait > LONGEST_WAIT:
                why = (
                    f"gave up after {failures} attempts"
                    if wait <= LONGEST_WAIT
                    else f"it asks for a pause of {round(wait, 1):g} s"
                )
                kept = (
                    f"; the {size(gained())} that came are kept, the next run goes on from there"
                    if gained()
                    else ""
                )
                raise PassingError(
                    f"{what}: {problem}; {why}. Check the network and try again later{kept}"
                ) from None
            print(
                f"{what}: {problem}; attempt {failures + 1} of {ATTEMPTS} in {round(wait, 1):g} s",
                flush=True,
            )
            time.sleep(wait)


@contextlib.contextmanager
def only_one(folder):
    """Two checkouts may start at once: the second waits, and finds the zip. The lock ends with its
    process.
    """
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"kaggle: another run is downloading to {folder}; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def transfer(handle, version, partial):
    """One attempt to complete the file `partial`, from the byte where it ends.

    Beside it lies what the server said of the whole: its size and its validator, the ETag or the
    date by which a changed file is told. Bytes are only appended when the server confirms both.

    Raises:
        Again: not complete yet.
        StudyError: another attempt would not help.
    """
    import requests

    have, known = length(partial), whole(partial)
    if have and have == known.get("size"):
        return  # stopped after the last byte and before the check
    asked = {"Accept-Encoding": "identity"}
    if have and known.get("validator"):
        asked |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    answer = link_to_zip(handle, version)
    try:
        # No token goes along: the link is signed, and leads to another host.
        link = urljoin(answer.url, answer.headers.get("Location", ""))
        with (
            requests.get(link, headers=asked, stream=True, timeout=timeout())
            if answer.is_redirect
            else answer
        ) as response:
            start, total = begin(response, partial, have, known, f"{handle} version {version}")
            receive(response, partial, start, total)
    except requests.RequestException as error:
        raise Again(no_connection(error)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise no_room(partial, error.strerror) from None
    except KeyboardInterrupt:
        print(
            f"\nkaggle: {size(length(partial))} are kept in {partial}; the next run goes on from"
            " there",
            flush=True,
        )
        raise
    if total is not None and length(partial) != total:
        raise Again(f"the body ended at {length(partial)} of {total} bytes")


def begin(response, partial, have, known, what):
    """Judge the head of a response; return (byte at which its body starts, size of the whole or
    None). Makes `partial` fit.
    """
    status, headers = response.status_code, response.headers
    if status == 416:
        forget(partial)
        raise Again("what is here is longer than the file on the server, so it is thrown away")
    if status in (401, 403, 404, 410):
        raise Again(f"the link to the zip was refused ({status}), so a new one is asked for")
    if status not in (200, 206):
        raise refusal(status, response, what, True)
    if "html" in headers.get("Content-Type", ""):
        raise StudyError(f"kaggle: {what}: {WEB_PAGE}")
    etag = headers.get("ETag", "")  # a weak one (W/) does not promise the same bytes
    said = {
        "validator": etag if etag.startswith('"') else headers.get("Last-Modified"),
        "size": None,
    }
    if status == 206:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        said["size"] = int(part[2]) if part else None
        if not part or int(part[1]) != have or said != known:
            forget(partial)
            raise Again(
                "the file on the server changed between two parts, so the first is thrown away"
            )
        return have, said["size"]
    if have:
        print(
            f"kaggle: {what}: the server sends the whole anew; {size(have)} that were here are"
            " thrown away",
            flush=True,
        )
    if headers.get("Content-Length", "").isdigit():
        said["size"] = int(headers["Content-Length"])
    partial.write_bytes(b"")  # before the note: a note never describes bytes of another file
    write_json(note_of(partial), said)
    return 0, said["size"]


def receive(response, partial, start, total):
    """Append the body to `partial`, with progress."""
    left = total - start if total is not None else 0
    free = shutil.disk_usage(partial.parent).free
    if left > free:
        raise no_room(partial, f"{size(left)} are still to come, {size(free)} are free")
    scale, unit = (1e6, "MB") if left > 1e7 else (1e3, "kB")
    if start:
        print(f"kaggle: going on at {size(start)} of {size(total)}", flush=True)
    progress, done = Progress("download", ceil(left / scale), unit), 0
    with open(partial, "ab") as file:
        for block in response.iter_content(1 << 14):  # what a broken connection may lose
            file.write(block)
            done += len(block)
            if total is not None:
                progress.update(ceil(done / scale))


def no_room(partial, why):
    return StudyError(
        f"{partial}: no room on the disk ({why}); free some, or set HEMOTUNE_CACHE to a folder on"
        f" another one. The {size(length(partial))} that came are kept, the next run goes on from"
        " there"
    )


def damage(path):
    """Return what is wrong with a zip, all of whose entries are read and compared with their CRC,
    or "".

    Raises:
        StudyError: it is whole, but dangerous: then fetching it again would not help.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            check_entries(path, opened.infolist())
            bad = opened.testzip()
            return f"the CRC of {bad} does not fit" if bad else ""
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        UnicodeDecodeError,
        NotImplementedError,
    ) as error:
        return str(error)


def length(path):
    return path.stat().st_size if path.exists() else 0


def note_of(partial):
    return partial.with_name(partial.name + ".json")


def whole(partial):
    """Return what the server said of the whole file when its first part came: {"validator",
    "size"}, or {}.
    """
    try:
        return read_json(note_of(partial))
    except (FileNotFoundError, ValueError):
        return {}


def forget(partial):
    """Delete what came, and its note: neither means anything without the other."""
    partial.unlink(missing_ok=True)
    note_of(partial).unlink(missing_ok=True)
