"""Run the study again when its data has changed at the source, or its parameters or code here.

    python -m flows.watch        ask once, and run the study here if something changed

`make ui` serves it with a daily schedule; there a change starts a run of the deployment
study/study. That is done directly and not by an event that an automation turns into a run: one
thing less that can be switched off or missing, and the reason stands in the run's page.
"""

import json
import logging
import signal
import sys

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows import repository, runs, server, source
from flows.lock import is_studied
from flows.study import interrupt, study
from hemotune.errors import StudyError, entry_point


@flow(name="watch", flow_run_name="watch")
def watch():
    """Ask cheaply whether anything changed; start the study only then."""
    with runs.at_work():
        last = runs.last_study()
        state = look_and_start(get_run_logger())
    if last:
        why = f": {last.state.message}" if last.state.message else ""
        state.message += f". The last study, '{last.name}', ended {last.state.name}{why}"
    return state


def look_and_start(log: logging.Logger | logging.LoggerAdapter) -> State:
    """Return the state in which the watch ends."""
    if is_studied():
        return Completed(message="a study is running; it was left alone")
    try:
        count, reasons, force = look(log)
    except StudyError as error:
        return Failed(message=str(error))
    if not reasons:
        return Completed(
            message=f"nothing has changed in {count} stages and at the source; no run was started"
        )
    for reason in reasons:
        log.info("%s", reason)
    told = "; ".join(reasons[:3]) + (f" and {len(reasons) - 3} more" if len(reasons) > 3 else "")
    try:
        run = run_deployment(
            "study/study", parameters={"force": force}, timeout=0, as_subflow=False, tags=["watch"]
        )
    except ObjectNotFound:  # nothing is served: this process runs it
        state = study(force=force, return_state=True)
        return (
            Completed(message=f"ran the study: {told}")
            if state.is_completed()
            else Failed(message=state.message)
        )
    begun = runs.begun(run.id).state
    message = f"started the study '{run.name}' because of {told}; it is {begun.name}"
    if begun.is_running() or begun.is_completed():
        return Completed(message=message)
    return Failed(
        message=f"{message}: {begun.message or f'it has not begun within {runs.BEGINNING} s'}"
    )


def look(log):
    """Return how many stages there are, why the study should run, and the stages that must run
    though nothing here has changed.

    Raises:
        StudyError: a setting is wrong, DVC cannot read its files, or the source does not answer.
    """
    stages = repository.inspect()["stages"]
    force, reasons = [], []
    for stage in stages:
        reasons += [f"{stage['name']}: {change}" for change in stage["changed"]]
        if not source.is_source(stage):
            continue
        now = source.ask(stage)
        log.info("%s: %s", stage["name"], json.dumps(now))
        if not stage["force"] and source.differ(now, source.brought(stage)):
            reasons.append(f"{stage['name']}: {source.CHANGED}")
            force.append(stage["name"])
    return len(stages), reasons, force


@entry_point
def main():
    signal.signal(signal.SIGTERM, interrupt)
    with server.for_this_process():
        state = watch(return_state=True)
    print(state.message)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
