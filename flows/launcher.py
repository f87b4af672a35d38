"""A process that has DVC loaded and forks a child for each call: a fork costs 0.05 s, a fresh DVC
process more than a second.

Every child leads a session of its own. It holds one end of a socket whose other end only the flow
holds: when the flow stops the child, ends, or is killed with -9, that socket closes, and the child
ends its whole process group: first with SIGINT, so that DVC releases its locks and a stage removes
half-written files, then with SIGKILL. No message has to be sent, and no process has to survive to
send one.

It is not multiprocessing's forkserver: a child of that imports the flow's main module again, which
in a run that `hemotune ui` started is Prefect: 2.7 s for each stage, not 0.02 s (measured with all
that is loaded here loaded there as well).

The launcher never loads TensorFlow, which does not survive a fork: DVC starts each stage's command
as a program of its own.
"""

import contextlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import AnyStr, TypeVar

from hemotune.errors import StudyError

LONGEST_LINE = 20_000  # bytes; Prefect cuts the end off a log line of more than a million
GRACE = 4.0  # seconds between SIGINT and SIGKILL; the flow promises that all is gone within ten

T = TypeVar("T")


class Stopped(Exception):
    """The work was stopped from outside before it ended."""


class CallFailed(StudyError):
    """A call ended without a result."""


class Launcher:
    """The flow's handle on the launcher process. `call` may be used by many threads at once.

    `keep` are file descriptors that the launcher and its children hold open as well, such as a lock
    that must outlive the flow until the last child is gone.
    """

    def __init__(self, keep: Iterable[int] = ()) -> None:
        self.control, theirs = socket.socketpair()
        self.lock, self.stopped = threading.Lock(), False
        # By each call's socket: its child's process group, once that is known.
        self.groups: dict[socket.socket, int | None] = {}
        # A session of its own: Ctrl-C in a terminal reaches only the flow, which then decides.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.launcher", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *keep],
            env=environment(),
            start_new_session=True,
        )
        theirs.close()

    def call(
        self,
        action: Callable[[], T],
        variables: dict[str, str] | None = None,
        on_line: Callable[[str], object] = print,
        on_output: Callable[[bytes], object] | None = None,
    ) -> T:
        """Run an action in a child and return its result. Both are pickled.

        Args:
            action: a function of flows.repository, or a functools.partial of one.
            variables: environment variables set for the child.
            on_line: called with every line that the child or a program it starts prints, without
                the middle of very long ones.
            on_output: called with all that is printed, as it is.

        Raises:
            Stopped: `stop` was called, now or earlier.
            CallFailed: the action raised an exception, or the child was killed.
        """
        connection, output = self.fork()
        try:
            # If the child is already gone, `listen` finds out.
            with contextlib.suppress(OSError):
                connection.sendall(pickle.dumps((action, variables or {})))
            answer = self.listen(connection, output, Lines(on_line, on_output))
        finally:
            os.close(output)
            with self.lock:
                group = self.groups.pop(connection)
            connection.close()
        if self.stopped:
            raise Stopped("the study was stopped")
        if not answer:  # the child was killed; a program it started may live on
            if group:
                signal_group(group, signal.SIGKILL)
            raise CallFailed("the stage's process was killed")
        succeeded, result = pickle.loads(answer)
        if not succeeded:
            raise CallFailed(result)
        return result  # type: ignore[no-any-return]  # pickle gives Any; it is the action's result

    def fork(self) -> tuple[socket.socket, int]:
        """Have the launcher fork a child; return a socket to it and the pipe into which it prints.

        Raises:
            Stopped: `stop` was called, or the launcher is gone.
        """
        ours, theirs = socket.socketpair()
        output, write = os.pipe()
        with self.lock:
            if self.stopped:
                raise Stopped("the study was stopped")
            try:
                socket.send_fds(self.control, [b"."], [theirs.fileno(), write])
            except OSError as error:
                raise Stopped(f"the launcher process is gone: {error}") from None
            finally:
                theirs.close()
                os.close(write)
            self.groups[ours] = None
        return ours, output

    def listen(self, connection: socket.socket, output: int, lines: "Lines") -> bytes:
        """Pass on what comes from the pipe `output` until the child is gone; return its pickled
        answer, empty if it gave none.
        """
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(output, selectors.EVENT_READ)
            while connection in selector.get_map():
                # What was printed before the answer comes first.
                for key, _ in sorted(
                    selector.select(), key=lambda event: event[0].fileobj is connection
                ):
                    data = read(key.fd)
                    if key.fileobj is connection:
                        answer += data
                        if self.groups[connection] is None and b"\n" in answer:
                            first, answer = answer.split(b"\n", 1)
                            self.groups[connection] = int(first)
                    else:
                        lines.add(data)
                    if not data:
                        selector.unregister(key.fileobj)
        # The child is gone. Take what is left in the pipe, without waiting for a stray program that
        # holds it open.
        os.set_blocking(output, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, 65536):
                lines.add(data)
        lines.add(b"\n")
        return answer

    def stop(self) -> None:
        """Stop all calls and refuse new ones; return when all children are gone, at the latest
        after 10 s.
        """
        with self.lock:
            self.stopped = True
            groups = [group for group in self.groups.values() if group]
            for connection in [*self.groups, self.control]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + GRACE + 2
        while any(signal_group(group, 0) for group in groups) and time.monotonic() < until:
            time.sleep(0.05)
        for group in groups:
            signal_group(group, signal.SIGKILL)
        self.process.kill()  # it has nothing to put in order
        self.process.wait()
        self.control.close()


_launcher: Launcher | None = None
_lock = threading.Lock()


def start(keep: Iterable[int] = ()) -> Launcher:
    """Start this process's launcher, in place of an earlier one."""
    global _launcher
    _launcher = Launcher(keep)
    return _launcher


def current() -> Launcher:
    """Return this process's launcher.

    On the worker of a cluster, where no flow called `start`, the first task starts one.
    """
    with _lock:
        return _launcher or start()


def stop() -> None:
    """Stop what runs below this process; a later `current` starts a new launcher."""
    global _launcher
    with _lock:
        if _launcher:
            _launcher.stop()
            _launcher = None


def environment() -> dict[str, str]:
    """Return this process's variables, with this Python first in PATH.

    The commands in dvc.yaml begin with `python`, also where its environment is not activated.
    """
    folders = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    return os.environ | {"PATH": os.pathsep.join(folders)}


def read(descriptor: int) -> bytes:
    """Return what can be read from a socket or pipe; nothing at its end, also a broken one."""
    with contextlib.suppress(OSError):
        return os.read(descriptor, 65536)
    return b""


class Lines:
    """Cuts what a program prints into lines, see Launcher.call."""

    def __init__(
        self, on_line: Callable[[str], object], on_output: Callable[[bytes], object] | None
    ) -> None:
        self.on_line, self.on_output, self.rest = on_line, on_output, b""

    def add(self, data: bytes) -> None:
        if self.on_output:
            self.on_output(data)
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = shorten(rest, LONGEST_LINE)
        for line in lines:
            text = shorten(line, LONGEST_LINE).decode(errors="replace").rstrip("\r")
            # A progress bar that rewrites its line ends each state with a carriage return: the last
            # state counts.
            text = text.rpartition("\r")[2].rstrip()
            if text:
                self.on_line(text)


def shorten(text: AnyStr, longest: int) -> AnyStr:
    """Cut out the middle of a text that is longer than `longest`."""
    gap = " ... " if isinstance(text, str) else b" ... "
    half = (longest - len(gap)) // 2
    return text if len(text) <= longest else text[:half] + gap + text[-half:]


def signal_group(group: int, number: int) -> bool:
    """Send a signal (0: none) to a process group; return whether there is such a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


# What follows runs in the launcher process.


def serve(control: socket.socket) -> None:
    """Fork a child for every pair of file descriptors that arrives, until the flow's end of
    `control` closes.
    """
    from flows import repository

    repository.preload()
    # The children's exit status is not collected: they answer themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        # One byte at a time: each byte carries the descriptors of one call.
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            run_child(socket.socket(fileno=descriptors[0]), descriptors[1])
        for descriptor in descriptors:
            os.close(descriptor)


def run_child(connection: socket.socket, output: int) -> None:
    """Run one call: answer on `connection`, print into `output`, and end this process group."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        connection.sendall(f"{os.getpid()}\n".encode())
        action, variables = pickle.load(connection.makefile("rb"))
        threading.Thread(target=end_with_flow, args=[connection], daemon=True).start()
        os.environ.update(variables)
        connection.sendall(pickle.dumps((True, action())))
    # Also KeyboardInterrupt: whatever happened, the flow gets an answer.
    except BaseException as error:
        # A broken pipe: the flow has stopped this call and no longer listens.
        if not isinstance(error, StudyError | KeyboardInterrupt | BrokenPipeError):
            traceback.print_exc()
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            connection.sendall(pickle.dumps((False, reason)))
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.killpg(0, signal.SIGKILL)


def end_with_flow(connection: socket.socket) -> None:
    """Wait until the flow closes `connection`, then end this child's group."""
    read(connection.fileno())
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
