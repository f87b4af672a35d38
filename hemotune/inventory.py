"""One parallel pass over all images: a row of facts and `size` x `size` RGB pixels for each.

Each file is read and decoded once.
"""

import gc
import hashlib
import itertools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd  # also because pyarrow would import it again in every process
import pyarrow as pa
from PIL import Image
from scipy.fft import dct

from hemotune.errors import StudyError
from hemotune.images import (
    GREY_SIDE,
    FileFacts,
    UnreadableImageError,
    decode,
    small_grey,
    start_decoding,
)
from hemotune.progress import Progress, cores
from hemotune.settings.images import Fit

HASH_SIDE = 16  # 256 bits: with the usual 64, images of different cells collide

SCHEMA = pa.schema(
    {
        "path": pa.string(),  # posix, relative to data/raw/images: SPLIT/CLASS/NAME
        "split": pa.string(),
        "class": pa.string(),
        "width": pa.int32(),  # as displayed, EXIF orientation applied
        "height": pa.int32(),
        "format": pa.string(),
        "mode": pa.string(),  # as stored: RGB, L, CMYK, I;16 ...
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "readable": pa.bool_(),  # fully decoded
        "error": pa.string(),
        "brightness": pa.float32(),  # mean grey level, 0 to 255
        "phash": pa.string(),  # 256 bits in hexadecimal
    }
)


@dataclass
class ImageFacts(FileFacts):
    """What is known about one file of the data set; the fields are columns of SCHEMA."""

    bytes: int | None = None
    sha256: str | None = None
    readable: bool = False
    error: str | None = None
    brightness: float | None = None
    phash: str | None = None


@dataclass(frozen=True)
class Job:
    """The parameters of all processes of the pool."""

    folder: Path  # that the paths are relative to
    size: int  # side of the decoded images, pixels
    fit: Fit  # how they become squares
    descriptor: int  # the open .npy file, which forked processes share
    offset: int  # of its first pixel, bytes


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted posix paths SPLIT/CLASS/NAME below `folder`, and the sorted class folders
    SPLIT/CLASS, empty ones too.

    Raises:
        StudyError: there is no such folder, or something in it is at another depth.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder} is missing: run `dvc repro download`")
    paths, folders = [], []
    for split in sorted(os.scandir(folder), key=lambda entry: entry.name):
        for cell_class in list(os.scandir(split)) if split.is_dir() else [split]:
            if not cell_class.is_dir():
                raise StudyError(
                    f"{cell_class.path}: images must be in SPLIT/CLASS folders; run `dvc repro "
                    "download` or move it there"
                )
            place = f"{split.name}/{cell_class.name}"
            folders.append(place)
            for entry in os.scandir(cell_class):
                if entry.is_dir():
                    raise StudyError(
                        f"{entry.path}: a folder inside a class folder; images must be directly in "
                        "SPLIT/CLASS"
                    )
                paths.append(f"{place}/{entry.name}")
    return sorted(paths), sorted(folders)


def take_inventory(
    folder: Path,
    paths: Sequence[str],
    size: int,
    images: Path,
    processes: int | None = None,
    meanwhile: Callable[[], object] | None = None,
    fit: Fit = "squeeze",
) -> pd.DataFrame:
    """Decode every image once, in parallel; memory does not grow with the number of images.

    Args:
        folder: the folder that `paths` (sorted, SPLIT/CLASS/NAME) are relative to.
        size: side of the square that each image becomes, pixels.
        images: the .npy file to write: uint8 (N, size, size, 3); row i is paths[i], zeros if it
            cannot be decoded.
        meanwhile: a function to call in a thread while the processes decode.
        fit: how an image becomes a square, as in `hemotune.images.to_square`.

    Returns:
        The columns of SCHEMA, row i for paths[i].

    Raises:
        StudyError: a process was killed.
        OSError: the disk is full.
    """
    chunks = chunks_of(paths, size)
    progress = Progress("decode", len(paths), "images")
    # Fork: a spawned process would import pandas again. No thread and no TensorFlow runs here yet.
    Image.init()
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes or cores(), fork, initializer=start_process)
    batches = []
    with open(images, "wb") as file:
        offset = allocate(file, (len(paths), size, size, 3))
        job = Job(folder, size, fit, file.fileno(), offset)
        try:
            results = pool.map(read_chunk, itertools.repeat(job), chunks, chunks.values())
            if meanwhile:  # only now: map has forked all processes
                threading.Thread(target=meanwhile, daemon=True).start()
            for start, batch in zip(chunks, results, strict=True):
                batches.append(batch)
                progress.update(start + len(batch))
        except BrokenProcessPool:
            problem = "a decoding process was killed, probably because memory ran out"
            raise StudyError(f"{problem}: free some memory") from None
        finally:
            pool.shutdown(cancel_futures=True)
    rows: pd.DataFrame = pa.Table.from_batches(batches, SCHEMA).to_pandas()
    return rows


def chunks_of(paths: Sequence[str], size: int) -> dict[int, Sequence[str]]:
    """Return paths in parts whose pixels take little memory, by the row of the first."""
    length = max(1, min(64, (16 << 20) // (3 * size * size)))
    return {start: paths[start : start + length] for start in range(0, len(paths), length)}


def allocate(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """Make an empty file a .npy file of uint8 zeros, with all of its disk space; return the offset
    of its first value.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    offset = file.tell()
    if total := math.prod(shape):
        os.posix_fallocate(file.fileno(), offset, total)
    return offset


def start_process() -> None:
    """Set up a process of the pool."""
    gc.freeze()  # the parent's objects are not traversed in every collection
    # The parent handles Ctrl-C: no traceback from each process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_decoding()


def read_chunk(job: Job, start: int, paths: Sequence[str]) -> pa.RecordBatch:
    """Read some images, write their pixels from row `start` of the array, and return their rows."""
    pixels = np.zeros((len(paths), job.size, job.size, 3), np.uint8)
    grey = np.zeros((len(paths), GREY_SIDE, GREY_SIDE), np.uint8)
    facts = [
        read_image(os.path.join(job.folder, path), pixels[number], grey[number], job.fit)
        for number, path in enumerate(paths)
    ]
    # Not a memory map: pages written through one would count as memory of this process.
    view, position = pixels.data.cast("B"), job.offset + start * pixels[0].nbytes
    while view:
        written = os.pwrite(job.descriptor, view, position)
        view, position = view[written:], position + written
    # A few images at a time: larger intermediate arrays would be freed and allocated again, which
    # takes longer than the hashes.
    hashes = [
        phash
        for few in range(0, len(paths), 16)
        for phash in perceptual_hashes(grey[few : few + 16])
    ]
    rows = []
    brightness = grey.mean(axis=(1, 2)).round(2)
    for path, one, mean, phash in zip(paths, facts, brightness, hashes, strict=True):
        split, cell_class, _ = path.split("/", 2)
        if one.readable:
            one.brightness, one.phash = mean, phash
        rows.append({"path": path, "split": split, "class": cell_class, **vars(one)})
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def read_image(
    path: str | Path,
    pixels: npt.NDArray[np.uint8],
    grey: npt.NDArray[np.uint8],
    fit: Fit = "squeeze",
) -> ImageFacts:
    """Decode a file into `pixels` (size, size, 3) and `grey` (GREY_SIDE, GREY_SIDE).

    A damaged file raises no exception: its facts contain the error.
    """
    facts = ImageFacts()
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        facts.bytes, facts.sha256 = len(data), hashlib.sha256(data).hexdigest()
        small = decode(data, len(pixels), facts, fit)
        # As bytes: numpy would copy them twice.
        pixels.data.cast("B")[:] = small.tobytes()
        grey.data.cast("B")[:] = small_grey(small).tobytes()
        facts.readable = True
    except OSError as error:
        facts.error = error.strerror or str(error)
    except UnreadableImageError as error:
        facts.error = str(error)
    return facts


def perceptual_hashes(grey: npt.NDArray[np.uint8]) -> list[str]:
    """Return the perceptual hash in hexadecimal of each image of `grey` (N, GREY_SIDE, GREY_SIDE).

    It is imagehash.phash(image, HASH_SIDE) for all images at once: which of the low frequencies of
    the cosine transform are above their median. Bits that differ between two images: 0 to 10 after
    re-encoding or scaling, 16 or more between different images, also of blood cells.
    """
    columns = dct(grey.astype(np.float32), axis=2)[:, :, :HASH_SIDE]
    frequencies = dct(columns, axis=1)[:, :HASH_SIDE].reshape(len(grey), -1)
    bits = np.packbits(frequencies > np.median(frequencies, axis=1, keepdims=True), axis=1)
    return [row.tobytes().hex() for row in bits]
