"""How much time the flow itself costs: seven stages that sleep, run by the flow with 1, 2, 4 and 7
slots, and by `dvc repro`.

    python -m benchmarks.flow_makespan [--seconds 10] [--slots 1,2,4,7]

The makespan is the time from the start of the first stage's task to the end of the last one's; the
ideal one is that of the sleeps alone, `ceil(7 / slots)` of them one after the other. The whole flow
run, with reading the DAG before and the tables after, is told beside it. Prefect's server runs
already, as with `make ui`. For `dvc repro` both are the time of the command.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks import print_row
from flows import server

STAGES = 7
DAG = """
stages:
  sleep:
    matrix: {name: [a, b, c, d, e, f, g]}
    cmd: sleep ${seconds} && mkdir -p data && echo ${turn} > data/${item.name}
    params: [turn]
    outs: ["data/${item.name}"]
    meta: {gpu: true}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow_makespan", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--seconds", type=float, default=10, help="that each stage sleeps (default: 10)"
    )
    parser.add_argument("--slots", default="1,2,4,7", help="numbers of slots (default: 1,2,4,7)")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {
            "PYTHONPATH": str(root),
            "PREFECT_HOME": f"{folder}/prefect",
            "DVC_NO_ANALYTICS": "1",
        }
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        Path("dvc.yaml").write_text(DAG)
        Path(".gitignore").write_text("/data\n/prefect\n")
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, check=True)
        set_turn(0, options.seconds)
        started = time.monotonic()
        subprocess.run(["dvc", "repro", "-q"], check=True)
        taken = time.monotonic() - started
        report("dvc repro", options.seconds * STAGES, taken, taken)
        with server.running(port=0, services=False) as api:
            for turn, slots in enumerate(map(int, options.slots.split(",")), start=1):
                set_turn(turn, options.seconds)
                names = ",".join(str(number) for number in range(slots))
                subprocess.run(
                    [sys.executable, "-m", "flows.cli", "run", "--slots", names],
                    check=True,
                    env=os.environ | {"PREFECT_API_URL": api},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                report(
                    f"flow, {slots} slots",
                    options.seconds * math.ceil(STAGES / slots),
                    *measured(api),
                )


def set_turn(turn: int, seconds: float) -> None:
    Path("params.yaml").write_text(f"turn: {turn}\nseconds: {seconds}\n")


def measured(api: str) -> tuple[float, float]:
    """(makespan, time of the whole run) of the latest flow run, seconds."""
    run = httpx.post(
        f"{api}/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}
    ).json()[0]
    while True:
        tasks = httpx.post(
            f"{api}/task_runs/filter", json={"flow_runs": {"id": {"any_": [run["id"]]}}}
        ).json()
        if len(tasks) == STAGES and all(task["end_time"] for task in tasks):
            break
        time.sleep(0.2)  # the server takes in the last events
    first, last = (
        pick(moment(task[key]) for task in tasks)
        for pick, key in ((min, "start_time"), (max, "end_time"))
    )
    return last - first, moment(run["end_time"]) - moment(run["start_time"])


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def report(what: str, ideal: float, makespan: float, whole: float) -> None:
    print_row(
        f"{what} / ideal makespan",
        makespan / ideal,
        1.15,
        f"{makespan:.1f} s / {ideal:.1f} s; whole run {whole:.1f} s",
    )


if __name__ == "__main__":
    main()
