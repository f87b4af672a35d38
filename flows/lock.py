"""One study at a time in a checkout."""

import contextlib
import fcntl
import os
import time

from flows import STATE
from tasks.errors import StudyError


@contextlib.contextmanager
def sole_study():
    """Hold this checkout's study lock and yield its file descriptor, which the stages' processes inherit: it is free when all are gone.

    Raises:
        StudyError: another study holds it.
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
                holder = file.read().strip() or "?"
                # Of a study that was killed the stages need some seconds to end.
                if exists(holder) or time.monotonic() > until:
                    raise StudyError(
                        f"another study is running in this checkout (process {holder}): wait for it, or cancel it; nothing was started"
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def is_studied():
    """Whether a study runs in this checkout."""
    try:
        with open(STATE / "study.lock", encoding="utf-8") as file:
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
