"""Drawn cells as data: a sample with the structure of the real data set, and training sets.

Drawing is distributed over processes that load this module alone: `python -m
hemotune.cells.dataset` is their worker, not a stage.
"""

import csv
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemotune.cells.smear import CLASSES, draw_photograph
from hemotune.progress import Progress, cores

TEST_SHARE = 0.2  # of a class's photographs
REAL_HEIGHT = 240  # px, of an image of the real data set

Result = TypeVar("Result")


@dataclass(frozen=True)
class Photograph:
    """One photograph of the sample; `images` are the paths of its copies, below images/."""

    name: str  # of its file, PHOTO_NUMBER.jpg
    cell_class: str
    images: list[str]


def augment(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `image` (height, width, 3), moved at random as the original data set's, on black.

    Its makers used Keras's ImageDataGenerator: rotation by up to 20 degrees, shifts by up to a
    tenth, shear by up to 0.2 radians, flips.
    """
    height, width = image.shape[:2]
    turn, shear = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-0.2, 0.2)
    down, right = rng.uniform(-0.1, 0.1, 2) * (height, width)
    sine, cosine = np.sin(turn), np.cos(turn)
    turned = np.array([[cosine, sine], [-sine, cosine]])  # output to input, in x and y
    matrix = turned @ np.array([[np.cos(shear), 0], [-np.sin(shear), 1]])
    matrix = matrix @ np.diag(np.where(rng.uniform(size=2) < 0.5, -1.0, 1.0))
    middle = np.array([width, height]) / 2
    offset = middle + turned @ np.array([right, down]) - matrix @ middle
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def draw_training_set(
    images: int, size: int, seed: int, magnification: float = 1.0, processes: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `images` augmented cells of equal classes, each from a photograph of its own, shuffled.

    Returns:
        Images (images, size, size, 3), squashed from 4:3 as the study's are, and places in CLASSES
        (images,). The same seed gives the same bytes with any number of processes.
    """
    labels = np.random.default_rng([seed, 0]).permutation(np.arange(images) % len(CLASSES))
    jobs = [(int(label), size, seed, number, magnification) for number, label in enumerate(labels)]
    return np.stack(in_processes(draw_training_image, jobs, "draw", "images", processes)), labels


def draw_training_image(
    label: int, size: int, seed: int, number: int, magnification: float
) -> NDArray[np.uint8]:
    """Draw image `number` of a training set: (size, size, 3)."""
    rng = np.random.default_rng([seed, 1, number])
    # Drawn larger, so that squashing smooths it as it smooths a real image, which has 240 lines
    height = max(size, min(round(1.5 * size), REAL_HEIGHT))
    photograph = draw_photograph(rng, CLASSES[label], height * 4 // 3, height, magnification)
    picture = Image.fromarray(augment(rng, photograph))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def write_sample(
    folder: Path,
    photographs: int,
    copies: int,
    width: int,
    height: int,
    seed: int,
    magnification: float = 1.0,
    processes: int | None = None,
) -> dict[str, str]:
    """Write a data set made as the real one was.

    folder/photographs/ holds `photographs` originals of each class, twice as large as the images;
    folder/images/TRAIN and TEST hold `copies` moved copies of each, TEST_SIMPLE the photographs of
    TEST unmoved. An image's name does not show its photograph; truth.csv does.

    Returns:
        The file name of each image's photograph, by the image's path below folder/images, as in
        folder/truth.csv, sorted.
    """
    planned = plan_sample(photographs, copies, seed)
    for path in {Path(folder, "images", image).parent for p in planned for image in p.images}:
        path.mkdir(parents=True, exist_ok=True)
    Path(folder, "photographs").mkdir(exist_ok=True)
    jobs = [(folder, photograph, (width, height), seed, magnification) for photograph in planned]
    in_processes(write_photograph, jobs, "draw photographs", "photographs", processes)
    truth = dict(sorted((image, p.name) for p in planned for image in p.images))
    with open(Path(folder, "truth.csv"), "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "photograph"), *truth.items()])
    return truth


def plan_sample(photographs: int, copies: int, seed: int) -> list[Photograph]:
    """Return the photographs of the sample, with the paths of their images.

    Photographs are split first, then the copies of each side are named.
    """
    rng = np.random.default_rng([seed, 0])
    numbers = iter(rng.permutation(photographs * len(CLASSES)) + 1)
    tests = min(max(round(TEST_SHARE * photographs), 1), photographs - 1)
    planned = []
    for cell_class in CLASSES:
        names = [f"PHOTO_{next(numbers):05}.jpg" for _ in range(photographs)]
        images: dict[str, list[str]] = {name: [] for name in names}
        for split, members, each in (
            ("TEST", names[:tests], copies),
            ("TEST_SIMPLE", names[:tests], 1),
            ("TRAIN", names[tests:], copies),
        ):
            shuffled = rng.permutation(np.repeat(members, each))
            suffixes = rng.permutation(max(10_000, len(shuffled)))
            for place, name in enumerate(shuffled):
                file = f"_{place % len(members)}_{suffixes[place]}.jpeg"
                images[name].append(f"{split}/{cell_class}/{file}")
        planned += [Photograph(name, cell_class, images[name]) for name in names]
    return planned


def write_photograph(
    folder: Path, photograph: Photograph, size: tuple[int, int], seed: int, magnification: float
) -> None:
    """Draw a photograph and write it and its images, of `size` (width, height)."""
    rng = np.random.default_rng([seed, 1, int(photograph.name[6:11])])
    width, height = size
    original = Image.fromarray(
        draw_photograph(rng, photograph.cell_class, 2 * width, 2 * height, magnification)
    )
    original.save(Path(folder, "photographs", photograph.name), quality=90)
    small = np.asarray(original.resize(size, Image.Resampling.BILINEAR))
    for path in photograph.images:
        image = small if path.startswith("TEST_SIMPLE/") else augment(rng, small)
        Image.fromarray(image).save(Path(folder, "images", path), quality=88)


def in_processes(
    function: Callable[..., Result],
    jobs: Sequence[tuple[object, ...]],
    what: str,
    unit: str,
    processes: int | None = None,
) -> list[Result]:
    """Return [function(*job) for job in jobs], computed in `processes` (default: all cores).

    Not a multiprocessing pool: its children import the parent's main module, TensorFlow and all, or
    fork a process that has it. Not joblib's loky: its children outlive a parent that is killed.

    Args:
        function: one of this module.
    """
    processes = processes or cores()
    if processes == 1 or len(jobs) < 2 * processes:
        return [function(*job) for job in jobs]
    # A process takes a moment to start.
    pieces = min(6 * processes, max(processes, len(jobs) // 20))
    chunks = [chunk.tolist() for chunk in np.array_split(np.arange(len(jobs)), pieces)]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])

    def run(chunk: list[int]) -> list[Result]:
        done = subprocess.run(
            [sys.executable, "-m", "hemotune.cells.dataset"],
            input=pickle.dumps((function.__name__, [jobs[number] for number in chunk])),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            check=True,
        )
        answer: list[Result] | OSError = pickle.loads(done.stdout)
        if isinstance(answer, OSError):  # a full disk
            raise answer
        return answer

    results: list[Result] = []
    progress = Progress(what, len(jobs), unit)
    with ThreadPoolExecutor(processes) as pool:
        for part in pool.map(run, chunks):
            results += part
            progress.update(len(results))
    return results


def worker() -> None:
    """Do one chunk of `in_processes`.

    Reads the function's name and the jobs from stdin, and writes the results, or an OSError, to
    stdout, both pickled.
    """
    name, jobs = pickle.load(sys.stdin.buffer)
    answer: list[object] | OSError
    try:
        answer = [globals()[name](*job) for job in jobs]
    except OSError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer)


if __name__ == "__main__":
    worker()
