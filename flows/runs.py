"""Flow runs: the checkout of each, whether a process works on it, and the end of those on which
none does.
"""

import contextlib
import datetime
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import FileLock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import (
    TERMINAL_STATES,
    DeploymentStatus,
    FlowRun,
    State,
    StateType,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, FailedRun
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed

from flows import launcher
from flows.lock import ENDING, is_held, study_is_running
from hemotune.paths import STATE

# Variable by which the runs that `hemotune ui` starts know its process id.
SERVED_BY = "STUDY_SERVED_BY"
STARTING = 60  # seconds within which a requested run is Running, if nothing is wrong
OBSERVERS = ["FlowRunCancellingObserver", "FlowRunSuspendingObserver"]  # loggers of Prefect's
SCHEDULED = "watch"  # tag of the watches and of the studies that they start
RECOVERED = "Recovered"  # state of a scheduled study that succeeds after one that failed
STUDIES = FlowFilter(name=FlowFilterName(any_=["study"]))
RAN = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]

ABANDONED = (
    "no process works on this run: it was killed, or the machine went down; the next run repeats"
    " only what is missing"
)
MISSED = "it was due while nothing was served; start it again if it is still needed"


def is_no_returned_state(record: logging.LogRecord) -> bool:
    """Whether a flow's log record is not Prefect's traceback of the state that the flow
    returned.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], (FailedRun, CancelledRun)))


def is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


# Prefect has no setting for these: a traceback of each returned state, and the warnings of
# observers that lose a server which flows.server restarts and reports in one line. Filters, for
# Prefect's own set-up of logging resets levels.
logging.getLogger("prefect.flow_runs").addFilter(is_no_returned_state)
for observer in OBSERVERS:
    logging.getLogger(f"prefect.{observer}").addFilter(is_error)


def checkout_tag() -> str:
    """Return the tag of all runs of this checkout: one server may show the runs of several."""
    return f"checkout:{Path.cwd()}"


def origin_tags() -> list[str]:
    """Return the tags of all runs of this checkout on this machine."""
    return [checkout_tag(), f"machine:{socket.gethostname()}"]


def folder_name() -> str:
    """Return the name of this checkout's folder, without what Prefect allows in no name."""
    return re.sub(r"[/%&<>]+", "-", Path.cwd().name) or "study"


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Mark the current flow run as one that a process works on: by a lock that ends with the
    process. Tag it as one of this checkout, which a run that a worker took is not.
    """
    if served_by := os.environ.pop(SERVED_BY, None):
        threading.Thread(target=end_with_parent, args=[int(served_by)], daemon=True).start()
    path = lock_file(flow_run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            describe(origin_tags())  # by its tags others look for the lock
            yield
    finally:
        path.unlink(missing_ok=True)


def describe(tags: Sequence[str], title: str | None = None) -> None:
    """Give the current flow run tags that it lacks, and a title that says what it does."""
    context = FlowRunContext.get()
    if not context or not (run := context.flow_run):
        return
    lacking = [tag for tag in tags if tag not in run.tags]
    # What prefect.runtime returns, too.
    run.tags, run.name = [*run.tags, *lacking], title or run.name
    if lacking or title:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, name=title, tags=run.tags)


def end_with_parent(parent: int) -> None:
    """End this process when its parent, `hemotune ui`, is gone: nobody could cancel the run then.

    Prefect starts it without an inherited pipe that could close, so its parent's id is polled.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)  # for the flow to stop its stages, also those on a cluster
    launcher.stop()
    os._exit(1)  # the flow itself keeps trying to reach a server that is gone as well


def lock_file(run: UUID | str | None) -> Path:
    return STATE / "runs" / str(run)


def end_abandoned(started: datetime.datetime, own: bool) -> None:
    """End the runs that an earlier `hemotune ui` left, so that they block nothing and none starts
    late.

    Runs of this checkout that had started and on which no process works become Crashed; runs that
    were due before `started` become Cancelled.

    Args:
        own: whether the server is this checkout's own, and not one of others.
    """
    until = time.monotonic() + ENDING
    with get_client(sync_client=True) as client:
        for run in unfinished_runs(client):
            if is_of_this_checkout(run, own) and (state := final_state(run, started, until)):
                client.set_flow_run_state(run.id, state, force=True)
                end_tasks(client, run, state)
                lock_file(run.id).unlink(missing_ok=True)
                print(f"the run '{run.name}' is now {state.name}: {state.message}", flush=True)


def final_state(
    run: FlowRun, started: datetime.datetime, until: float
) -> State[Any] | None:  # Any: Prefect's own
    """Return the state in which an unfinished run should end, or None to leave it.

    Args:
        until: time.monotonic() until which a run may still be ending.
    """
    if (
        run.state and run.state.is_scheduled()
    ):  # also Late, which a server that has just started calls it
        due = run.next_scheduled_start_time or run.expected_start_time
        return Cancelled(message=MISSED) if due and due < started else None
    if not run.state or run.state.timestamp > started:
        return None
    # One that a killed `hemotune ui` had started needs some seconds to end.
    while run.deployment_id and is_worked_on(run) and time.monotonic() < until:
        time.sleep(0.2)
    return None if is_worked_on(run) else Crashed(message=ABANDONED)


def end_tasks(
    client: SyncPrefectClient,
    run: FlowRun,
    state: State[Any],  # Any: Prefect's own
) -> None:
    """Give the unfinished tasks of a run the state in which the run ended."""
    # A page at a time: a task that has ended is not on the next one.
    while page := client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
        ),
    ):
        for task in page:
            client.set_task_run_state(task.id, state, force=True)


def wait_for_start(run: UUID) -> State[Any]:  # Any: Prefect's own
    """Wait until a run is Running or has ended, at most STARTING seconds; return its state then."""
    until = time.monotonic() + STARTING
    with get_client(sync_client=True) as client:
        while True:
            state = client.read_flow_run(run).state
            if state and (state.is_running() or state.is_final() or time.monotonic() > until):
                return state
            time.sleep(1)


def has_recovered() -> bool:
    """Whether the current study is a scheduled one, and the one before it failed."""
    if SCHEDULED not in flow_run.tags:
        return False
    last = last_study(RAN, [SCHEDULED])
    return bool(last and last.state and not last.state.is_completed())


def last_study(
    ended: Iterable[StateType] = TERMINAL_STATES, tags: Sequence[str] = ()
) -> FlowRun | None:
    """Return the study of this checkout that ended last, if there is one.

    Args:
        ended: the types of its state.
        tags: what else it is tagged with.
    """
    of_checkout = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ended))),
        tags=FlowRunFilterTags(all_=[*origin_tags(), *tags]),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=STUDIES,
            flow_run_filter=of_checkout,
            sort=FlowRunSort.END_TIME_DESC,
            limit=1,
        )
    return found[0] if found else None


def served_study() -> UUID | None:
    """Return the deployment by which this checkout's study can be started, if one is served."""
    of_checkout = DeploymentFilter(tags=DeploymentFilterTags(all_=origin_tags()))
    with get_client(sync_client=True) as client:
        found = client.read_deployments(flow_filter=STUDIES, deployment_filter=of_checkout)
    served = [deployment for deployment in found if deployment.status == DeploymentStatus.READY]
    return served[0].id if served else None


def unfinished_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Return all runs of the two flows, of any checkout, that have not ended."""
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["study", "watch"])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
        ),
        offset=len(found),
    ):
        found += page
    return found


def is_of_this_checkout(run: FlowRun, own: bool) -> bool:
    """Whether a run is of this checkout: by its tags, or, if it is older than tags, by the
    database.

    At its own server the machine does not count: a container has another name at each start.
    """
    if not own:
        return set(origin_tags()) <= set(run.tags)
    tags = [tag for tag in run.tags if tag.startswith("checkout:")]
    if tags:
        return checkout_tag() in tags
    url = get_current_settings().server.database.connection_url
    return url is not None and str((STATE / "prefect").absolute()) in url.get_secret_value()


def is_worked_on(run: FlowRun) -> bool:
    """Whether a live process works on a run of this checkout: by the run's lock, or, if it has no
    tag, by the study's.
    """
    return is_held(lock_file(run.id)) if checkout_tag() in run.tags else study_is_running()
