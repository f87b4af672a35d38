"""Prefect's server as a process that ends with the process that started it: its start, restarts
and address. What runs in that process is flows/server_process.py.
"""

import atexit
import base64
import contextlib
import errno
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import prefect
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from flows.runs import origin_tags
from hemotune.errors import StudyError
from hemotune.files import read_json, write_json
from hemotune.paths import STATE

ADDRESS_FILE = STATE / "server.json"  # of the server of this checkout, while one runs
PORT = 4200  # Prefect's own default
REMOVE_DATABASE = "remove the file: it holds only the history of runs, no data and no results"
# Seconds: about ten are usual, many more on a machine that is busy with other work.
START_LIMIT = 1800
STEADY = 600  # seconds; a server that lived longer had started well

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Address:
    """What server.json holds."""

    api: str
    services: bool  # False: the server of a single run, which ends with it


def address(of_a_run: bool = False) -> str | None:
    """Return the API's address that the user has set, else that of the server of this checkout, if
    `make ui` has started one.

    Args:
        of_a_run: or if a run has started one for itself, which ends with that run.
    """
    if "PREFECT_API_URL" not in os.environ and (own := find_running()):
        if own.services or of_a_run:
            return own.api
    return of_others()


def find_running() -> Address | None:
    """Return the server of this checkout, or None if none answers.

    The file alone proves nothing: it outlives a reboot, after which another checkout's server may
    have the port.
    """
    try:
        found = read_json(ADDRESS_FILE)
        own = Address(found["api"], found["services"])
        answer = httpx.get(
            f"{own.api}/admin/settings", headers=login(), timeout=10, trust_env=False
        )
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            print(f"the server at {own.api} asks for a login: set PREFECT_API_AUTH_STRING for it")
        return own if answer.json()["home"] == os.environ["PREFECT_HOME"] else None
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None


def login() -> dict[str, str]:
    """Return the header of requests by which a server with a login lets them in."""
    login = get_current_settings().api.auth_string
    if login is None:
        return {}
    encoded = base64.b64encode(login.get_secret_value().encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def of_others() -> str | None:
    """Return the API's address that the user has set, in the environment or in Prefect's files."""
    return get_current_settings().api.url


@contextlib.contextmanager
def joined() -> Iterator[str]:
    """Yield the API's address that the user has set, for the block to use.

    Raises:
        StudyError: no Prefect server answers there.
    """
    bypass_proxy()
    url = of_others() or ""
    check_answer(url)
    print(f"using Prefect's server at {page_of(url)}", flush=True)
    yield url


def page_of(api: str) -> str:
    """Return the address of an API's page, and whether the user has set it."""
    page = without_password(api).removesuffix("/api")
    return f"{page} (PREFECT_API_URL)" if api == of_others() else page


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
    # The server's input is a pair of sockets whose other end only this process holds: it closes
    # however this process ends.
    input_, life_line = socket.socketpair()
    with input_, life_line, listening(host, port) as socket_:
        reachable = "127.0.0.1" if host == "0.0.0.0" else host
        api = f"http://{reachable}:{socket_.getsockname()[1]}/api"
        start = starter(socket_, input_, api, services)
        ended = threading.Event()
        process = start()
        keeper = threading.Thread(target=restart, args=[process, start, ended], daemon=True)
        try:
            wait_until_healthy(process, api)
            write_json(ADDRESS_FILE, asdict(Address(api, services)))
            keeper.start()
            yield api
        finally:
            ended.set()
            with contextlib.suppress(OSError, ValueError):
                if read_json(ADDRESS_FILE)["api"] == api:
                    ADDRESS_FILE.unlink()
            life_line.close()
            if keeper.ident:
                keeper.join(8)
            else:
                process.wait()


def starter(
    socket_: socket.socket, input_: socket.socket, api: str, services: bool
) -> Callable[[], Process]:
    """Return a function that starts a server at `socket_`; it lives until `input_` closes."""
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
    return lambda: subprocess.Popen(
        [sys.executable, "-m", "flows.server_process", str(socket_.fileno())],
        stdin=input_.fileno(),
        pass_fds=[socket_.fileno()],
        env=os.environ | {name: value for name, value in variables.items() if value},
        start_new_session=True,
    )


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
    stack = contextlib.ExitStack()
    # Closed later than the block: when Python ends, Prefect sends its last log lines and events
    # before this.
    atexit.register(stack.close)
    if url := address():
        bypass_proxy()
        check_answer(url)
    else:
        print("starting Prefect's server for this run ...", flush=True)
        url = stack.enter_context(running(services=False))
    print(f"watch it at {page_of(url)}", flush=True)
    with temporary_settings({PREFECT_API_URL: url}), tags(*origin_tags()):
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
        StudyError: the port is taken, or the host is not of this machine.
    """
    try:
        return socket.create_server((host, PORT if port is None else port))
    except OSError as error:
        if port is None:
            return listening(host, 0)
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is taken: choose another with --port, or 0 for any"
        else:
            reason = (
                f"cannot listen at {host}, port {port}: {error.strerror}; choose others with"
                " --host and --port"
            )
        raise StudyError(reason) from None


def check_database() -> None:
    """Check that this Prefect can read the database of an earlier server, if there is one.

    Raises:
        StudyError: it was written by a newer Prefect or is damaged.
    """
    url = get_current_settings().server.database.connection_url
    path = Path((url.get_secret_value() if url else "").removeprefix("sqlite+aiosqlite:///"))
    if not path.is_file():
        return
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as database:
        try:
            revisions = {row[0] for row in database.execute("select * from alembic_version")}
        # It has no table of Prefect's yet, or is busy: the server can handle both.
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: {error}; {REMOVE_DATABASE}") from None
    if unknown := revisions - migrations():
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


def wait_until_healthy(process: Process, api: str) -> None:
    """Wait until the server answers. A request that is sent before it is there waits in the
    socket's queue.

    Raises:
        StudyError: the process ends, does not answer in time, or answers with an error.
    """
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        if process.poll() is not None:
            raise StudyError(
                f"Prefect's server ended with status {process.returncode} before it was ready;"
                " its messages are above"
            )
        with contextlib.suppress(httpx.TransportError):
            status = httpx.get(f"{api}/health", timeout=5, trust_env=False).status_code
            if status == 200:
                return
            raise StudyError(
                f"Prefect's server is not healthy: it answers with status {status}; its messages"
                " are above"
            )
    raise StudyError(f"Prefect's server was not ready after {START_LIMIT} s")
