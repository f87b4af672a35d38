"""How many copies across splits an audit finds, and how many images it accuses wrongly.

    python -m benchmarks.audit [--distinct 1000] [--copies 100] [--seed 1]

Draws textured photographs of at least 200 pixels (noise at several scales, as strong at each, and
ellipses), half of them training and half test images of two classes, and adds copies of training
images to the test images: turned by up to 20 degrees, sheared by up to 0.2 radians, shifted,
scaled, mirrored half of the time, brightened or darkened, on black or with their border repeated,
saved as JPEG. The goals are at least 95 % of the copies found, at least 99 % of the accused pairs
true, and at most 1 % of the distinct test images accused.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hemotune.audit.audit import examine
from hemotune.hardware import cpu_name
from hemotune.local_source import opened

FOUND, TRUE, ACCUSED = 0.95, 0.99, 0.01  # the goals
FILLS = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT, cv2.BORDER_REPLICATE)


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Noise of mean 0 and deviation 1 (height, width, 3), of one octave after the other.

    In photographs each octave is about as strong as the next (Field 1987).
    """
    steepness, spacing = rng.uniform(0.0, 0.5), 2
    total = np.zeros((height, width, 3), np.float32)
    while spacing < max(height, width):
        size = (height // spacing + 2, width // spacing + 2)
        noise = rng.normal(size=(*size, 1)) * 1.7 + rng.normal(size=(*size, 3)) * 0.7
        stretched = cv2.resize(
            noise.astype(np.float32), (width, height), None, 0, 0, cv2.INTER_CUBIC
        )
        total += stretched * spacing**steepness
        spacing *= 2
    scaled: NDArray[np.float32] = (total - total.mean()) / total.std()
    return scaled


def draw_photograph(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A textured photograph with up to seven textured ellipses: uint8 (height, width, 3)."""
    picture = rng.uniform(70, 180, 3) + rng.uniform(12, 40) * texture(rng, height, width)
    within = texture(rng, height, width)
    for _ in range(rng.integers(0, 8)):
        inside = np.zeros((height, width), np.float32)
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = (int(rng.uniform(0.04, 0.25) * width), int(rng.uniform(0.04, 0.25) * height))
        cv2.ellipse(inside, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, cv2.FILLED)
        filling = rng.uniform(30, 220, 3) + rng.uniform(5, 25) * within
        picture += inside[..., None] * (filling - picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def changed(rng: np.random.Generator, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a picture, turned, sheared, moved, perhaps mirrored, and brightened."""
    height, width = picture.shape[:2]
    turn, shear = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-0.2, 0.2)
    affine = np.array(
        [[np.cos(turn), -np.sin(turn + shear)], [np.sin(turn), np.cos(turn + shear)]]
    ) * rng.uniform(0.9, 1.1)
    middle = np.array([width, height]) / 2
    offset = middle - affine @ middle + rng.uniform(-0.1, 0.1, 2) * (width, height)
    moved = cv2.warpAffine(
        picture, np.c_[affine, offset], (width, height), borderMode=FILLS[rng.integers(len(FILLS))]
    )
    if rng.uniform() < 0.5:
        moved = moved[:, ::-1]
    brightened = moved * rng.uniform(0.6, 1.4) + rng.uniform(-15, 15)
    clipped: NDArray[np.uint8] = np.clip(brightened, 0, 255).astype(np.uint8)
    return clipped


def draw(folder: Path, distinct: int, copies: int, seed: int) -> None:
    """Write `distinct` photographs and copies of some into SPLIT/CLASS folders below `folder`.

    The name of a file is the number of its photograph, and `c` for a copy.
    """
    rng = np.random.default_rng(seed)
    for number in range(distinct):
        picture = draw_photograph(rng, *rng.integers(200, 480, 2))
        split, name = ("train", "test")[number % 2], "AB"[number // 2 % 2]
        write(folder / split / name / f"{number}.jpg", picture)
        if split == "train" and number // 2 < copies:
            write(folder / "test" / name / f"{number}c.jpg", changed(rng, picture))


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])


@dataclass(frozen=True)
class Rates:
    """Shares, and what they are of."""

    found: float
    true: float
    accused: float
    copies: int
    pairs: int
    distinct: int


def rates_of(folder: Path) -> Rates:
    """What an audit of the images of `draw` finds."""
    with opened(folder) as source:
        audit = examine(folder, source, source.images.with_name("images.npy"))
    names = audit.inventory["name"].str.extract(r"(\d+)(c?)\.jpg$")
    tested = audit.inventory["split"] == "TEST"
    copied = tested & (names[1] == "c")
    accused = [pair.row for pair in audit.leaks]
    numbers = names[0]
    right = [numbers[pair.row] == numbers[pair.other] for pair in audit.leaks]
    return Rates(
        found=sum(right) / copied.sum(),
        true=float(np.mean(right)) if right else 1.0,
        accused=float((~copied[accused]).sum() / (tested & ~copied).sum()),
        copies=int(copied.sum()),
        pairs=len(right),
        distinct=int((tested & ~copied).sum()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.distinct, options.copies, options.seed)
        started = time.monotonic()
        rates = rates_of(Path(folder))
    seconds = time.monotonic() - started
    print(f"{rates.found:.1%} of {rates.copies} copies found (goal: at least {FOUND:.0%})")
    print(f"{rates.true:.1%} of {rates.pairs} accused pairs are true (goal: at least {TRUE:.0%})")
    print(
        f"{rates.accused:.1%} of {rates.distinct} distinct test images accused (goal: at most"
        f" {ACCUSED:.0%})"
    )
    print(f"{seconds:.0f} s on {cpu_name()}")
    met = rates.found >= FOUND and rates.true >= TRUE and rates.accused <= ACCUSED
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
