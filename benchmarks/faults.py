"""Inject faults into a study, one by one, and run the same command again.

    python -m benchmarks.faults                     all of them, in an hour; writes docs/faults.md
    python -m benchmarks.faults --jobs 2            two at a time
    python -m benchmarks.faults --only "disk full"  those whose stage or fault has these words

One tiny study is run undisturbed, and a copy of it is kept from before each of its stages. Each
fault starts from such a copy. It passes if the disturbed command failed without a traceback,
nothing half-written was left among the results, and the next run ended with the results of the
undisturbed study and a clean `dvc status`. With --only, docs/faults.md is not written.
"""

import argparse
import hashlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import served
from benchmarks.disturbance import call, copy, disturb, small_disk
from benchmarks.served import AGAIN, ALL, ENGINE, SERVE, SERVER
from tests.conftest import make_repository

NARROW = "narrow-MobileNet-random-1"
DEEP = "deep-MobileNet-random-1"
ORDER = [
    "download",
    "validate",
    "group",
    "prepare",
    "backbone@MobileNet",
    f"finetune@{NARROW}",
    f"finetune@{DEEP}",
    "controls",
    "report",
]
RESULTS = ["data", "reports"]
SEED = 1
SAME = "same results, status clean"
RESUMED = re.compile(r"resumed after epoch 1 of 2")
FIRST, SECOND = re.compile(r"epoch 1/2, loss"), re.compile(r"epoch 2/2, loss")


@dataclass
class Fault:
    """`when` is the moment of the signal, in one of three ways: a fraction of the stage's time, a
    file's pattern, or a text in its output.

    Without a signal, `room` bytes are left on a disk of the study's own, or `damage` changes the
    study's folder before the command.
    """

    stage: str
    what: str
    when: float | str | re.Pattern[str] | None = None
    signal: int = signal.SIGKILL
    whole: bool = True  # the signal goes to DVC and the stage, or to the stage alone
    room: int | None = None
    damage: Callable[[Path], None] | None = None
    message: str = ""  # that the disturbed command must print, beside whatever Prefect logs
    flow: bool = False  # the disturbed command is the flow, and so is the next run
    # The next run alone is the flow: DVC itself refuses a dvc.lock that is not whole
    then_flow: bool = False
    # Flows.serve runs the study on request, and the processes of these modules are killed
    served: tuple[str, ...] = ()
    deaths: int = 1  # how many times, each time after they were started again
    ends: str = ""  # the state in which the served run that was disturbed ends

    @property
    def by_flow(self) -> bool:
        """Whether the flow makes what is compared: all stages, and not one."""
        return bool(self.flow or self.then_flow or self.served)


def truncate_newest_state(folder: Path) -> None:
    newest = sorted(folder.glob(".study/resume/*/*/epoch-*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])


def halve_rwlock(folder: Path) -> None:
    table = folder / ".dvc/tmp/rwlock"
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])


def faults() -> list[Fault]:
    """Return all faults; the random moments are the same in every run."""
    moments = random.Random(SEED)
    killed = [
        Fault(stage, "kill -9", moments.uniform(0.1, 0.95)) for stage in ORDER[:4] for _ in range(3)
    ]
    tuned, last = f"finetune@{NARROW}", f"finetune@{DEEP}"
    return [
        *killed,
        Fault("validate", "kill -9 while the array is written", "data/*images.partial*"),
        Fault("backbone@MobileNet", "kill -9 in a step", re.compile(r"pre-train \d+/")),
        Fault(
            "backbone@MobileNet", "kill -9 while weights are saved", "data/backbone/.*.partial/*"
        ),
        Fault(tuned, "kill -9 in a step of the first epoch", FIRST),
        Fault(tuned, "kill -9 between two epochs", re.compile(r"epoch 1/2: loss")),
        Fault(tuned, "kill -9 in a step of the second epoch", SECOND),
        Fault(tuned, "kill -9 while the state is saved", ".study/resume/*/*/.epoch-2.partial*"),
        Fault(tuned, "kill -9 while the model is saved", "data/models/.*.partial/*"),
        Fault(tuned, "kill -9 of the stage alone", SECOND, whole=False),
        Fault(tuned, "SIGTERM", FIRST, signal.SIGTERM),
        Fault(tuned, "Ctrl-C", FIRST, signal.SIGINT),
        Fault(
            tuned,
            "kill -9, then a damaged state",
            re.compile(r"epoch 2/2: loss"),
            damage=truncate_newest_state,
        ),
        Fault("controls", "kill -9", moments.uniform(0.3, 0.95)),
        Fault("report", "kill -9", moments.uniform(0.3, 0.95)),
        Fault("report", "kill -9 while figures are drawn", "reports/.figures.partial/*"),
        Fault(
            "prepare",
            "kill -9 while DVC writes dvc.lock; the next run is the flow",
            re.compile("Updating lock file"),
            then_flow=True,
        ),
        Fault(
            "prepare",
            "kill -9, then half of .dvc/tmp/rwlock; the next run is the flow",
            0.5,
            then_flow=True,
            damage=halve_rwlock,
        ),
        Fault(tuned, "kill -9 while DVC commits", f"data/results/{NARROW}/metrics.json"),
        *(Fault(stage, "disk full", room=room) for stage, room in ROOM.items()),
        Fault(last, "kill -9 of the flow", SECOND, flow=True),
        Fault(last, "kill -9 of the flow's server", FIRST, flow=True, whole=False, message=AGAIN),
        Fault(last, "Ctrl-C in the flow", SECOND, signal.SIGINT, flow=True),
        Fault(
            last, "served: kill -9 of the run's engine", SECOND, served=(ENGINE,), ends="Crashed"
        ),
        Fault(
            last, "served: kill -9 of Prefect's server", FIRST, served=(SERVER,), ends="Completed"
        ),
        Fault(
            last,
            "served: kill -9 of Prefect's server, three times",
            FIRST,
            served=(SERVER,),
            deaths=3,
            ends="Crashed",
        ),
        Fault(last, "served: kill -9 of hemotune ui", SECOND, served=(SERVE,), ends="Crashed"),
        Fault(
            last,
            "served: kill -9 of all processes, as by a reboot",
            SECOND,
            served=ALL,
            ends="Crashed",
        ),
    ]


# Bytes left for a stage: enough to begin with, too few to end.
ROOM = {
    "download": 80_000,
    "validate": 100_000,
    "group": 0,
    "prepare": 0,
    "backbone@MobileNet": 4_000_000,
    f"finetune@{NARROW}": 8_000_000,
    "controls": 0,
    "report": 100_000,
}


def command_of(stage: str) -> list[str]:
    """Return the stage's command, as in dvc.yaml."""
    name, _, key = stage.partition("@")
    return [
        sys.executable,
        "-m",
        f"tasks.{name}",
        *(key.split("-", 2) if name == "finetune" else [key] if key else []),
    ]


def fingerprint(folder: Path) -> dict[str, str]:
    """{path: hash} of all results; times, the one thing that differs between two runs, are left
    out.
    """
    found = {}
    for path in sorted(
        path for top in RESULTS for path in (folder / top).rglob("*") if path.is_file()
    ):
        name = str(path.relative_to(folder))
        if path.name in ("model.keras", "metrics.json") or "validation" in name:
            continue  # hold the time of their making; what the model predicts is compared
        content = path.read_bytes()
        if path.name == "history.csv":
            content = (
                pd.read_csv(path).drop(columns=["seconds", "images_per_second"]).to_csv().encode()
            )
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def half_written(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for top in RESULTS
        for path in (folder / top).rglob("*.partial*")
    ]


def judge(
    fault: Fault, before: Path, reference: dict[str, str], usual: float, folder: Path
) -> tuple[str, list[str]]:
    """Inject a fault into a copy of the study, run again; return (what happened, errors)."""
    wrong = []
    if fault.served:
        copy(before, folder)
        return judge_served(fault, folder, reference)
    if fault.room is not None:
        with small_disk(folder, before, fault.room) as filler:
            status, output = call(folder, *command_of(fault.stage))
            wrong += (
                []
                if status == 1 and "the disk is full" in output
                else [f"exit status {status}, {output[-300:]}"]
            )
            wrong += ["a traceback"] if "Traceback" in output else []
            wrong += [f"half-written: {name}" for name in half_written(folder)]
            filler.unlink()
            return f"exit status {status}: the disk is full", wrong + run_again(
                fault, folder, reference
            )
    for pace in (1, 0.5, 0.25):  # the machine may have become faster since the stage was timed
        copy(before, folder)
        sent, status, output = disturb(fault, folder, pace * usual)
        if sent or not isinstance(fault.when, float):
            break
        shutil.rmtree(folder)
        folder.mkdir()
    if not sent:
        wrong.append("the moment was missed")
    if fault.signal != signal.SIGKILL or not fault.whole:
        clear = fault.message in output if fault.message else "Traceback" not in output
        wrong += [] if clear else [f"a traceback, {output[-300:]}"]
        wrong += (
            [f"half-written: {name}" for name in half_written(folder)]
            if fault.signal != signal.SIGKILL
            else []
        )
    if fault.damage:
        fault.damage(folder)
    return f"exit status {status}", wrong + run_again(fault, folder, reference)


def judge_served(fault: Fault, folder: Path, reference: dict[str, str]) -> tuple[str, list[str]]:
    """Do what `judge` does for a study that `hemotune ui` runs on request; so is the next run."""
    assert isinstance(fault.when, re.Pattern)
    ended = "did not end"
    try:
        with served.disturbed(folder, fault.when, fault.served, fault.deaths) as (serving, ended):
            wrong = [] if ended == fault.ends else [f"the run ended {ended}, not {fault.ends}"]
            following = serving.end_of(serving.request())
            wrong += [] if following == "Completed" else [f"the next run ended {following}"]
            wrong += (
                []
                if fault.when is FIRST or serving.printed(RESUMED)
                else ["the first epoch was trained again"]
            )
            if traceback := serving.text().partition("\nTraceback")[2]:
                wrong.append(f"a traceback, {traceback[-300:]}")
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        return f"the run {ended}", [str(error)]
    return f"the run ended {ended}", wrong + compare(folder, reference, by_flow=True)


def run_again(fault: Fault, folder: Path, reference: dict[str, str]) -> list[str]:
    """Run the same command again; return a list of errors."""
    command = (
        ["flows.cli", "run", "--slots", "cpu"]
        if fault.by_flow
        else ["dvc", "repro", "-s", fault.stage]
    )
    status, output = call(folder, sys.executable, "-m", *command)
    wrong = [] if status == 0 else [f"the next run: exit status {status}, {output[-300:]}"]
    if fault.damage and "is damaged" not in output:
        wrong.append("no message about the damage")
    return wrong + compare(folder, reference, fault.by_flow, fault.stage)


def compare(folder: Path, reference: dict[str, str], by_flow: bool, stage: str = "") -> list[str]:
    """Return the differences from the undisturbed study, after the flow or after one stage."""
    found = fingerprint(folder)
    if by_flow:  # which also makes the report, in which learning times stand
        reference, found = (
            {name: value for name, value in which.items() if name.startswith("data")}
            for which in (reference, found)
        )
    wrong = [
        f"differs: {name}"
        for name in sorted(reference.keys() | found.keys())
        if reference.get(name) != found.get(name)
    ]
    wrong += [f"half-written: {name}" for name in half_written(folder)]
    status, output = call(
        folder, sys.executable, "-m", "dvc", "status", "-q", *([] if by_flow else [stage])
    )
    return wrong + ([f"dvc status: {output or status}"] if status else [])


def undisturbed(
    scratch: str,
) -> tuple[dict[str, Path], dict[str, dict[str, str]], dict[str, float]]:
    """Run the study stage by stage; returns ({stage: copy before it}, {stage: results after it},
    {stage: seconds}).
    """
    folder = make_repository(Path(scratch, "study"))
    before, after, usual = {}, {}, {}
    for stage in ORDER:
        before[stage] = Path(scratch, "before", stage)
        copy(folder, before[stage])
        started = time.monotonic()
        status, output = call(folder, sys.executable, "-m", "dvc", "repro", "-s", stage)
        if status:
            sys.exit(output)
        usual[stage] = time.monotonic() - started
        after[stage] = fingerprint(folder)
        print(f"undisturbed: {stage}, {usual[stage]:.0f} s", flush=True)
    return before, after, usual


def row_of(
    fault: Fault,
    folder: Path,
    before: dict[str, Path],
    after: dict[str, dict[str, str]],
    usual: dict[str, float],
) -> tuple[str, str, str, str]:
    """Inject a fault into a study in `folder`; return its row of the table."""
    folder.mkdir()
    reference = after["report"] if fault.by_flow else after[fault.stage]
    seen, wrong = judge(fault, before[fault.stage], reference, usual[fault.stage], folder)
    shutil.rmtree(folder)
    at = f" at {fault.when:.0%} of its time" if isinstance(fault.when, float) else ""
    row = (fault.stage, fault.what + at, seen, "; ".join(wrong) or SAME)
    print(" | ".join(row), "| FAILED" if wrong else "", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="faults whose stage or name holds these words"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many faults at a time (default: 1)"
    )
    options = parser.parse_args()
    chosen = [fault for fault in faults() if options.only in f"{fault.stage} {fault.what}"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        before, after, usual = undisturbed(scratch)
        # Those that take longest begin, so that all jobs end together.
        futures = {}
        for number, fault in sorted(enumerate(chosen), key=lambda item: not item[1].by_flow):
            folder = Path(scratch, f"fault-{number}").resolve()
            futures[number] = pool.submit(row_of, fault, folder, before, after, usual)
        rows = [futures[number].result() for number in range(len(chosen))]
    failed = sum(row[3] != SAME for row in rows)
    if not options.only:
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
        facts = {
            "commit": commit,
            "jobs": options.jobs,
            "minutes": (time.monotonic() - started) / 60,
            "count": len(rows),
            "failed": failed,
        }
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        Path("docs/faults.md").write_text(HEADER.format(**facts) + table + "\n", encoding="utf-8")
    print(f"{len(rows)} faults, {failed} failed")
    return 1 if failed else 0


HEADER = """# Fault-injection results

This table is the output of `python -m benchmarks.faults --jobs {jobs}` at commit {commit}. It took
{minutes:.0f} minutes: {count} faults, {failed} failed.

Each fault was injected into a tiny study (MobileNet, 32 px, 100 synthetic images). Then the same
command was run again, and its results were compared with those of an undisturbed study. Where the
fault begins with "served", `make ui` runs the study on request and the fault hits its processes.
Then another run is requested, after a new `make ui` if the first one did not survive.

"Status clean" means that DVC finds nothing left to run. A negative exit status is the number of the
signal that ended the command.

| stage | fault | the disturbed command | the next run |
|---|---|---|---|
"""


if __name__ == "__main__":
    sys.exit(main())
