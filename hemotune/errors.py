"""Errors that a user can mend: one clear message, exit status 1, no traceback. What may pass by
itself has another exit status.
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
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class StudyError(Exception):
    """Something the user can mend. The message names the file, the value and the fix."""


class PassingError(StudyError):
    """A failure of a network or a server, which may be over in some minutes."""


def entry_point(main: Callable[P, int | None]) -> Callable[P, int]:
    """Turn `main` into a command that returns its exit status and prints one line for an error.

    A StudyError, a missing file of data/ or reports/, or a full disk is 1, a PassingError 75, an
    interrupt 130.
    """

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        if threading.current_thread() is threading.main_thread():
            # A shell starts background jobs with SIGINT ignored; whoever sends it to a stage means
            # to stop it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return main(*args, **kwargs) or 0
        except StudyError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return TRY_AGAIN if isinstance(error, PassingError) else 1
        except KeyboardInterrupt:
            print(
                "stopped: interrupted; nothing half-written was left, the same command goes on",
                file=sys.stderr,
                flush=True,
            )
            return 130
        except FileNotFoundError as error:
            # pandas names the file in the message alone
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
