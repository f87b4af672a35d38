"""Locks: one study at a time in a checkout."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flows import STATE
from hemotune.errors import StudyError


class AnotherStudy(StudyError):
    """Another study runs in this checkout."""


@contextlib.contextmanager
def sole_study(name: str = "one from the command line") -> Iterator[int]:
    """Hold this checkout's study lock and yield its file descriptor, which the stages' processes
    inherit: it is free when all are gone.

    Args:
        name: what the message to those who come later calls this study.

    Raises:
        AnotherStudy: another study holds it.
    """
    STATE.mkdir(exist_ok=True)
    with open(STATE / "study.lock", "a+", encoding="utf-8") as file:
        until = time.monotonic() + 12
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder, _, other = file.read().strip().partition(" ")
                # Of a study that was killed the stages need some seconds to end.
                if exists(holder) or time.monotonic() > until:
                    raise AnotherStudy(
                        f"another study is running in this checkout: {other or '?'} (process"
                        f" {holder or '?'}); wait for it, or cancel it; nothing was started"
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(f"{os.getpid()} {name}")
        file.flush()
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


def is_studied() -> bool:
    """Whether a study runs in this checkout."""
    return is_held(STATE / "study.lock")


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def exists(process):
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
