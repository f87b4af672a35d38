"""What a stage prints: all of it in a file, its lines in the task's log, its progress on the page.

Every run has a folder with a file for every stage, such as
.study/logs/2026-11-27T08-22-13-brave-otter/finetune@KEY.log. The last ten folders are kept.
"""

import contextvars
import datetime
import logging
import re
import shutil
import threading
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows import artifacts
from flows.launcher import shorten
from hemotune.paths import STATE

LOGS = STATE / "logs"
KEPT = 10  # runs
Log = logging.Logger | logging.LoggerAdapter[Any]  # Any: as Prefect gives it
PROGRESS = re.compile(r"\[ *(\d+)%\] *(.*)")
TRACEBACK = "Traceback (most recent call last):"


def folder_of_run() -> str:
    """Return this run's folder name in .study/logs: its time, by which folders sort, and its name
    on the page.
    """
    name = re.sub(r"[^\w.-]+", "-", runtime.flow_run.name or "run")
    return f"{datetime.datetime.now():%Y-%m-%dT%H-%M-%S}-{name}"


def path_of_log(run: str, stage: str) -> Path:
    """Return the file for a stage's output, in a folder that exists; remove the oldest folders."""
    folder = LOGS / run
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(other for other in LOGS.iterdir() if other != folder)
    for old in others[: 1 - KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder / f"{stage.replace('/', '-')}.log"


class Watcher:
    """Passes what a stage prints to a file and the task's log, and updates its progress artifact.

    Lines such as `[ 37%] fine-tune 12/32` update the artifact. A traceback and what follows it is
    logged as an error.

    A thread of its own updates the artifact: a slow server must not block a stage, whose output
    would not be read.

    Attributes:
        error: the text of the latest line `error: ...`, or the latest traceback's exception; None
            without either.
    """

    def __init__(self, name: str, log: Log, path: Path) -> None:
        self.name, self.log, self.path, self.file_is_whole = name, log, path, True
        self.error: str | None = None
        self.latest: tuple[int, str] | None = None  # percent, description
        self.within: Literal["frames", "message"] | None = None  # of a traceback
        self.changed, self.ended = threading.Event(), threading.Event()
        self.updater = threading.Thread(
            target=contextvars.copy_context().run, args=[self.update_artifact], daemon=True
        )

    def __enter__(self) -> "Watcher":
        # Appended to: a stage that is retried has one file.
        self.file = open(self.path, "ab", buffering=0)
        self.updater.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.ended.set()
        self.changed.set()

    def write(self, data: bytes) -> None:
        """Append to the file, until that fails, as on a full disk: the stage continues without."""
        try:
            if self.file_is_whole:
                self.file.write(data)
        except OSError as error:
            self.file_is_whole = False
            self.log.warning("%s is incomplete: %s", self.path, error)

    def line(self, text: str) -> None:
        found = PROGRESS.match(text)
        if text.startswith(TRACEBACK):
            self.within, self.error = "frames", None
        elif found or text.startswith("error: "):
            self.within = None
        self.log.log(logging.ERROR if self.within else logging.INFO, "%s", text)
        if found:
            self.latest = int(found[1]), found[2]
            self.changed.set()
        elif text.startswith("error: "):
            self.error = text.removeprefix("error: ")
        elif self.within == "message":  # an exception's text may have several lines
            self.error = shorten(f"{self.error} {text.strip()}", 2000)
        elif self.within and not text.startswith((" ", TRACEBACK)):
            self.within, self.error = "message", text

    def complete(self) -> None:
        """Show the progress of a stage that has succeeded as complete: its last line may have been
        printed before its last step.
        """
        if self.latest:
            self.latest = 100, self.latest[1]
            self.changed.set()

    def update_artifact(self) -> None:
        """Show the latest progress, at most every second, until the stage has ended and its last
        line is shown.
        """
        artifact: UUID | None = None
        shown, ended = None, False
        try:
            while not ended:
                self.changed.wait()
                self.changed.clear()
                ended = self.ended.is_set()
                if self.latest is None or self.latest == shown:
                    continue
                percent, description = shown = self.latest
                if artifact is None:
                    # Prefect's type is for a coroutine too, which it is not in a thread.
                    artifact = create_progress_artifact(  # type: ignore[assignment]
                        percent, key=artifacts.key(self.name, "progress"), description=description
                    )
                else:
                    update_progress_artifact(artifact, percent, description=description)
                self.ended.wait(1)
        except Exception as error:  # noqa: BLE001 - no reason to fail a stage
            self.log.warning("the progress cannot be shown: %s", error)
