"""One parallel pass over all images: a row of facts and `size` x `size` RGB pixels for each.

Each file is read and decoded once.
"""

import gc
import hashlib
import io
import itertools
import math
import multiprocessing
import os
import re
import signal
import threading
import warnings
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
import simplejpeg
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from scipy.fft import dct

from hemotune.errors import StudyError
from hemotune.file_kind import HEAD_LENGTH, kind_of
from hemotune.progress import Progress, cores

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
HASH_SIDE = 16  # 256 bits: with the usual 64, images of different cells collide
GREY_SIDE = 64  # pixels; the hash is that of a grey image of this side, whatever the size of images
# Upper eight bits of the brightest level of a 16-bit image; below this, the camera had fewer bits.
DIMMEST = 64
PHOTOMETRIC = 0x0106  # the TIFF tag; 0: white is zero
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap width and height

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
class ImageFacts:
    """What is known about one file; the fields are columns of SCHEMA.

    They are filled in while the file is read; for a damaged file, the later ones stay None.
    """

    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
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
) -> pd.DataFrame:
    """Decode every image once, in parallel; memory does not grow with the number of images.

    Args:
        folder: the folder that `paths` (sorted, SPLIT/CLASS/NAME) are relative to.
        size: side of the square that each image is resized to, pixels.
        images: the .npy file to write: uint8 (N, size, size, 3); row i is paths[i], zeros if it
            cannot be decoded.
        meanwhile: a function to call in a thread while the processes decode.

    Returns:
        The columns of SCHEMA, row i for paths[i].

    Raises:
        StudyError: a process was killed.
        OSError: the disk is full.
    """
    length = max(1, min(64, (16 << 20) // (3 * size * size)))
    starts = range(0, len(paths), length)
    chunks = [paths[start : start + length] for start in starts]
    progress = Progress("decode", len(paths), "images")
    # Fork: a spawned process would import pandas again. No thread and no TensorFlow runs here yet.
    Image.init()
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes or cores(), fork, initializer=start_process)
    batches = []
    with open(images, "wb") as file:
        job = Job(folder, size, file.fileno(), allocate(file, (len(paths), size, size, 3)))
        try:
            results = pool.map(read_chunk, itertools.repeat(job), starts, chunks)
            if meanwhile:  # only now: map has forked all processes
                threading.Thread(target=meanwhile, daemon=True).start()
            for start, batch in zip(starts, results, strict=True):
                batches.append(batch)
                progress.update(start + len(batch))
        except BrokenProcessPool:
            raise StudyError(
                "a decoding process was killed, probably because memory ran out: free some memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    rows: pd.DataFrame = pa.Table.from_batches(batches, SCHEMA).to_pandas()
    return rows


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
    warnings.simplefilter("ignore")  # Pillow's, about odd metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def read_chunk(job: Job, start: int, paths: Sequence[str]) -> pa.RecordBatch:
    """Read some images, write their pixels from row `start` of the array, and return their rows."""
    pixels = np.zeros((len(paths), job.size, job.size, 3), np.uint8)
    grey = np.zeros((len(paths), GREY_SIDE, GREY_SIDE), np.uint8)
    facts = [
        read_image(os.path.join(job.folder, path), pixels[number], grey[number])
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
    path: str | Path, pixels: npt.NDArray[np.uint8], grey: npt.NDArray[np.uint8]
) -> ImageFacts:
    """Decode a file into `pixels` (size, size, 3) and `grey` (GREY_SIDE, GREY_SIDE).

    A damaged file raises no exception: its facts contain the error.
    """
    facts, data = ImageFacts(), b""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        facts.bytes, facts.sha256 = len(data), hashlib.sha256(data).hexdigest()
        size = len(pixels)
        small = decode_plain_jpeg(data, size, facts) or decode_any(data, size, facts)
        small_grey = small.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR)
        # As bytes: numpy would copy them twice.
        pixels.data.cast("B")[:] = small.tobytes()
        grey.data.cast("B")[:] = small_grey.tobytes()
        facts.readable = True
    except UnidentifiedImageError:
        facts.error = why_unidentified(data)
    except OSError as error:
        facts.error = error.strerror or str(error)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        facts.error = str(error) or type(error).__name__
    return facts


def why_unidentified(data: bytes) -> str:
    """Return what is wrong with the bytes `data`, which no decoder recognizes."""
    if not data:
        return "is empty"
    kind = kind_of(data[:HEAD_LENGTH])
    if kind and kind.removeprefix("a ").removesuffix(" image").upper() in FORMATS:
        return f"is {kind} with a damaged header"
    supported = "a JPEG, PNG, WebP, TIFF or BMP image"
    return f"is {kind}, not {supported}" if kind else f"is not {supported}"


def recipe(size: int) -> dict[str, str | list[int] | list[str]]:
    """Return how a file becomes pixels, as JSON values, so that Pillow alone can repeat it."""
    return {
        "size": [size, size],  # width, height
        "colour": "RGB",
        "background": "white",
        "filter": "bilinear",
        "orientation": "EXIF",
        "jpeg_draft": [draft_side(size), draft_side(size)],
        "steps": [
            (
                "open the file; decode a JPEG at 1/2, 1/4 or 1/8 of its size if jpeg_draft still "
                "fits into that (Pillow: Image.draft)"
            ),
            "keep the upper eight bits of 16-bit grey levels",
            "lay transparent pixels on background and convert to colour",
            "resize to size (width, height) with filter, whatever the proportions",
            "rotate or mirror as the orientation tag says",
            "give the model uint8 (batch, height, width, 3), 0 to 255: it scales them itself",
        ],
    }


def draft_side(size: int) -> int:
    """Return the shortest side, in pixels, that a JPEG is decoded to before it is resized to
    `size`.
    """
    return 3 * size // 2


def decode_any(data: bytes, size: int, facts: ImageFacts) -> Image.Image:
    """Return the image in the bytes `data` as RGB of size x size pixels, and fill in its facts."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        facts.width, facts.height, facts.format = width, height, image.format
        # Whatever the byte order
        facts.mode = "I;16" if image.mode.startswith("I;16") else image.mode
        # An MPO is a phone's JPEG with previews after the picture.
        if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"holds {frames} frames or pages, not one still image")
        # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves at least 1.5 times `size`.
        # All of its data is still read, so that a truncated file is noticed; the pixels differ by
        # 0.4 grey levels on average (blood cells, 64 px).
        image.draft(None, (draft_side(size), draft_side(size)))
        deep = is_deep(image)
        image.load()
        orientation = orientation_of(image)
        if orientation >= 5:
            facts.width, facts.height = height, width
        small = to_rgb(image, deep).resize((size, size), Image.Resampling.BILINEAR)
        return ImageOps.exif_transpose(small) if orientation > 1 else small


def decode_plain_jpeg(data: bytes, size: int, facts: ImageFacts) -> Image.Image | None:
    """Decode an undamaged colour JPEG without EXIF: the same pixels as decode_any, in two thirds of
    the time.

    Returns:
        None if the file needs Pillow: not a JPEG, rotated, with previews, damaged or huge.
    """
    if not data.startswith(b"\xff\xd8") or b"Exif" in data or b"MPF" in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "YCbCr" or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        # The size that Pillow's draft would choose
        room = min(width, height) // draft_side(size)
        divisor = next((number for number in (8, 4, 2) if room >= number), 1)
        pixels = simplejpeg.decode_jpeg(
            data, min_height=-(-height // divisor), min_width=-(-width // divisor)
        )
    except ValueError:
        return None
    facts.width, facts.height, facts.format, facts.mode = width, height, "JPEG", "RGB"
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or it is damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return int(orientation) if orientation in range(1, 9) else 1


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded yet has more than eight bits per colour."""
    return image.format in ("PNG", "TIFF") and bool(re.search(";1[26]", str(image.tile)))


def to_rgb(image: Image.Image, deep: bool = False) -> Image.Image:
    """Return the image in mode RGB.

    Transparent pixels become white; 16-bit levels keep their upper eight bits (Pillow would clip
    grey at 255).

    Args:
        deep: whether the file has more than eight bits per colour.

    Raises:
        ValueError: the grey levels have no fixed range, or use only a part of 16 bits.
    """
    if image.mode in ("I", "F"):
        raise ValueError(
            f"mode {image.mode} has grey levels without a fixed range; save it with 8 or 16 bits"
        )
    if deep and "transparency" in image.info:
        raise ValueError("a transparent colour in 16 bits is not supported; save it with 8 bits")
    if image.mode.startswith("I;16"):
        # Pillow would read a negative.
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0:
            raise ValueError(
                "16-bit levels with white as zero are not supported; save it with 8 bits"
            )
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if deep and brightest(image) < DIMMEST:
        raise ValueError(
            "16-bit levels below a quarter of their range, as from cameras with 10 to 14 bits, "
            "would become nearly black; scale the levels to the full range, or save it with 8 bits"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def brightest(image: Image.Image) -> int:
    """Return the highest level of any colour, 0 to 255; transparency is not a colour."""
    bands = zip(image.getbands(), image.split(), strict=True)
    colours = [np.asarray(band) for name, band in bands if name != "A"]
    return max(int(levels.max()) for levels in colours)


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
