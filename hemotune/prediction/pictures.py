"""The images to be predicted: which files they are, and their pixels."""

import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemotune.errors import StudyError
from hemotune.images import FileFacts, UnreadableImageError, decode, small_grey
from hemotune.plan import SUFFIXES
from hemotune.progress import cores
from hemotune.settings.images import Images
from hemotune.tree import walk

STANDARD_INPUT = "-"
LARGEST_BATCH = 16 << 20  # bytes of pixels


@dataclass(frozen=True)
class Source:
    """An image file; `path` is None for standard input."""

    name: str  # as it is shown: in a folder the path below it
    path: Path | None


@dataclass(frozen=True)
class Picture:
    """An image that was read, or why it could not be."""

    name: str
    facts: FileFacts
    pixels: NDArray[np.uint8] | None  # (size, size, 3)
    brightness: float | None  # mean grey level, 0 to 255
    error: str | None  # the end of a sentence about the file


def sources_of(target: str) -> list[Source]:
    """Return the images that a user names: a file, all images below a folder, or standard input.

    What begins with a dot is hidden, and left out.

    Raises:
        StudyError: there is none.
    """
    if target == STANDARD_INPUT:
        return [Source("standard input", None)]
    path = Path(target)
    if path.is_dir():
        try:
            files = sorted(walk(path).files)
        except OSError as error:
            raise StudyError(f"{error.filename}: {error.strerror}") from None
        names = [name for name in files if not re.search(r"(^|/)\.", name)]
        images = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        suffixes = ", ".join(sorted(SUFFIXES))
        if not images:
            raise StudyError(f"{target}: holds no file that ends in {suffixes}")
        if others := len(names) - len(images):
            print(f"files left out that do not end in {suffixes}: {others}", file=sys.stderr)
        return [Source(name, path / name) for name in images]
    if not path.exists():
        raise StudyError(f"{target}: there is no such file or folder")
    return [Source(target, path)]


def read(source: Source, images: Images) -> Picture:
    """Return an image as the network takes it; what is wrong with a file is in the result."""
    facts = FileFacts()
    try:
        data = source.path.read_bytes() if source.path else sys.stdin.buffer.read()
        small = decode(data, images.size, facts, images.fit)
    except OSError as error:
        return Picture(source.name, facts, None, None, error.strerror or str(error))
    except UnreadableImageError as error:
        return Picture(source.name, facts, None, None, str(error))
    brightness = float(np.asarray(small_grey(small), np.float64).mean())
    return Picture(source.name, facts, np.asarray(small), brightness, None)


def batches(sources: Sequence[Source], images: Images, most: int) -> Iterator[list[Picture]]:
    """Yield the images in order, at most `most` at a time; the next batch is read meanwhile.

    Memory does not grow with the number of images.
    """
    length = max(1, min(most, LARGEST_BATCH // (3 * images.size * images.size)))
    waiting: deque[list[Future[Picture]]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for start in range(0, len(sources), length):
                part = sources[start : start + length]
                waiting.append([pool.submit(read, source, images) for source in part])
                if len(waiting) > 1:
                    yield [future.result() for future in waiting.popleft()]
            yield from ([future.result() for future in part] for part in waiting)
        finally:
            pool.shutdown(cancel_futures=True)
