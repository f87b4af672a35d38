"""All benchmarks, one after the other, and their figures in one table at the end: what `make bench`
runs.
"""

import subprocess
import sys

from hemotune.hardware import cpu_name

BENCHMARKS = [
    "decode",
    "scale",
    "no_op",
    "flow_makespan",
    "training_step",
    "health_cost",
    "notebook",
]


def main() -> int:
    rows, status = [], 0
    for name in BENCHMARKS:
        print(f"python -m benchmarks.{name}", flush=True)
        with subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="", flush=True)
                rows += [line] if line.startswith("| ") else []
        status |= process.returncode
    print(
        f"\n{cpu_name()}\n\n| what | ratio | goal, at most | measured"
        f" |\n|---|---|---|---|\n{''.join(rows)}",
        end="",
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
