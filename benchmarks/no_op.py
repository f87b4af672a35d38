"""What an unchanged study of 12,500 images costs: `dvc repro` against `dvc --version`, and the
flow.

    python -m benchmarks.no_op [--images 12500]

The goals: `dvc repro` at most 1.5 times `dvc --version` plus one second; the flow at most 8 s
beside its imports. The images are drawn and downloaded for real; what the other stages make is
stood in for by small files that DVC is told to take for theirs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import print_row
from tests.conftest import ENVIRONMENT, TINY_PROFILE, make_repository, stand_in

ROUNDS = 3
COPIES = 25


def seconds(*arguments: str) -> float:
    """Return how long Python takes with these arguments."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}")
    return time.monotonic() - started


def environment() -> dict[str, str]:
    return ENVIRONMENT | {
        "PYTHONPATH": os.getcwd(),
        "PREFECT_HOME": f"{os.getcwd()}/.study/prefect",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.no_op", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--images", type=int, default=12_500)
    options = parser.parse_args(arguments)
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        make_repository(Path(folder))
        os.chdir(folder)
        photographs = options.images // (4 * COPIES)
        profile = TINY_PROFILE.replace(
            "photographs: 5, copies: 5", f"photographs: {photographs}, copies: {COPIES}"
        )
        Path("profiles/tiny.yaml").write_text(profile)
        seconds("-m", "dvc", "repro", "-q", "-s", "download")
        stand_in(Path(folder))
        seconds("-m", "dvc", "repro", "-q")
        rounds = [
            (
                seconds("-m", "dvc", "--version"),
                seconds("-m", "dvc", "repro"),
                seconds("-c", "import flows.study"),
                seconds("-m", "flows.cli", "run"),
            )
            for _ in range(ROUNDS)
        ]
        os.chdir(here)
    version, repro, imports, flow = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    images = 4 * photographs * COPIES
    ratio = repro / (1.5 * version + 1)
    what = f"no-op, {images} images"
    print_row(
        f"{what}, dvc repro / (1.5 x dvc --version + 1 s)",
        ratio,
        1.0,
        f"{repro:.1f} s / {1.5 * version + 1:.1f} s",
    )
    print_row(
        f"{what}, the flow without its imports, seconds",
        flow - imports,
        8,
        f"{flow:.1f} s - {imports:.1f} s",
    )


if __name__ == "__main__":
    main()
