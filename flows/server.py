"""Prefect's server, with its pages, as a process that ends with the process that started it.

python -m flows.server SOCKET      what `running` starts; not for users
"""

import asyncio
import atexit
import contextlib
import errno
import functools
import http.client
import logging
import os
import re
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from flows import SERVER
from hemotune.errors import StudyError
from hemotune.files import read_json, write_json

PORT = 4200  # Prefect's own default
REMOVE_DATABASE = "remove the file: it holds only the history of runs, no data and no results"
# Seconds; some ten are usual, many more on a machine that is busy with other work
START_LIMIT = 1800
STEADY = 600  # seconds; a server that lived longer had started well


@contextlib.contextmanager
def running(
    host: str = "127.0.0.1", port: int | None = None, services: bool = True
) -> Iterator[str]:
    """Run a server in this checkout's .study/prefect, and yield the address of its API; it ends
    with the block.

    If it dies earlier, it is started again at the same address; see `keep`.

    Args:
        host: the address it listens at; "0.0.0.0" for other machines to reach it.
        port: 4200 by default, or a free one where that is taken; 0 for any free one.
        services: also run what schedules, notices late runs and fires automations; one run alone
            needs none of it.

    Raises:
        StudyError: the port is taken, the database cannot be read by this Prefect, or the server
            does not start.
    """
    ask_directly()
    check_database()
    # This process keeps the socket: while a server starts again, requests wait instead of failing.
    with listening(host, port) as socket_, contextlib.ExitStack() as stack:
        place = "127.0.0.1" if host == "0.0.0.0" else host, socket_.getsockname()[1]
        api = "http://{}:{}/api".format(*place)
        # A pipe that only this process holds is the server's input: it closes however this process
        # ends.
        input_, life_line = os.pipe()
        stack.callback(os.close, input_)
        start = starter(socket_, input_, api, services)
        ended = threading.Event()
        process = start()
        keeper = threading.Thread(target=keep, args=[process, start, ended], daemon=True)
        try:
            wait_until_healthy(process, *place)
            write_json(SERVER, {"api": api, "services": services})
            keeper.start()
            yield api
        finally:
            ended.set()
            with contextlib.suppress(OSError, ValueError):
                if read_json(SERVER)["api"] == api:
                    SERVER.unlink()
            os.close(life_line)
            if keeper.ident:
                keeper.join(8)
            else:
                process.wait()


def starter(
    socket_: socket.socket, input_: int, api: str, services: bool
) -> Callable[[], subprocess.Popen]:
    """A function that starts a server at a socket; it lives until the pipe `input_` closes."""
    variables = {
        "PREFECT_API_URL": api,
        # Relative: the page is also opened through a tunnel or from another machine
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT__SERVER_WEBSERVER_ONLY": "",
        "PREFECT__SERVER_EPHEMERAL": "" if services else "1",
    }
    return functools.partial(
        subprocess.Popen,
        [sys.executable, "-m", "flows.server", str(socket_.fileno())],
        stdin=input_,
        pass_fds=[socket_.fileno()],
        env=os.environ | {name: value for name, value in variables.items() if value},
        start_new_session=True,
    )


def keep(
    process: subprocess.Popen, start: Callable[[], subprocess.Popen], ended: threading.Event
) -> None:
    """Start the server again whenever it dies, until `ended`; after three deaths in a row end this
    process, for nothing works without it.

    Runs that it served notice its end themselves, and so do stages.
    """
    deaths, started = 0, time.monotonic()
    while True:
        status = process.wait()
        if ended.is_set():
            return
        deaths = deaths + 1 if time.monotonic() - started < STEADY else 1
        if deaths == 3:
            SERVER.unlink(missing_ok=True)
            print(
                f"error: Prefect's server ended three times in a row (status {status}); its"
                " messages are above; start again with the same command",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
        process, started = start(), time.monotonic()
        print(
            f"Prefect's server ended with status {status}; it is started again",
            file=sys.stderr,
            flush=True,
        )


@contextlib.contextmanager
def for_this_process():
    """Have a server while the block runs: the one that PREFECT_API_URL names or `make ui` started,
    else one of this process's own.

    Raises:
        StudyError: no Prefect server answers at PREFECT_API_URL, the own one does not start, or it
            went away during the block.
    """
    from prefect import tags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.runs import checkout

    ask_directly()
    stack = contextlib.ExitStack()
    # Closed later than the block: when Python ends, Prefect sends the last log lines and events
    # before this.
    atexit.register(stack.close)
    url = PREFECT_API_URL.value()
    if not url:
        print("starting Prefect's server for this run ...", flush=True)
        url = stack.enter_context(running(services=False))
    else:
        check_answer(url)
    print(f"watch it at {without_password(url).removesuffix('/api')}", flush=True)
    with temporary_settings({PREFECT_API_URL: url}), tags(checkout()):
        try:
            yield
        except httpx.TransportError as error:
            raise StudyError(
                f"Prefect's server went away ({error}): run the same command again, it goes on"
                " where this one was"
            ) from None


def check_answer(url: str) -> None:
    """Ask for something that every Prefect server gives, with the user's own keys and certificates.

    Raises:
        StudyError: no answer, or that of something else.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            with get_client(sync_client=True) as client:
                client.read_flows(limit=1)
                client.raise_for_api_version_mismatch()
            return
        except httpx.HTTPStatusError as error:
            reason = f"status {error.response.status_code}"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an answer, it is no Prefect server's
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise StudyError(
        f"PREFECT_API_URL={without_password(url)}: no Prefect server of this version answers at"
        f" this address ({without_password(reason)}); correct the variable, or unset it: then the"
        " run starts its own server"
    )


def without_password(text: str) -> str:
    """Remove from addresses what stands before their host: `https://user:password@host`."""
    return re.sub(r"//[^/\s]*@", "//", text)


def ask_directly():
    """Let no proxy of this network stand between this machine's processes and the server on it."""
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in exempt.split(","):
        # The lower-case name wins where both are set
        os.environ["no_proxy"] = f"{exempt},127.0.0.1".lstrip(",")


def listening(host, port):
    """A socket that listens already, though the server that answers there is yet to be started.

    A port that is looked for, let go and taken again some seconds later may by then be another's.
    """
    wanted = [PORT, 0] if port is None else [port]
    for number in wanted:
        try:
            return socket.create_server((host, number))
        except OSError as error:
            taken, reason = error.errno == errno.EADDRINUSE, error.strerror
        except OverflowError:
            taken, reason = False, "a port is a number from 0 to 65535"
    if taken:
        raise StudyError(f"port {port} is taken: choose another with --port, or 0 for any")
    raise StudyError(
        f"cannot listen at {host}, port {wanted[-1]}: {reason}; choose others with --host and"
        " --port"
    )


def check_database() -> None:
    """Look whether this Prefect can read the database that an earlier server left; there may be
    none.

    Raises:
        StudyError: it was written by a newer Prefect or is damaged.
    """
    import prefect
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    path = Path(
        str(PREFECT_API_DATABASE_CONNECTION_URL.value()).removeprefix("sqlite+aiosqlite:///")
    )
    if not path.is_file():
        return
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as database:
        try:
            revisions = [
                row[0] for row in database.execute("select version_num from alembic_version")
            ]
        except (
            sqlite3.OperationalError
        ):  # not yet a table of Prefect's, or busy: the server sees to it
            return
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: {error}; {REMOVE_DATABASE}") from None
    migrations = (
        Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    ).glob("*.py")
    known = re.findall(
        r"""^revision\b.*["'](\w+)["']""",
        "\n".join(file.read_text() for file in migrations),
        re.MULTILINE,
    )
    if unknown := set(revisions) - set(known):
        raise StudyError(
            f"{path} was written by a newer Prefect than {prefect.__version__} (revision"
            f" {unknown.pop()}); install that one, or {REMOVE_DATABASE}"
        )


def wait_until_healthy(process: subprocess.Popen, host: str, port: int) -> None:
    """Wait for the answer to a request that is sent before the server is there: it waits in the
    socket's queue.

    Raises:
        StudyError: the process ends, does not answer in time, or answers with an error.
    """
    until = time.monotonic() + START_LIMIT
    with contextlib.closing(http.client.HTTPConnection(host, port)) as connection:
        connection.request("GET", "/api/health")
        while not select.select([connection.sock], [], [], 0.2)[0]:
            if process.poll() is not None:
                raise StudyError(
                    f"Prefect's server ended with status {process.returncode} before it was ready;"
                    " its messages are above"
                )
            if time.monotonic() > until:
                raise StudyError(f"Prefect's server was not ready after {START_LIMIT} s")
        try:
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise StudyError(
                f"Prefect's server broke off: {error}; its messages are above"
            ) from None
    if status != 200:
        raise StudyError(
            f"Prefect's server is not well: it answers with status {status}; its messages are above"
        )


def patient(app, tries=10, pause=0.03):
    """Wrap an ASGI application so that a request which meets a locked database is tried again here.

    SQLite refuses at once to write in a transaction that began to read before another wrote.
    Prefect then answers 503, and its client sleeps two seconds before it asks again: one in five
    starts of a task was held up by that.
    """

    async def patient_app(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        request = [await receive()]
        while request[-1].get("more_body"):
            request.append(await receive())
        for turn in range(tries):
            left, refused = iter(request), False

            async def receive_again(left=left):
                return next(left, None) or await receive()

            async def send_unless_refused(message, last=turn == tries - 1):
                nonlocal refused
                refused = refused or (
                    message["type"] == "http.response.start"
                    and message["status"] == 503
                    and not last
                )
                if not refused:
                    await send(message)

            try:
                await app(dict(scope), receive_again, send_unless_refused)
            except Exception:
                if not refused:
                    raise
            if not refused:
                return
            await asyncio.sleep(pause * (turn + 1))

    return patient_app


def is_no_resent_event(record: logging.LogRecord) -> bool:
    """Whether a log record is not about events that the database holds already.

    After a restart clients send again what the old server did not confirm. Prefect cannot store a
    batch of nothing but such events, and in the end drops it with a traceback: only its feed of
    events may then lack some, no run and no log.
    """
    error = record.exc_info and record.exc_info[1]
    return not (error and "NOT NULL constraint failed: events.occurred" in str(error))


def serve(socket_: socket.socket) -> None:
    """Answer at a socket that listens, until the input of this process closes."""
    logging.getLogger("prefect.server.events.services.event_persister").addFilter(
        is_no_resent_event
    )
    server = None

    def end_with_parent():
        sys.stdin.read()
        if server is None:  # the imports below take seconds
            os._exit(1)
        logging.getLogger("uvicorn.error").disabled = True  # of requests that end with it
        server.should_exit = True
        time.sleep(6)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api import server as prefect_server

    with_pages = prefect_server.create_ui_app
    # Prefect gives a server with few services no pages; ours has them, for a run prints where to
    # watch it.
    prefect_server.create_ui_app = lambda ephemeral: with_pages(ephemeral=False)
    app = patient(prefect_server.create_app())
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    server.run(sockets=[socket_])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
