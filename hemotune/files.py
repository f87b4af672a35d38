"""Files appear whole or not at all: write to a temporary name beside the target, then rename."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path


@contextlib.contextmanager
def new_file(path):
    """Yield a temporary path that becomes `path` when the block ends, and vanishes when it
    fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: pandas, numpy, matplotlib and Keras choose the format by it.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def need_room(folder, size):
    """Fail as a write would if fewer than `size` bytes are free: for libraries that a full disk
    brings down without a word, as HDF5.

    Raises:
        OSError: ENOSPC, the disk is full.
    """
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextlib.contextmanager
def new_folder(path):
    """Yield an empty temporary folder that replaces `path` when the block ends, and vanishes when
    it fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path, text):
    """Write `text` as UTF-8, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write `value` as indented JSON with sorted keys: the same value gives the same bytes."""
    write_text(
        path,
        json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
    )


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_of(path):
    """Return the hexadecimal sha256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
