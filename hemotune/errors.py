"""Errors that a user can fix, and the exit status of a command that fails.

Each is one clear message without a traceback. Exit status 1 is a lasting failure: run again, it
fails again. A temporary failure has another status, with which the flow retries.
"""

import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")
TEMPORARY_FAILURE = os.EX_TEMPFAIL  # 75


class StudyError(Exception):
    """An error that the user can fix. The message names the file, the value and the fix."""


class TemporaryError(StudyError):
    """A failure of a network or a server that may be over in minutes."""


def entry_point(main: Callable[P, int | None]) -> Callable[P, int]:
    """Turn `main` into a command that returns its exit status and prints one line for an error.

    The status is 1 for a StudyError, a missing file in data/ or reports/, and a full disk; 75 for a
    TemporaryError; 130 for an interrupt; 141 if the output's reader has ended. Other exceptions
    pass through.
    """

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        if threading.current_thread() is threading.main_thread():
            # A shell starts background jobs with SIGINT ignored; sent to a stage, it must stop it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return main(*args, **kwargs) or 0
        except StudyError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return TEMPORARY_FAILURE if isinstance(error, TemporaryError) else 1
        except KeyboardInterrupt:
            print(
                "stopped: interrupted; no incomplete file was left, run the same command again",
                file=sys.stderr,
                flush=True,
            )
            return 130
        except BrokenPipeError:
            # What read the output has ended, such as `head`: nothing more is written, not even at
            # the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except FileNotFoundError as error:
            # pandas names the file only in the message
            missing = Path(os.fsdecode(error.filename or str(error)))
            if missing.parts[:1] not in [("data",), ("reports",)]:
                raise
            print(f"error: {missing} is missing: run `dvc repro`", file=sys.stderr, flush=True)
            return 1
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" while writing {error.filename}" if error.filename else ""
            print(
                f"error: the disk is full{where}: free some space, then run the same command again",
                file=sys.stderr,
                flush=True,
            )
            return 1

    return command
