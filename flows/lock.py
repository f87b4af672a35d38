"""Locks: one study at a time in a checkout.

They are taken with fcntl.flock and not with filelock: the stages' processes inherit the study's
lock, and its file names its holder.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from hemotune.errors import StudyError
from hemotune.paths import STATE

STUDY_LOCK = STATE / "study.lock"
ENDING = 12  # seconds within which the processes of a killed study or server have ended


class AnotherStudy(StudyError):
    """Another study runs in this checkout."""


@contextlib.contextmanager
def sole_study(name: str = "one from the command line") -> Iterator[int]:
    """Hold this checkout's study lock and yield its file descriptor.

    The stages' processes inherit the descriptor: the lock is free once all of them are gone.

    Args:
        name: of this study in the error that a second one gets.

    Raises:
        AnotherStudy: another study holds the lock.
    """
    STATE.mkdir(exist_ok=True)
    with open(STUDY_LOCK, "a+", encoding="utf-8") as file:
        until = time.monotonic() + ENDING
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder, _, other = file.read().strip().partition(" ")
                # The stages of a killed study need some seconds to end.
                if psutil.pid_exists(int(holder or 0)) or time.monotonic() > until:
                    raise AnotherStudy(
                        f"another study is running in this checkout: {other or '?'} (process"
                        f" {holder or '?'}); wait for it, or cancel it; nothing was started"
                    ) from None
                time.sleep(0.2)
        name_holder(file.fileno(), name)
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


def name_holder(lock: int, name: str) -> None:
    """Write into the lock's file which study holds it."""
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()} {name}".encode())  # in append mode: at the start


def study_is_running() -> bool:
    """Whether a study runs in this checkout."""
    return is_held(STUDY_LOCK)


def find_study() -> str | None:
    """Return the name and process id of the study that runs in this checkout, None without one."""
    if not study_is_running():
        return None
    process, _, name = STUDY_LOCK.read_text(encoding="utf-8").partition(" ")
    return f"{name or '?'} (process {process or '?'})"


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
