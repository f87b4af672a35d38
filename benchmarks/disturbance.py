"""Disturb a study: send a signal to a command at a given moment, or give it a disk that is full."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import ENVIRONMENT

if TYPE_CHECKING:
    from benchmarks.faults import Fault


def environment(folder: Path) -> dict[str, str]:
    return ENVIRONMENT | {
        "PYTHONPATH": str(folder),
        "PREFECT_HOME": str(folder / ".study" / "prefect"),
    }


def call(folder: Path, *command: str) -> tuple[int, str]:
    """Run a command in a study; returns (exit status, everything that it printed)."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, source: Path, room: int) -> Iterator[Path]:
    """Copy a study to its own file system with `room` bytes left; yield the file that fills it.

    Needs permission to mount.
    """
    size = (
        sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) * 2 + 100_000_000
    )
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        copy(source, folder)
        filler = folder / ".study" / "filler"
        filler.parent.mkdir(exist_ok=True)
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - room)
        yield filler
    finally:
        subprocess.run(["umount", folder], check=True)


def disturb(fault: "Fault", folder: Path, usual: float) -> tuple[bool, int, str]:
    """Run a stage and send the fault's signal at its moment; returns (whether it was sent, exit
    status, output).
    """
    # One slot has as many threads as `dvc repro`; with fewer, sums are rounded differently.
    command = (
        ["flows.cli", "run", "--slots", "cpu"]
        if fault.flow
        else ["dvc", "repro", "-s", fault.stage]
    )
    command = [sys.executable, "-m", *command]
    log = folder / ".study" / "output"
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = time.monotonic()
    while process.poll() is None:
        if isinstance(fault.when, float):
            now = time.monotonic() - started >= fault.when * usual
        elif isinstance(fault.when, str):
            now = next(folder.glob(fault.when), None) is not None
        else:
            assert fault.when
            now = fault.when.search(log.read_text(errors="replace")) is not None
        if now:
            send(fault, folder, process)
            break
        time.sleep(0.002)
    sent = (
        process.poll() is None
        or fault.signal == signal.SIGKILL
        and process.returncode == -signal.SIGKILL
    )
    status = process.wait(900)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    wait_for_the_end(folder)
    return sent, status, log.read_text(errors="replace")


def send(fault: "Fault", folder: Path, process: subprocess.Popen[bytes]) -> None:
    # The process may end in between, and its folder in /proc with it.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        if fault.whole and not fault.flow:
            os.killpg(process.pid, fault.signal)
        elif fault.flow and fault.whole:
            process.send_signal(fault.signal)
        else:
            modules = ("flows.server",) if fault.flow else ("tasks.", "hemotune.")
            for pid in processes(folder):
                command = Path(f"/proc/{pid}/cmdline").read_text()
                if any(module in command for module in modules):
                    os.kill(pid, fault.signal)


def processes(folder: Path) -> list[int]:
    """Ids of all processes that work in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and (entry / "cwd").resolve() == folder
                and "State:\tZ" not in (entry / "status").read_text()
            ):
                found.append(int(entry.name))
    return found


def wait_for_the_end(folder: Path, seconds: float = 60) -> None:
    """Wait until nothing of a study runs.

    Raises:
        TimeoutError: something still does after `seconds`.
    """
    until = time.monotonic() + seconds
    while left := processes(folder):
        if time.monotonic() > until:
            raise TimeoutError(f"still running: {left}")
        time.sleep(0.1)
