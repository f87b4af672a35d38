"""Prefect's server, with its pages, as a process that ends with the process that started it.

    python -m flows.server SOCKET      what `running` starts; not for users

`prefect server start` cannot be used: it takes no open socket, and its clients wait for two seconds
whenever a request finds SQLite locked.
"""

import asyncio
import atexit
import contextlib
import errno
import http.client
import json
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
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import prefect

from hemotune.errors import StudyError
from hemotune.files import read_json, write_json
from hemotune.paths import STATE

ADDRESS_FILE = STATE / "server.json"  # of the server of this checkout, while one runs
PORT = 4200  # Prefect's own default
REMOVE_DATABASE = "remove the file: it holds only the history of runs, no data and no results"
# Seconds: about ten are usual, many more on a machine that is busy with other work.
START_LIMIT = 1800
STEADY = 600  # seconds; a server that lived longer had started well
EVENT_LOGGER = "prefect.server.events.services.event_persister"

Process = subprocess.Popen[bytes]
Message = MutableMapping[str, Any]  # of ASGI, as the next three; it holds what the protocol says
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Address:
    """What server.json holds."""

    api: str
    services: bool  # False: the server of a single run, which ends with it


def address() -> str | None:
    """Return the API's address that the user has set, else that of the server of this checkout, if
    `make ui` has started one.
    """
    from prefect.settings import PREFECT_API_URL

    # A server that a run started for itself ends with that run.
    if "PREFECT_API_URL" not in os.environ and (own := find_running()) and own.services:
        return own.api
    url: str | None = PREFECT_API_URL.value()
    return url


def find_running() -> Address | None:
    """Return the server of this checkout, or None if none answers.

    The file alone proves nothing: it outlives a reboot, after which another checkout's server may
    have the port.
    """
    try:
        found = read_json(ADDRESS_FILE)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{found['api']}/admin/settings", timeout=10) as answer:
            home = json.load(answer)["home"]
        own = Address(found["api"], found["services"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return own if home == os.environ["PREFECT_HOME"] else None


@contextlib.contextmanager
def running(
    host: str = "127.0.0.1", port: int | None = None, services: bool = True
) -> Iterator[str]:
    """Run a server in this checkout's .study/prefect during the block; yield its API's address.

    If it dies, it is restarted at the same address; see `restart`.

    Args:
        host: the address to listen at; "0.0.0.0" lets other machines reach it.
        port: by default 4200, or a free one if that is taken; 0 for any free one.
        services: also schedule runs, notice late ones and run automations; a single run needs none
            of this.

    Raises:
        StudyError: the port is taken, the database cannot be read by this Prefect, or the server
            does not start.
    """
    bypass_proxy()
    check_database()
    # This process keeps the socket: while a server restarts, requests wait instead of failing.
    with listening(host, port) as socket_, contextlib.ExitStack() as stack:
        place = "127.0.0.1" if host == "0.0.0.0" else host, socket_.getsockname()[1]
        api = "http://{}:{}/api".format(*place)
        # The server's input is a pipe that only this process holds: it closes however this process
        # ends.
        input_, life_line = os.pipe()
        stack.callback(os.close, input_)
        start = starter(socket_, input_, api, services)
        ended = threading.Event()
        process = start()
        keeper = threading.Thread(target=restart, args=[process, start, ended], daemon=True)
        try:
            wait_until_healthy(process, *place)
            write_json(ADDRESS_FILE, asdict(Address(api, services)))
            keeper.start()
            yield api
        finally:
            ended.set()
            with contextlib.suppress(OSError, ValueError):
                if read_json(ADDRESS_FILE)["api"] == api:
                    ADDRESS_FILE.unlink()
            os.close(life_line)
            if keeper.ident:
                keeper.join(8)
            else:
                process.wait()


def starter(socket_: socket.socket, input_: int, api: str, services: bool) -> Callable[[], Process]:
    """Return a function that starts a server at a socket; it lives until the pipe `input_`
    closes.
    """
    # The last two are Prefect's own, by which `prefect server start` passes its options on to the
    # server: there is no public way to pass them without it.
    variables = {
        "PREFECT_API_URL": api,
        # Relative: the page is also opened through a tunnel or from another machine.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT__SERVER_WEBSERVER_ONLY": "",
        "PREFECT__SERVER_EPHEMERAL": "" if services else "1",
    }

    def start() -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(socket_.fileno())],
            stdin=input_,
            pass_fds=[socket_.fileno()],
            env=os.environ | {name: value for name, value in variables.items() if value},
            start_new_session=True,
        )

    return start


def restart(process: Process, start: Callable[[], Process], ended: threading.Event) -> None:
    """Restart the server whenever it dies, until `ended`; after three deaths in a row end this
    process, which cannot work without it.

    Runs and stages notice the end of this process themselves.
    """
    deaths, started = 0, time.monotonic()
    while True:
        status = process.wait()
        if ended.is_set():
            return
        deaths = deaths + 1 if time.monotonic() - started < STEADY else 1
        if deaths == 3:
            ADDRESS_FILE.unlink(missing_ok=True)
            print(
                f"error: Prefect's server ended three times in a row (status {status}); its"
                " messages are above; start again with the same command",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
        process, started = start(), time.monotonic()
        print(
            f"Prefect's server ended with status {status}; it was restarted",
            file=sys.stderr,
            flush=True,
        )


@contextlib.contextmanager
def for_this_process() -> Iterator[None]:
    """Use a server during the block: the one at `address`, else a new one of this process.

    Raises:
        StudyError: no Prefect server answers at PREFECT_API_URL, the new one does not start, or the
            server went away during the block.
    """
    from prefect import tags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.runs import checkout_tag

    bypass_proxy()
    stack = contextlib.ExitStack()
    # Closed later than the block: when Python ends, Prefect sends its last log lines and events
    # before this.
    atexit.register(stack.close)
    url = address()
    if not url:
        print("starting Prefect's server for this run ...", flush=True)
        url = stack.enter_context(running(services=False))
    else:
        check_answer(url)
    print(f"watch it at {without_password(url).removesuffix('/api')}", flush=True)
    with temporary_settings({PREFECT_API_URL: url}), tags(checkout_tag()):
        try:
            yield
        except httpx.TransportError as error:
            raise StudyError(
                f"Prefect's server went away ({error}): run the same command again; it continues"
                " where this one stopped"
            ) from None


def check_answer(url: str) -> None:
    """Check that a Prefect server of this version answers, with the user's keys and certificates.

    Raises:
        StudyError: none does.
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
        except Exception as error:  # noqa: BLE001 - whatever is wrong, no Prefect server answers
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise StudyError(
        f"PREFECT_API_URL={without_password(url)}: no Prefect server of this version answers at"
        f" this address ({without_password(reason)}); correct the variable, or unset it: then the"
        " run starts its own server"
    )


def without_password(text: str) -> str:
    """Remove from addresses what precedes the host: `https://user:password@host`."""
    return re.sub(r"//[^/\s]*@", "//", text)


def bypass_proxy() -> None:
    """Let this machine's processes reach the server on it without the network's proxy."""
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in exempt.split(","):
        # If both are set, the lower-case name wins.
        os.environ["no_proxy"] = f"{exempt},127.0.0.1".lstrip(",")


def listening(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens, for a server that is yet to be started.

    A port that is chosen, released and taken again some seconds later may be another's by then.

    Raises:
        StudyError: the port is taken or does not exist, or the host is not of this machine.
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
    """Check that this Prefect can read the database of an earlier server, if there is one.

    Raises:
        StudyError: it was written by a newer Prefect or is damaged.
    """
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
        # It has no table of Prefect's yet, or is busy: the server can handle both.
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: {error}; {REMOVE_DATABASE}") from None
    known = migrations()
    if unknown := set(revisions) - known:
        raise StudyError(
            f"{path} was written by a newer Prefect than {prefect.__version__} (revision"
            f" {unknown.pop()}); install that one, or {REMOVE_DATABASE}"
        )


def migrations() -> set[str]:
    """Return the revisions of the database that this Prefect knows.

    Prefect has no function for this that does not load its whole server, which takes seconds.
    """
    folder = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    text = "\n".join(file.read_text(encoding="utf-8") for file in folder.glob("*.py"))
    return set(re.findall(r"""^revision\b.*["'](\w+)["']""", text, re.MULTILINE))


def wait_until_healthy(process: Process, host: str, port: int) -> None:
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
                f"Prefect's server closed the connection: {error}; its messages are above"
            ) from None
    if status != 200:
        raise StudyError(
            f"Prefect's server is not healthy: it answers with status {status}; its messages are"
            " above"
        )


def retry_if_locked(app: App, tries: int = 10, pause: float = 0.03) -> App:
    """Wrap an ASGI application so that a request which finds the database locked is retried here.

    SQLite refuses at once to write in a transaction that began to read before another one wrote.
    Prefect then answers 503, and its client waits for two seconds before it retries: this delayed
    one in five task starts.
    """

    async def retrying_app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        request = [await receive()]
        while request[-1].get("more_body"):
            request.append(await receive())
        for attempt in range(1, tries + 1):
            if not await is_locked(request, scope, receive, send, last=attempt == tries):
                return
            await asyncio.sleep(pause * attempt)

    async def is_locked(
        request: list[Message], scope: Message, receive: Receive, send: Send, last: bool
    ) -> bool:
        """Answer a request, unless the answer is 503 and this is not the last try."""
        left, locked = iter(request), False

        async def receive_again() -> Message:
            return next(left, None) or await receive()

        async def send_unless_locked(message: Message) -> None:
            nonlocal locked
            locked = locked or (
                message["type"] == "http.response.start" and message["status"] == 503 and not last
            )
            if not locked:
                await send(message)

        try:
            await app(dict(scope), receive_again, send_unless_locked)
        except Exception:
            if not locked:
                raise
        return locked

    return retrying_app


def is_no_resent_event(record: logging.LogRecord) -> bool:
    """Whether a log record is not about events that the database already holds.

    After a restart clients send again what the old server did not confirm. Prefect cannot store a
    batch of only such events, and in the end drops it with a traceback. Its feed of events may then
    lack some; runs and logs are complete.
    """
    error = record.exc_info and record.exc_info[1]
    return not (error and "NOT NULL constraint failed: events.occurred" in str(error))


def serve(socket_: socket.socket) -> None:
    """Answer at a socket that listens, until the input of this process closes."""
    # Prefect has no setting for this traceback.
    logging.getLogger(EVENT_LOGGER).addFilter(is_no_resent_event)
    server = None

    def end_with_parent() -> None:
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

    create_ui_app = prefect_server.create_ui_app
    # Prefect gives a server with few services no pages, and has no setting for it; ours has them,
    # for a run prints where to watch it.
    prefect_server.create_ui_app = lambda ephemeral: create_ui_app(ephemeral=False)
    app = retry_if_locked(prefect_server.create_app())
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    server.run(sockets=[socket_])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
