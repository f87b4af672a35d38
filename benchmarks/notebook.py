"""The study against the notebook's way of it, on the same images: the goal is at most 0.5 on a
processor, 0.125 on a big GPU.

    python -m benchmarks.notebook [--experiments 2] [--epochs 4] [--photographs 20] [--size 64]

The notebook's way is benchmarks/notebook_fits.py: the fits in series in one process, the JPEGs
decoded in every epoch, float32, the backend's defaults, Keras's Adam. Ours is the whole flow with
all its stages, started with the images there, as the notebook is. Both begin with random weights.
The second row is an epoch alone, which is what a study of many long epochs comes to; where several
fits run at once, an epoch of each is done in its time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from benchmarks import print_row
from benchmarks.notebook_images import link_images
from flows import slots
from flows.gpu_sharing import per_device
from tests.conftest import ENVIRONMENT, make_repository

PROFILE = """\
dataset:
  source: sample
  sample: {{photographs: {photographs}, copies: 8, width: 320, height: 240, seed: 1}}
images: {{size: {size}}}
validation: {{}}
split: {{train: 0.64, validation: 0.16, test: 0.20, seed: 1}}
backbone: {{weights: random}}
training: {{epochs: {epochs}, batch_size: 32, dropout: 0.5, precision: auto, seed: 1}}
report: {{}}
"""


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started, done.stdout


def later(epochs: Iterable[tuple[int, float]]) -> float:
    """Median seconds of the epochs after each fit's first, which traces the graph."""
    return statistics.median(seconds for epoch, seconds in epochs if epoch > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.notebook", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--experiments", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4, help="at least 2")
    parser.add_argument(
        "--photographs", type=int, default=20, help="of each class; eight images are made of each"
    )
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument(
        "--slots",
        default="cpu,cpu",
        help="of the flow, as for hemotune run; as `make run` without a GPU",
    )
    parser.add_argument(
        "--fits",
        type=int,
        help="of the notebook's way that are run; the rest is counted as long (default: all)",
    )
    options = parser.parse_args()
    timed_fits = options.fits or options.experiments
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        make_repository(Path(folder))
        os.chdir(folder)
        Path("profiles/bench.yaml").write_text(PROFILE.format(**vars(options)))
        names = [
            f"  fit{number}: {{layers: 1, units: 8, learning_rate: 1.0e-5}}\n"
            for number in range(options.experiments)
        ]
        axes = "backbones: [ResNet50]\ntrainings: [random-1]\nexperiments:\n"
        Path("params.yaml").write_text("profile: bench\n" + axes + "".join(names))
        ours = ENVIRONMENT | {"PYTHONPATH": folder, "PREFECT_HOME": f"{folder}/.study/prefect"}
        devices = slots.find_devices(options.slots)
        places = len(devices) * per_device("auto", devices, print)
        defaults = {
            name: value for name, value in ENVIRONMENT.items() if name != "TF_ENABLE_ONEDNN_OPTS"
        } | {"PYTHONPATH": here, "CUDA_VISIBLE_DEVICES": devices[0].replace(slots.CPU, "")}
        timed(["dvc", "repro", "-q", "-s", "download"], ours)
        study, _ = timed(["flows.cli", "run", "--slots", options.slots], ours)
        link_images(Path("notebook"))
        its = ["benchmarks.notebook_fits", str(Path("notebook").resolve())]
        its += ["--size", str(options.size), "--epochs", str(options.epochs)]
        theirs, printed = timed([*its, "--fits", str(timed_fits)], defaults)
        theirs *= options.experiments / timed_fits
        history = pd.concat(map(pd.read_csv, Path("data/results").glob("*/history.csv")))
        os.chdir(here)
    at_once, goal = min(options.experiments, places), 0.5 if slots.CPU in devices else 0.125
    ours_epoch = later(zip(history["epoch"] - 1, history["seconds"], strict=True)) / at_once
    theirs_epoch = later(json.loads(printed.splitlines()[-1]))
    images = 4 * options.photographs * 8
    what = f"ResNet50, {options.size} px, {images} images"
    fits = f"{options.experiments} fits of {options.epochs} epochs"
    print_row(
        f"whole study / the notebook's way, {what}, {fits}",
        study / theirs,
        goal,
        f"{study:.0f} s / {theirs:.0f} s",
    )
    print_row(
        f"an epoch of it, {what}, {at_once} at once",
        ours_epoch / theirs_epoch,
        goal,
        f"{ours_epoch:.1f} s / {theirs_epoch:.1f} s",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
