"""Image files and their pixels: how a file is opened, turned, converted to RGB and resized.

Every image that a network sees comes through `decode`, in training and in use.
"""

import io
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from hemotune.file_kind import HEAD_LENGTH, kind_of
from hemotune.settings.images import Fit

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
# Upper eight bits of the brightest level of a 16-bit image; below this, the camera had fewer bits.
DIMMEST = 64
PHOTOMETRIC = 0x0106  # the TIFF tag; 0: white is zero
# Pixels; brightness and hash are those of a grey image of this side, whatever the size of images.
GREY_SIDE = 64
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap width and height
# A step of the recipe
STEPS: dict[Fit, str] = {
    "squeeze": "resize to size (width, height) with filter, whatever the proportions",
    "pad": "resize with filter so that it fits into size (width, height), centred on background",
    "crop": "cut the longer sides, centred, to the proportions of size (width, height), and resize "
    "with filter",
}


@dataclass
class FileFacts:
    """What is known about an image file.

    The fields are filled in while it is read; for a damaged file, the later ones stay None.
    """

    width: int | None = None  # as displayed, EXIF orientation applied
    height: int | None = None
    format: str | None = None
    mode: str | None = None  # as stored: RGB, L, CMYK, I;16 ...


class UnreadableImageError(Exception):
    """An image file that cannot be used. The message says why, as the end of a sentence."""


def start_decoding() -> None:
    """Set up a process that decodes: no warnings of Pillow's about odd metadata, and an error for
    an image so large that it may be an attack.
    """
    Image.init()
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(data: bytes, size: int, facts: FileFacts, fit: Fit = "squeeze") -> Image.Image:
    """Return the image in the bytes `data` of a file as RGB of size x size pixels, and fill in its
    facts.

    Args:
        fit: as in `to_square`.

    Raises:
        UnreadableImageError: the file is damaged, or no image of a supported kind.
    """
    try:
        return decode_plain_jpeg(data, size, facts, fit) or decode_any(data, size, facts, fit)
    except UnidentifiedImageError:
        reason = why_unidentified(data)
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        reason = str(error) or type(error).__name__
    raise UnreadableImageError(reason)


def why_unidentified(data: bytes) -> str:
    """Return what is wrong with the bytes `data`, which no decoder recognizes."""
    if not data:
        return "is empty"
    kind = kind_of(data[:HEAD_LENGTH])
    if kind and kind.removeprefix("a ").removesuffix(" image").upper() in FORMATS:
        return f"is {kind} with a damaged header"
    supported = "a JPEG, PNG, WebP, TIFF or BMP image"
    return f"is {kind}, not {supported}" if kind else f"is not {supported}"


def recipe(size: int, fit: Fit = "squeeze") -> dict[str, str | list[int] | list[str]]:
    """Return how a file becomes pixels, as JSON values, so that Pillow alone can repeat it."""
    return {
        "size": [size, size],  # width, height
        "fit": fit,
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
            STEPS[fit],
            "rotate or mirror as the orientation tag says",
            "give the model uint8 (batch, height, width, 3), 0 to 255: it scales them itself",
        ],
    }


def to_square(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Return an RGB image as a square of size x size pixels.

    Args:
        fit: squeeze it whatever its proportions, pad it with white, or crop its longer sides.

    Raises:
        ValueError: it is to be padded, and its shorter side would have no pixel.
    """
    square, bilinear = (size, size), Image.Resampling.BILINEAR
    if fit == "crop":
        return ImageOps.fit(image, square, bilinear)
    if fit == "pad":
        if round(size * min(image.size) / max(image.size)) == 0:
            raise ValueError(
                f"is {image.width} x {image.height} pixels, too narrow to be padded to a square"
            )
        return ImageOps.pad(image, square, bilinear, "white")
    return image.resize(square, bilinear)


def small_grey(image: Image.Image) -> Image.Image:
    """Return an image in grey, GREY_SIDE x GREY_SIDE pixels."""
    return image.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BILINEAR)


def draft_side(size: int) -> int:
    """Return the shortest side, in pixels, that a JPEG is decoded to before it is resized to
    `size`.
    """
    return 3 * size // 2


def decode_any(data: bytes, size: int, facts: FileFacts, fit: Fit) -> Image.Image:
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
        small = to_square(to_rgb(image, deep), size, fit)
        return ImageOps.exif_transpose(small) if orientation > 1 else small


def decode_plain_jpeg(data: bytes, size: int, facts: FileFacts, fit: Fit) -> Image.Image | None:
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
    return to_square(Image.fromarray(pixels), size, fit)


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
