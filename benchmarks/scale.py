"""validate + prepare of ten times the images: the goals are at most 10.5 times the time, and the
same peak memory.

    python -m benchmarks.scale [--images 10000]

The images are drawn, 64 x 48 px, 25 of each photograph. The memory is that of the largest process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks import print_row
from hemotune.cells import dataset as cells
from hemotune.cells.smear import CLASSES
from tests.conftest import ENVIRONMENT, make_workspace

COPIES = 25
# A process of its own, so that its children are these two alone.
STAGES = """
import resource, subprocess, sys
for stage in ("validate", "prepare"):
    subprocess.run([sys.executable, "-m", f"tasks.{stage}"], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def measure(folder: Path, images: int) -> tuple[float, float]:
    """(seconds, MB) of validate and prepare on `images` drawn images."""
    folder.mkdir()
    make_workspace(folder)
    photographs = images // (len(CLASSES) * COPIES)
    truth = cells.write_sample(folder / "data" / "raw", photographs, COPIES, 64, 48, seed=1)
    (folder / "data" / "raw" / "source.json").write_text(json.dumps({"source": "sample"}))
    pd.DataFrame(truth.items(), columns=["path", "photograph"]).to_parquet(
        folder / "data" / "photographs.parquet"
    )
    started = time.monotonic()
    environment = ENVIRONMENT | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", STAGES], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started, float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory = measure(Path(folder, "once"), options.images)
        more_seconds, more_memory = measure(Path(folder, "ten-times"), 10 * options.images)
    what = f"validate + prepare, {10 * options.images} / {options.images} drawn images"
    print_row(
        f"{what}, time", more_seconds / seconds, 10.5, f"{more_seconds:.1f} s / {seconds:.1f} s"
    )
    print_row(
        f"{what}, peak memory", more_memory / memory, 1.0, f"{more_memory:.0f} MB / {memory:.0f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
