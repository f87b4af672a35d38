"""Disturb a study that `hemotune ui` runs on request: kill its processes, then run it again."""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.disturbance import environment, processes, wait_for_the_end

# As in their command lines; `hemotune ui` comes first, because it would restart the others.
SERVE, SERVER, ENGINE, LAUNCHER = (
    "flows.cli ui ",
    "flows.server_process ",
    "prefect.engine ",
    "flows.launcher ",
)
ALL = SERVE, SERVER, ENGINE, LAUNCHER, "tasks.", "hemotune."
AGAIN = "it was restarted"  # what `hemotune ui` prints after its server has died


class Served:
    """`hemotune ui` in a study's folder, and what it has printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / ".study" / "serve.txt"
        self.log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "flows.cli", "ui", "--port", "0"]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment(folder), stdout=log, stderr=subprocess.STDOUT
            )
        wait_for("it is served", lambda: self.printed(re.compile("  open  ")), 300)
        self.api = json.loads((folder / ".study" / "server.json").read_text())["api"]

    def printed(self, pattern: re.Pattern[str], times: int = 1) -> bool:
        return len(pattern.findall(self.text())) >= times

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx.request(method, f"{self.api}/{path}", timeout=120, json=body)
        content: dict[str, Any] = answer.raise_for_status().json()
        return content

    def request(self) -> str:
        """Ask for a run of the study, as the button of its page does; returns the run's id once it
        is Running.

        Raises:
            TimeoutError: it was not Running within a minute.
        """
        deployment = self.call("GET", "deployments/name/study/study")["id"]
        run: str = self.call(
            "POST",
            f"deployments/{deployment}/create_flow_run",
            {"parameters": {"slots": "cpu"}},
        )["id"]
        wait_for(
            "a requested run is Running",
            lambda: self.state(run)["type"] not in ("SCHEDULED", "PENDING"),
            60,
        )
        return run

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.call("GET", f"flow_runs/{run}")["state"]
        return state

    def end_of(self, run: str) -> str:
        """Wait for the end of a run; returns the name of its state."""
        wait_for(
            "a run has ended", lambda: self.state(run)["type"] not in ("RUNNING", "CANCELLING"), 900
        )
        name: str = self.state(run)["name"]
        return name


def kill(folder: Path, modules: tuple[str, ...]) -> None:
    """Kill, with -9, all processes of these modules that work in a folder, in this order."""
    for module in modules:
        for pid in processes(folder):
            with contextlib.suppress(OSError):
                if module in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def disturbed(
    folder: Path, when: re.Pattern[str], modules: tuple[str, ...], deaths: int
) -> Iterator[tuple[Served, str]]:
    """Serve a study, request it, kill processes at the moment `when`; yields a serving that lives
    and how the run ended there.

    Args:
        modules: whose processes are killed.
        deaths: how often, each time once they are there again.

    Raises:
        TimeoutError, subprocess.TimeoutExpired: something did not happen in its time.
    """
    try:
        served = Served(folder)
        run = served.request()
        wait_for("the moment of the fault has come", lambda: served.printed(when), 900)
        for death in range(1, deaths + 1):
            kill(folder, modules)
            if death < deaths:
                again = functools.partial(served.printed, re.compile(AGAIN), death)
                wait_for("the server is started again", again, 60)
        if SERVE in modules or deaths == 3:
            served.process.wait(30)
            wait_for_the_end(folder, 10)
            served = Served(folder)
        yield served, served.end_of(run)
        served.process.send_signal(signal.SIGINT)
        served.process.wait(60)
        wait_for_the_end(folder)
    finally:
        kill(folder, ALL)


def wait_for(name: str, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds} s: {name}")
        time.sleep(0.1)
