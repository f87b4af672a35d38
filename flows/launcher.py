"""A process that has DVC loaded and forks a child for each stage: a fork costs 0.05 s, a fresh DVC
process more than a second.

Every child leads a session of its own. It holds one end of a socket whose other end only the flow
holds: when the flow stops the child, ends, or is killed with -9, that socket closes, and the child
ends its whole group: first with SIGINT, so that DVC gives back its locks and a task removes what is
half-written, then with SIGKILL. Nothing needs to be told, and nothing needs to survive to tell it.

The launcher never loads TensorFlow, which does not survive a fork: DVC starts each stage's command
as a program of its own.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

from hemotune.errors import StudyError

LONGEST_LINE = 20_000  # bytes; of a log line of more than a million Prefect cuts off the end
GRACE = 4.0  # seconds between SIGINT and SIGKILL; the flow promises that all is gone within ten


class Stopped(Exception):
    """The work was stopped from outside before it ended."""


class Launcher:
    """The flow's handle on the launcher process. `call` may be used by many threads at once.

    `keep` are file descriptors that the launcher and its children hold open as well, such as a lock
    that must outlive the flow until the last child is gone.
    """

    def __init__(self, keep=()):
        self.control, theirs = socket.socketpair()
        self.guard, self.calls, self.stopped = threading.Lock(), {}, False
        # A session of its own: Ctrl-C in a terminal reaches the flow alone, which then decides.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.launcher", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *keep],
            start_new_session=True,
        )
        theirs.close()

    def call(self, action, environment=None, on_line=print, copy=None, **arguments):
        """Run an action of flows.repository in a child and return its answer, a dictionary.

        Args:
            environment: variables set for the child; None as a value removes one.
            on_line: called with every line that the child or a program it starts prints; of very
                long ones the middle is left out.
            copy: has a method `write`, which gets all that is printed as it is.

        Raises:
            Stopped: `stop` was called, or was before.
        """
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        with self.guard:
            if self.stopped:
                raise Stopped("the study was stopped")
            try:
                socket.send_fds(self.control, [b"."], [theirs.fileno(), write])
            except OSError as error:
                raise Stopped(f"the launcher process is gone: {error}") from None
            finally:
                theirs.close()
                os.close(write)
            self.calls[ours] = None
        request = {"action": action, "environment": environment or {}, "arguments": arguments}
        try:
            # A child that is gone already answers by its silence
            with contextlib.suppress(OSError):
                ours.sendall(json.dumps(request).encode() + b"\n")
            answer = self.listen(ours, read, Lines(on_line, copy))
        finally:
            os.close(read)
            with self.guard:
                group = self.calls.pop(ours)
            ours.close()
        if self.stopped:
            raise Stopped("the study was stopped")
        if answer is None:  # the child died without a word; a program it started may live on
            end_group(group)
            return {"outcome": "crashed", "reason": "the stage's process was killed"}
        return answer

    def listen(self, connection, output, lines):
        """Pass on what comes from the pipe `output` until the child is gone; return its answer, or
        None if it gave none.
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
                    if key.fileobj is connection:
                        data = receive(connection)
                        answer += data
                        if self.calls[connection] is None and b"\n" in answer:
                            first, answer = answer.split(b"\n", 1)
                            self.calls[connection] = int(first)
                        if not data:
                            selector.unregister(connection)
                    else:
                        data = os.read(output, 65536)
                        lines.add(data)
                        if not data:
                            selector.unregister(output)
        # The child is gone; of what it left in the pipe take what is there, and wait for no stray
        # program that holds it open.
        os.set_blocking(output, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, 65536):
                lines.add(data)
        lines.add(b"\n")
        return json.loads(answer) if answer else None

    def stop(self):
        """Stop everything that runs and refuse whatever is still asked; returns when all children
        are gone, at the latest after 10 s.
        """
        with self.guard:
            self.stopped = True
            groups = [group for group in self.calls.values() if group]
            for connection in [*self.calls, self.control]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + GRACE + 2
        while any(map(alive, groups)) and time.monotonic() < until:
            time.sleep(0.05)
        for group in groups:
            end_group(group)
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.control.close()


_here, _guard = None, threading.Lock()


def start(keep=()):
    """Start this process's launcher, in place of an earlier one."""
    global _here
    _here = Launcher(keep)
    return _here


def here():
    """This process's launcher; on the worker of a cluster, where nobody called `start`, one is
    started by its first task.
    """
    with _guard:
        return _here or start()


def stop_here():
    """Stop what runs below this process, a worker of a cluster; its next task starts a launcher
    again.
    """
    global _here
    with _guard:
        if _here:
            _here.stop()
            _here = None


def receive(connection):
    try:
        return connection.recv(65536)
    except OSError:
        return b""


class Lines:
    """Cuts what a program prints into lines, as Launcher.call says."""

    def __init__(self, on_line, copy):
        self.on_line, self.copy, self.rest = on_line, copy, b""

    def add(self, data: bytes) -> None:
        if self.copy:
            self.copy.write(data)
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = shorten(rest, LONGEST_LINE)
        for line in lines:
            # A progress bar that rewrites its line ends each state with a carriage return: the last
            # one counts.
            text = (
                shorten(line, LONGEST_LINE)
                .decode(errors="replace")
                .rstrip("\r")
                .rpartition("\r")[2]
                .rstrip()
            )
            if text:
                self.on_line(text)


def shorten(text, longest):
    """Leave out the middle of `text`, str or bytes, where it is longer than `longest`."""
    gap = " ... " if isinstance(text, str) else b" ... "
    half = (longest - len(gap)) // 2
    return text if len(text) <= longest else text[:half] + gap + text[-half:]


def alive(group):
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_group(group):
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


# What follows runs in the launcher process.


def serve(control):
    """Fork a child for every pair of file descriptors that arrives, until the flow's end of
    `control` closes.
    """
    from flows import repository

    repository.preload()
    # Nobody asks for the children's status: they answer themselves
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        # One byte at a time: each byte carries the descriptors of one call.
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            run_child(socket.socket(fileno=descriptors[0]), descriptors[1])
        for descriptor in descriptors:
            os.close(descriptor)


def run_child(connection, output):
    """Run one call and end: answers on `connection`, prints into `output`, and leaves no process
    behind.
    """
    from flows import repository

    os.setsid()
    for number, handler in {
        signal.SIGCHLD: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }.items():
        signal.signal(number, handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        connection.sendall(f"{os.getpid()}\n".encode())
        request = json.loads(connection.makefile().readline())
        threading.Thread(target=end_with, args=[connection], daemon=True).start()
        for name, value in request["environment"].items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        answer = repository.ACTIONS[request["action"]](**request["arguments"])
        connection.sendall(json.dumps(answer).encode())
    except (
        BaseException
    ) as error:  # also KeyboardInterrupt: whatever happened, the flow hears of it
        # A broken pipe: the flow has stopped this call and no longer listens.
        if not isinstance(error, StudyError | KeyboardInterrupt | BrokenPipeError):
            traceback.print_exc()
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps({"outcome": "failed", "reason": reason}).encode())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os.killpg(0, signal.SIGKILL)


def end_with(connection):
    """Wait until the flow lets go of `connection`, then end this child's group."""
    receive(connection)
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
