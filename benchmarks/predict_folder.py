"""Memory and time of `hemotune predict` on a folder of ten times the images.

    python -m benchmarks.predict_folder [--images 1000]

The images are drawn, 64 x 48 px; the network is a MobileNet at 32 px with random weights. The
goal for the memory is a tenth more: what is kept of each image is its name.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import print_row
from hemotune.cells import dataset as cells
from hemotune.cells.smear import CLASSES
from hemotune.files import write_json
from hemotune.images import recipe
from tests.conftest import ENVIRONMENT, ROOT

COPIES = 25
SAVE = """
import sys
from hemotune import hardware
hardware.use_fast_kernels()
with hardware.quick_import():
    import keras
from hemotune.training.model import Design, assemble, build_backbone
design = Design("MobileNet", 32, classes=4, layers=1, units=8)
assemble(build_backbone("MobileNet", 32), design).save(sys.argv[1])
"""
PREDICT = """
import resource, subprocess, sys
command = [sys.executable, "-m", "flows.cli", "predict", *sys.argv[1:], "--csv"]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def measure(images: Path, model: Path) -> tuple[float, float]:
    """Return (seconds, MB) of a prediction of all images below a folder."""
    started = time.monotonic()
    command = [sys.executable, "-c", PREDICT, str(images), "--model", str(model)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started, float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict_folder", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.keras")
        subprocess.run([sys.executable, "-c", SAVE, model], cwd=ROOT, env=ENVIRONMENT, check=True)
        write_json(model.with_name("model.json"), {"classes": list(CLASSES), "image": recipe(32)})
        for number in (options.images, 10 * options.images):
            images = Path(folder, str(number))
            photographs = number // (len(CLASSES) * COPIES)
            cells.write_sample(images, photographs, COPIES, 64, 48, seed=1)
            figures.append(measure(images / "images", model))
    (seconds, memory), (more_seconds, more_memory) = figures
    what = f"predict, {10 * options.images} / {options.images} drawn images"
    for name, unit, less, more, goal in (
        ("peak memory", "MB", memory, more_memory, 1.1),
        ("time", "s", seconds, more_seconds, 10.0),
    ):
        print_row(f"{what}, {name}", more / less, goal, f"{more:.0f} {unit} / {less:.0f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
