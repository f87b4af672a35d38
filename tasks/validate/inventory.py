"""One parallel pass over all images: a row of facts and `size` x `size` RGB pixels for each. Each
file is read and decoded once.
"""

import gc
import hashlib
import io
import multiprocessing
import os
import re
import signal
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas  # noqa: F401  pyarrow would import it, in every process anew
import pyarrow as pa
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.fft import dct

from hemotune.errors import StudyError
from hemotune.file_kind import HEAD_LENGTH, kind_of
from hemotune.progress import Progress, cores

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
HASH_SIDE = 16  # 256 bits: with the usual 64, images of different cells collide
GREY_SIDE = 64  # the hash is taken of a grey image of this side, whatever the size of the pixels
# Upper eight bits of the brightest level of a 16-bit image: below, a camera of fewer bits wrote it.
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


def list_images(folder):
    """Return the sorted posix paths SPLIT/CLASS/NAME below `folder`, and the sorted class folders
    SPLIT/CLASS, empty ones too.

    Raises:
        StudyError: there is no folder, or something lies at another depth.
    """
    if not folder.is_dir():
        raise StudyError(f"{folder} is missing: run `dvc repro download`")
    paths, folders = [], []
    for split in sorted(os.scandir(folder), key=lambda entry: entry.name):
        for cell_class in os.scandir(split) if split.is_dir() else [split]:
            if not cell_class.is_dir():
                raise StudyError(
                    f"{cell_class.path}: images lie in SPLIT/CLASS folders; run `dvc repro"
                    " download` or move it there"
                )
            place = f"{split.name}/{cell_class.name}"
            folders.append(place)
            for entry in os.scandir(cell_class):
                if entry.is_dir():
                    raise StudyError(
                        f"{entry.path}: a folder inside a class folder; images lie in SPLIT/CLASS,"
                        " no deeper"
                    )
                paths.append(f"{place}/{entry.name}")
    return sorted(paths), sorted(folders)


def take_inventory(folder, paths, size, images, processes=None, meanwhile=None):
    """Decode every image once, in parallel; memory does not grow with the pixels.

    Args:
        folder: the folder that `paths` (sorted, SPLIT/CLASS/NAME) are relative to.
        size: side of the square that each image is resized to, in pixels.
        images: the .npy file to write: uint8 (N, size, size, 3); row i is paths[i], zeros where it
            cannot be decoded.
        meanwhile: a function to call in a thread while the processes decode.

    Returns:
        DataFrame with the columns of SCHEMA, row i for paths[i].

    Raises:
        StudyError: a process was killed.
        OSError: the disk is full.
    """
    offset = allocate(images, (len(paths), size, size, 3))
    length = max(1, min(64, (16 << 20) // (3 * size * size)))
    chunks = [(start, paths[start : start + length]) for start in range(0, len(paths), length)]
    progress = Progress("decode", len(paths), "images")
    # Fork: a spawned process would import pandas and scipy again. There is neither a thread nor
    # TensorFlow here at this point.
    Image.init()
    pool = ProcessPoolExecutor(
        processes or cores(),
        mp_context=multiprocessing.get_context("fork"),
        initializer=start_process,
        initargs=(os.fspath(folder), size, os.fspath(images), offset),
    )
    batches = []
    try:
        futures = [pool.submit(read_chunk, *chunk) for chunk in chunks]
        if meanwhile:  # only now: every process was forked at the first submit
            threading.Thread(target=meanwhile, daemon=True).start()
        for number, (start, chunk) in enumerate(chunks):
            batches.append(futures[number].result())
            futures[number] = None
            progress.update(start + len(chunk))
    except BrokenProcessPool:
        raise StudyError(
            "a process that decodes images was killed, most likely for lack of memory: free some"
            " and run it again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return pa.Table.from_batches(batches, SCHEMA).to_pandas()


def allocate(path, shape):
    """Make the .npy file of a uint8 array of zeros, its room on the disk taken at once; return the
    offset of its first byte.
    """
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.flush()
        if total := int(np.prod(shape)):
            os.posix_fallocate(file.fileno(), offset, total)
    return offset


def start_process(folder, size, images, offset):
    """Set up a process of the pool."""
    global STATE
    gc.freeze()  # what the parent made is not looked through again and again
    # Ctrl-C is the parent's business: no traceback from each process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of Pillow about odd metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    STATE = folder, size, os.open(images, os.O_WRONLY), offset


def read_chunk(start, paths):
    """Read some images, write their pixels at row `start` of the array, and return their rows as a
    record batch.
    """
    folder, size, descriptor, offset = STATE
    pixels = np.zeros((len(paths), size, size, 3), np.uint8)
    grey = np.zeros((len(paths), GREY_SIDE, GREY_SIDE), np.uint8)
    rows = [
        read_image(
            os.path.join(folder, path),
            size,
            memoryview(pixels[number]).cast("B"),
            memoryview(grey[number]).cast("B"),
        )
        for number, path in enumerate(paths)
    ]
    # Not a memory map: pages written through one would count as this process's memory.
    view, position = memoryview(pixels).cast("B"), offset + start * size * size * 3
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
    # A few images at a time: larger intermediate arrays are given back to the system and fetched
    # again, which takes longer than the hashes.
    hashes = [
        phash
        for few in range(0, len(paths), 16)
        for phash in perceptual_hashes(grey[few : few + 16])
    ]
    for path, row, mean, phash in zip(
        paths, rows, grey.mean(axis=(1, 2)).round(2), hashes, strict=True
    ):
        split, cell_class, _ = path.split("/", 2)
        row |= {"path": path, "split": split, "class": cell_class}
        if row["readable"]:
            row |= {"brightness": mean, "phash": phash}
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def read_image(path, size, pixels, grey):
    """Decode the file at `path` into `pixels`, size * size * 3 bytes, and `grey`, GREY_SIDE *
    GREY_SIDE bytes.

    Returns:
        dict of the file's facts, some of SCHEMA's columns; a damaged file is no exception but told
        in 'error'.
    """
    row = {"readable": False}
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        small = decode_plain_jpeg(data, size, row) or decode_any(data, size, row)
        pixels[:] = small.tobytes()
        grey[:] = (
            small.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR).tobytes()
        )
        row["readable"] = True
    except UnidentifiedImageError:
        row["error"] = why_unidentified(data)
    except OSError as error:
        row["error"] = error.strerror or str(error)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        row["error"] = str(error) or type(error).__name__
    return row


def why_unidentified(data: bytes) -> str:
    """Say what the bytes `data` are, which no decoder knows."""
    if not data:
        return "is empty"
    kind = kind_of(data[:HEAD_LENGTH])
    if kind and kind.removeprefix("a ").removesuffix(" image").upper() in FORMATS:
        return f"is {kind} with a damaged header"
    wanted = "JPEG, PNG, WebP, TIFF or BMP image"
    return f"is {kind}, not a {wanted}" if kind else f"is no {wanted}"


def recipe(size: int) -> dict:
    """Return how read_image turns a file into pixels, as JSON values, so that Pillow alone can
    repeat it.
    """
    return {
        "size": [size, size],  # width, height
        "colour": "RGB",
        "background": "white",
        "filter": "bilinear",
        "orientation": "EXIF",
        "jpeg_draft": [draft_side(size), draft_side(size)],
        "steps": [
            (
                "open the file; decode a JPEG at 1/2, 1/4 or 1/8 of its size if jpeg_draft still"
                " fits into that (Pillow: Image.draft)"
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


def decode_any(data, size, row):
    """Return the picture in the bytes `data`, an RGB image of size x size, and add what it says of
    itself to `row`.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        mode = "I;16" if image.mode.startswith("I;16") else image.mode  # whatever the byte order
        row |= {"width": width, "height": height, "format": image.format, "mode": mode}
        # An MPO is a phone's JPEG with previews behind the picture.
        if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"holds {frames} frames or pages; one still image is wanted")
        # A JPEG is decoded straight to 1/2, 1/4 or 1/8 of its size where 1.5 times the wanted one
        # is left. All of its data is still read, so that a truncated file is noticed; the pixels
        # differ by 0.4 grey levels on average (blood cells, 64 px).
        image.draft(None, (draft_side(size), draft_side(size)))
        deep = is_deep(image)
        image.load()
        orientation = orientation_of(image)
        if orientation >= 5:
            row |= {"width": height, "height": width}
        small = to_rgb(image, deep).resize((size, size), Image.Resampling.BILINEAR)
        return ImageOps.exif_transpose(small) if orientation > 1 else small


def decode_plain_jpeg(data, size, row):
    """Do what decode_any does, to the byte, for an undamaged colour JPEG without EXIF, in two
    thirds of the time.

    Returns:
        None where Pillow has to look at it: another kind of file, a rotated one, one with previews,
            a damaged or huge one.
    """
    if not data.startswith(b"\xff\xd8") or b"Exif" in data or b"MPF" in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "YCbCr" or width * height > Image.MAX_IMAGE_PIXELS:
            return None
        # To the size that Pillow's draft chooses.
        room = min(width, height) // draft_side(size)
        divisor = next((number for number in (8, 4, 2) if room >= number), 1)
        pixels = simplejpeg.decode_jpeg(
            data, min_height=-(-height // divisor), min_width=-(-width // divisor)
        )
    except ValueError:
        return None
    row |= {"width": width, "height": height, "format": "JPEG", "mode": "RGB"}
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def orientation_of(image):
    """Return the EXIF orientation, 1 to 8; 1 where there is none or it is damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet holds more than eight bits of each colour."""
    return image.format in ("PNG", "TIFF") and bool(re.search(";1[26]", str(image.tile)))


def to_rgb(image: Image.Image, deep: bool = False) -> Image.Image:
    """Return the image in mode RGB.

    Transparent pixels are laid on white; of 16 bits the upper eight are kept (Pillow clips grey
    at 255).

    Args:
        deep: whether the file holds more than eight bits of each colour.

    Raises:
        ValueError: the mode has grey levels of no fixed range, or 16 bits hold the levels of fewer.
    """
    if image.mode in ("I", "F"):
        raise ValueError(
            f"mode {image.mode} has grey levels of no fixed range; save it with 8 or 16 bits"
        )
    if deep and "transparency" in image.info:
        raise ValueError("a transparent colour in 16 bits is not supported; save it with 8 bits")
    if image.mode.startswith("I;16"):
        # Pillow would read a negative.
        if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0:
            raise ValueError("16-bit levels that count from white are not supported; save 8 bits")
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if deep and brightest(image) < DIMMEST:
        raise ValueError(
            "16 bits hold levels below a quarter of their range, as cameras of 10 to 14 bits write:"
            " too little would be left; scale the levels to the whole range, or save it with 8 bits"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def brightest(image: Image.Image) -> int:
    """Return the highest level of any colour, 0 to 255; transparency is none."""
    bands = zip(image.getbands(), image.split(), strict=True)
    return max(band.getextrema()[1] for name, band in bands if name != "A")


def perceptual_hashes(grey):
    """Return the perceptual hash in hexadecimal of each image of uint8 (n, GREY_SIDE, GREY_SIDE).

    It is imagehash.phash(image, HASH_SIDE), all images at once: which of the low frequencies of the
    cosine transform are above their median. Bits that differ between two images: 0 to 10 after
    re-encoding or scaling, 16 and more between other images, of blood cells too.
    """
    columns = dct(grey.astype(np.float32), axis=2)[:, :, :HASH_SIDE]
    frequencies = dct(columns, axis=1)[:, :HASH_SIDE].reshape(len(grey), -1)
    bits = np.packbits(frequencies > np.median(frequencies, axis=1, keepdims=True), axis=1)
    return [row.tobytes().hex() for row in bits]
