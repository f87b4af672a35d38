"""Drawn cells as data: a data set with the structure of the real one, and training sets to
pre-train on.

Drawing is shared out over processes that load this module alone; `python -m hemotune.cells.dataset`
is their worker, not a stage.
"""

import csv
import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from hemotune.cells.smear import CLASSES, draw_photograph
from hemotune.progress import Progress, cores

TEST_SHARE = 0.2  # of a class's photographs


def augment(rng, image):
    """Return `image` (uint8 (height, width, 3)) moved at random as the data set's makers did, on
    black.

    Keras's ImageDataGenerator of the time: rotation by up to 20 degrees, shifts by up to a tenth,
    shear by up to 0.2 radians, flips.
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


def draw_training_set(images, size, seed, magnification=1.0, processes=None):
    """Draw `images` augmented cells of equal classes, each from a photograph of its own, shuffled.

    Returns:
        uint8 (images, size, size, 3), squashed from 4:3 as the study's images are, and int64
        (images,): the place in CLASSES. The same seed gives the same bytes whatever the number of
        processes.
    """
    labels = np.random.default_rng([seed, 0]).permutation(np.arange(images) % len(CLASSES))
    jobs = [(int(label), size, seed, number, magnification) for number, label in enumerate(labels)]
    return np.stack(in_processes(draw_training_image, jobs, "draw", processes)), labels


def draw_training_image(label, size, seed, number, magnification):
    """Draw image `number` of a training set: uint8 (size, size, 3)."""
    rng = np.random.default_rng([seed, 1, number])
    # Drawn larger, so that squashing smooths it as it smooths a real image
    height = round(1.5 * size)
    picture = augment(
        rng, draw_photograph(rng, CLASSES[label], height * 4 // 3, height, magnification)
    )
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def write_sample(
    folder, photographs, copies, width, height, seed, magnification=1.0, processes=None
):
    """Write a data set made as the real one was: photographs are split first, then each side is
    augmented.

    folder/photographs/ holds `photographs` originals of each class, twice as large as the images;
    folder/images/TRAIN and TEST hold `copies` moved copies of each, TEST_SIMPLE the photographs of
    TEST unmoved. Names do not tell the photograph; truth.csv does.

    Returns:
        dict from an image's path below folder/images to its photograph's file name, as in
        folder/truth.csv, sorted.
    """
    folder, rng = Path(folder), np.random.default_rng([seed, 0])
    numbers = iter(rng.permutation(photographs * len(CLASSES)) + 1)
    tests = min(max(round(TEST_SHARE * photographs), 1), photographs - 1)
    truth, jobs = {}, []
    for cell_class in CLASSES:
        originals = [f"PHOTO_{next(numbers):05}.jpg" for _ in range(photographs)]
        paths = {original: [] for original in originals}
        for split, members, each in (
            ("TEST", originals[:tests], copies),
            ("TEST_SIMPLE", originals[:tests], 1),
            ("TRAIN", originals[tests:], copies),
        ):
            shuffled = rng.permutation(np.repeat(members, each))
            suffixes = rng.permutation(max(10_000, len(shuffled)))
            for place, original in enumerate(shuffled):
                path = f"{split}/{cell_class}/_{place % len(members)}_{suffixes[place]}.jpeg"
                paths[original].append(path)
                truth[path] = str(original)
        jobs += [
            (str(folder), cell_class, original, paths[original], width, height, seed, magnification)
            for original in originals
        ]
        for split in ("TRAIN", "TEST", "TEST_SIMPLE"):
            (folder / "images" / split / cell_class).mkdir(parents=True, exist_ok=True)
    (folder / "photographs").mkdir(exist_ok=True)
    in_processes(write_photograph, jobs, "draw photographs", processes)
    truth = dict(sorted(truth.items()))
    with open(folder / "truth.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "photograph"), *truth.items()])
    return truth


def write_photograph(folder, cell_class, name, paths, width, height, seed, magnification):
    """Draw photograph `name` and write it and its images at `paths`."""
    rng = np.random.default_rng([seed, 1, int(name[6:11])])
    original = draw_photograph(rng, cell_class, 2 * width, 2 * height, magnification)
    Image.fromarray(original).save(Path(folder, "photographs", name), quality=90)
    small = np.asarray(Image.fromarray(original).resize((width, height), Image.Resampling.BILINEAR))
    for path in paths:
        image = small if path.startswith("TEST_SIMPLE/") else augment(rng, small)
        Image.fromarray(image).save(Path(folder, "images", path), quality=88)


def in_processes(function, jobs, what, processes=None):
    """Return [function(*job) for job in jobs], computed in `processes` (default: all cores), in
    order.

    Not a multiprocessing pool: its children import the parent's main module, TensorFlow and all, or
    fork a process that has it.
    """
    processes = processes or cores()
    if processes == 1 or len(jobs) < 2 * processes:
        return [function(*job) for job in jobs]
    # A process takes a moment to start
    pieces = min(6 * processes, max(processes, len(jobs) // 20))
    chunks = [chunk.tolist() for chunk in np.array_split(np.arange(len(jobs)), pieces)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }

    def run(chunk):
        work = pickle.dumps((function.__name__, [jobs[number] for number in chunk]))
        done = subprocess.run(
            [sys.executable, "-m", "hemotune.cells.dataset"],
            input=work,
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
        answer = pickle.loads(done.stdout)
        if isinstance(answer, OSError):  # a full disk
            raise answer
        return answer

    results, progress = (
        [],
        Progress(what, len(jobs), "images" if function is draw_training_image else "photographs"),
    )
    with ThreadPoolExecutor(processes) as pool:
        for part in pool.map(run, chunks):
            results += part
            progress.update(len(results))
    return results


def worker():
    """Do one chunk of `in_processes`: pickled (name of the function, jobs) on stdin, pickled
    results, or an OSError, on stdout.
    """
    name, jobs = pickle.load(io.BufferedReader(sys.stdin.buffer))
    try:
        answer = [globals()[name](*job) for job in jobs]
    except OSError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer)


if __name__ == "__main__":
    worker()
