"""The kind of a file by its first bytes, for files that are not what their names promise."""

import re

HEAD_LENGTH = 512  # bytes that kind_of needs

# The first match counts.
KINDS = {
    "a GIF image": rb"GIF8[79]a",
    "a JPEG image": rb"\xff\xd8\xff",
    "a PNG image": rb"\x89PNG\r\n",
    "a TIFF image": rb"II\*\0|MM\0\*",
    "a WebP image": rb"RIFF....WEBP",
    "a JPEG 2000 image": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "a JPEG XL image": rb"\0\0\0\x0cJXL |\xff\x0a",
    "an AVIF image": rb"....ftypavi[fs]",
    "a HEIC image": rb"....ftyp(hei|hev|mif1|msf1)",
    "a Photoshop image": rb"8BPS",
    "a DICOM image": rb".{128}DICM",
    "a zip": rb"PK(\x03\x04|\x05\x06)",
    "a RAR archive": rb"Rar!\x1a\x07",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a TAR archive": rb".{257}ustar",
    "a gzip file, as of .tar.gz": rb"\x1f\x8b",
    "a bzip2 file, as of .tar.bz2": rb"BZh[1-9]",
    "an xz file, as of .tar.xz": rb"\xfd7zXZ\0",
    "a Zstandard file, as of .tar.zst": rb"\x28\xb5\x2f\xfd",
    "a PDF document": rb"%PDF-",
    "an HDF5 file": rb"\x89HDF\r\n",
    "an SVG drawing": rb"\s*(<\?xml[^>]*>\s*)?<svg",
    "a web page": rb"(?i)\s*<(!doctype html|html)",
}


def kind_of(start: bytes) -> str | None:
    """Return the kind of a file from its first HEAD_LENGTH bytes, or None if it is unknown."""
    matching = (kind for kind, pattern in KINDS.items() if re.match(pattern, start, re.DOTALL))
    return next(matching, None)
