"""All benchmarks, one after the other: what `make bench` runs. Each prints its ratios of two commands in one run, and its goal."""

import subprocess
import sys

BENCHMARKS = ["benchmarks.decode", "benchmarks.flow_makespan"]

if __name__ == "__main__":
    sys.exit(max(subprocess.call([sys.executable, "-m", name]) for name in BENCHMARKS))
