"""Prefect's server and the deployments of the study and its watch: what `make ui` runs. Ctrl-C ends
all of it.
"""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows import deployments, repository, runs, server
from flows.deployments import Registered
from flows.schedules import Times
from hemotune.errors import StudyError


def serve(
    host: str | None, port: int | None, cron: str, timezone: str | None, name: str | None
) -> int:
    """Serve both deployments until Ctrl-C.

    Args:
        host: the address at which the page listens; by default 127.0.0.1.
        port: see flows.server.running.
        cron: the schedule of the watch.
        timezone: of the schedule; by default this machine's.
        name: of both deployments; by default the flows' names, and at a server of others the name
            of this folder.

    Returns:
        The exit status.

    Raises:
        StudyError: the schedule is wrong, a server runs here already, the new one does not start,
            or none answers at PREFECT_API_URL.
    """
    times = Times.parse(cron, timezone)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    own = server.of_others() is None
    refuse_second_server(own, host, port)
    started = datetime.datetime.now(datetime.UTC)
    with ThreadPoolExecutor(1) as pool:
        stages = pool.submit(repository.stage_names)  # takes seconds, as the server's start does
        if own:
            warn_if_open(host or "127.0.0.1")
            print("starting Prefect's server ...", flush=True)
            serving = server.running(host or "127.0.0.1", port)
        else:
            serving = server.joined()
        with serving as api, temporary_settings({PREFECT_API_URL: api}):
            runs.end_abandoned(started, own)
            os.environ[runs.SERVED_BY] = str(os.getpid())
            # A pause is always a user's, and stays: nothing is due while nothing is served.
            runner = Runner(query_seconds=2, limit=None, pause_on_shutdown=False)
            served = deployments.register(
                runner, times, name or (None if own else runs.folder_name()), stages
            )
            print_welcome(api, served)
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(runner.start())
    return 0


def refuse_second_server(own: bool, host: str | None, port: int | None) -> None:
    """Raise StudyError if a server of this checkout runs, or an address is given for another's."""
    if found := server.find_running():
        whose = "" if found.services else ", for a run: watch it there, or wait for its end"
        raise StudyError(f"a server runs here already: {found.api.removesuffix('/api')}{whose}")
    if not own and (host is not None or port is not None):
        raise StudyError(
            "PREFECT_API_URL names a server that runs already: leave out --host and --port, or"
            " unset the variable"
        )


def print_welcome(api: str, served: Registered) -> None:
    shown = server.without_password(api)
    name = served.study.partition("/")[2]
    # Not the login itself: this output may be kept in a log.
    login = " PREFECT_API_AUTH_STRING=NAME:PASSWORD" if server.login() else ""
    print(
        f"\n  open    {shown.removesuffix('/api')}"
        f"\n  start   Deployments > {name} > Run, or:"
        f" PREFECT_API_URL={shown}{login} prefect deployment run {served.study}"
        f"\n  watch   for changes: {served.times}; to check at once run {served.watch}"
        "\n  end     Ctrl-C, which also ends a running study\n",
        flush=True,
    )


def warn_if_open(host: str) -> None:
    """Print that everybody may start runs, if other machines reach the page and it has no login."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        local = False
    if not local and get_current_settings().server.api.auth_string is None:
        print(
            f"warning: --host {host}: the page has no login: whoever reaches this machine can read"
            " everything and start runs. With PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD in the"
            " environment of `hemotune ui`, `run` and `watch` it asks for one",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit("error: flows.serve is not a command: use `hemotune ui`")
