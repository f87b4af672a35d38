"""Flow runs: which checkout each is of, whether a process works on it, and the end of those that
nobody works on any more.
"""

import contextlib
import datetime
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import CancelledRun, FailedRun
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed, State

from flows import STATE, launcher
from flows.lock import is_held, is_studied

# Variable that names the process of flows.serve to the runs it starts
SERVED_BY = "STUDY_SERVED_BY"
ENDING = 12  # seconds in which a run has ended after flows.serve was killed
BEGINNING = 60  # seconds in which a requested run is Running, if nothing is wrong
BEGUN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]

LEFT = (
    "no process works on this run: it was killed, or the machine went down; the next run repeats"
    " only what is missing"
)
MISSED = "it was due while nothing was served; start it again if it is still wanted"


def is_news(record: logging.LogRecord) -> bool:
    """Whether a flow's log record tells more than the state that the flow returned, of which
    Prefect logs a traceback too.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], (FailedRun, CancelledRun)))


logging.getLogger("prefect.flow_runs").addFilter(is_news)
# Where the server is started again, which flows.server says, these would say it too, with
# tracebacks.
for observer in ("FlowRunCancellingObserver", "FlowRunSuspendingObserver"):
    logging.getLogger(f"prefect.{observer}").setLevel(logging.ERROR)


def checkout() -> str:
    """The tag of all runs of this checkout: one server may show the runs of several."""
    return f"checkout:{Path.cwd()}"


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Show that a process works on the current flow run, by a lock that goes when the process
    goes.
    """
    if served_by := os.environ.pop(SERVED_BY, None):
        threading.Thread(target=end_with, args=[int(served_by)], daemon=True).start()
    path = lock_file(flow_run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    finally:
        path.unlink(missing_ok=True)


def end_with(parent: int) -> None:
    """End this process when its parent, flows.serve, is gone: nobody could cancel the run any more.

    Prefect starts it without an inherited pipe that could close, so the parent's id is looked at.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)  # in which the flow stops its stages, those on a cluster too
    launcher.stop_here()
    os._exit(1)  # the flow itself goes on trying to reach a server that is gone as well


def lock_file(run: object) -> Path:
    return STATE / "runs" / str(run)


def settle(started: datetime.datetime) -> None:
    """End what an earlier server left behind, so that it blocks nothing and nothing starts unasked.

    Runs of this checkout that began and that no process works on become Crashed; runs that were due
    before `started` become Cancelled.
    """
    until = time.monotonic() + ENDING
    with get_client(sync_client=True) as client:
        for run in open_runs(client):
            if not is_of_this_checkout(run):
                continue
            # Or Late, which a server that has started calls it at once
            if run.state.is_scheduled():
                due = run.next_scheduled_start_time or run.expected_start_time
                state = Cancelled(message=MISSED) if due < started else None
            elif run.state.timestamp > started:
                state = None
            else:
                # One that a killed flows.serve had started needs some seconds to end.
                while run.deployment_id and is_worked_on(run) and time.monotonic() < until:
                    time.sleep(0.2)
                state = None if is_worked_on(run) else Crashed(message=LEFT)
            if state:
                client.set_flow_run_state(run.id, state, force=True)
                end_tasks(client, run, state)
                lock_file(run.id).unlink(missing_ok=True)
                print(f"the run '{run.name}' is now {state.name}: {state.message}", flush=True)


def end_tasks(client: SyncPrefectClient, run: FlowRun, state: State) -> None:
    """Give the tasks of a run that have not ended the state that the run ended with."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    for task in client.read_task_runs(flow_run_filter=of_run):
        if not (task.state and task.state.is_final()):
            client.set_task_run_state(task.id, state, force=True)


def begun(run: UUID) -> FlowRun:
    """Wait until a run is Running or has ended, at most BEGINNING seconds; returns it as it is
    then.
    """
    until = time.monotonic() + BEGINNING
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_flow_run(run)
            if found.state.is_running() or found.state.is_final() or time.monotonic() > until:
                return found
            time.sleep(1)


def last_study() -> FlowRun | None:
    """The study of this checkout that ended last, if there is one."""
    of_study = FlowFilter(name=FlowFilterName(any_=["study"]))
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        tags=FlowRunFilterTags(all_=[checkout()]),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=of_study, flow_run_filter=ended, sort=FlowRunSort.END_TIME_DESC, limit=1
        )
    return found[0] if found else None


def open_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """All runs of the two flows, of any checkout, that have not ended."""
    types = FlowRunFilterStateType(any_=[*BEGUN, StateType.SCHEDULED])
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["study", "watch"])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=types)),
        offset=len(found),
    ):
        found += page
    return found


def is_of_this_checkout(run: FlowRun) -> bool:
    """Whether a run is of this checkout: its tag tells; one of before there were tags is where the
    database is.
    """
    tags = [tag for tag in run.tags if tag.startswith("checkout:")]
    database = get_current_settings().server.database.connection_url.get_secret_value()
    return checkout() in tags if tags else str((STATE / "prefect").absolute()) in database


def is_worked_on(run: FlowRun) -> bool:
    """Whether a live process works on a run of this checkout; of a run without a tag only the
    study's lock tells.
    """
    return is_held(lock_file(run.id)) if checkout() in run.tags else is_studied()
