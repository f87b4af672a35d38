"""Errors that a user can mend: one clear message, exit status 1, no traceback. What may pass by
itself has another exit status.
"""

import errno
import functools
import signal
import sys
import threading

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class StudyError(Exception):
    """Something the user can mend. The message names the file, the value and the fix."""


class PassingError(StudyError):
    """A failure of a network or a server, which may be over in some minutes."""


def entry_point(main):
    """Turn `main() -> int | None` into a command: a StudyError or a full disk becomes one line and
    exit status 1, a PassingError 75.
    """

    @functools.wraps(main)
    def command(*arguments):
        if threading.current_thread() is threading.main_thread():
            # A shell starts background jobs with SIGINT ignored; whoever sends it to a stage means
            # to stop it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return main(*arguments) or 0
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
