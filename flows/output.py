"""What a stage prints: all of it in a file, its lines in the task's log, its progress on the page,
and the error in it.

Every run has a folder, every stage a file in it:
.study/logs/2026-11-27T08-22-13-brave-otter/finetune@KEY.log. The folders of the last ten runs are
kept.
"""

import contextvars
import datetime
import logging
import re
import shutil
import threading
from pathlib import Path

from prefect import runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows import STATE, artifacts
from flows.launcher import shorten

LOGS = STATE / "logs"
KEPT = 10  # runs
PROGRESS = re.compile(r"\[ *(\d+)%\] *(.*)")
TRACEBACK = "Traceback (most recent call last):"


def folder_of_run() -> str:
    """Name this run's folder of .study/logs by its time, so that names sort by age, and by the name
    that its page shows.
    """
    name = re.sub(r"[^\w.-]+", "-", runtime.flow_run.name or "run")
    return f"{datetime.datetime.now():%Y-%m-%dT%H-%M-%S}-{name}"


def path_of_log(run: str, stage: str) -> Path:
    """Return where the stage's output goes, in a folder that exists; the oldest folders make room
    for a new one.
    """
    folder = LOGS / run
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(other for other in LOGS.iterdir() if other != folder)
    for old in others[: 1 - KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder / f"{stage.replace('/', '-')}.log"


class Watcher:
    """Passes what a stage prints to a file and to the task's log, and moves its progress artifact.

    Lines such as `[ 37%] fine-tune 12/32` move the artifact. A traceback and what follows it is
    logged as an error.

    The artifact is moved by a thread of its own: a slow server must not hold up a stage whose
    output is not read.

    Attributes:
        error: what the latest line `error: ...` says, or the latest traceback's exception; None
            without either.
    """

    def __init__(self, name: str, log: logging.Logger | logging.LoggerAdapter, path: Path) -> None:
        self.name, self.log, self.path, self.file_is_whole = name, log, path, True
        self.error, self.latest, self.within = None, None, None
        self.changed, self.ended = threading.Event(), threading.Event()
        self.mover = threading.Thread(
            target=contextvars.copy_context().run, args=[self.move], daemon=True
        )

    def __enter__(self) -> "Watcher":
        # Appended to: a stage that is retried has one file
        self.file = open(self.path, "ab", buffering=0)
        self.mover.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.ended.set()
        self.changed.set()

    def write(self, data: bytes) -> None:
        """Append to the file, until that fails, as on a full disk; the stage goes on without it."""
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

    def move(self) -> None:
        """Show the latest progress, at most every second, until the stage has ended and its last
        line is shown.
        """
        artifact, shown, ended = None, None, False
        try:
            while not ended:
                self.changed.wait()
                self.changed.clear()
                ended = self.ended.is_set()
                if self.latest == shown:
                    continue
                percent, description = shown = self.latest
                if artifact is None:
                    artifact = create_progress_artifact(
                        percent, key=artifacts.key(self.name, "progress"), description=description
                    )
                else:
                    update_progress_artifact(artifact, percent, description=description)
                self.ended.wait(1)
        except Exception as error:  # noqa: BLE001 - a page that does not move is no reason to fail a stage
            self.log.warning("the progress cannot be shown: %s", error)
