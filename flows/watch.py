"""Run the study when its data has changed at the source, or its parameters or code here.

`make ui` serves it with a daily schedule; there a change starts a run of the deployment
study/study. The watch starts it directly and not by an event and an automation, which could be
switched off or missing, and would not show the reason on the run's page.
"""

import json
import signal
from typing import Any

from prefect import flow, tags
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows import repository, runs, server, source
from flows.dag import Dag
from flows.lock import study_is_running
from flows.output import Log
from flows.study import study
from hemotune.errors import StudyError


@flow(name="watch", flow_run_name="watch")
def watch() -> State[Any]:  # Any: Prefect's own
    """Check at little cost whether anything has changed; start the study only then."""
    with runs.working():
        last = runs.last_study()
        state = check_and_start(get_run_logger())
    if last and last.state:
        reason = f": {last.state.message}" if last.state.message else ""
        state.message = (
            f"{state.message}. The last study, '{last.name}', ended {last.state.name}{reason}"
        )
    return state


def check_and_start(log: Log) -> State[Any]:  # Any: Prefect's own
    """Return the state in which the watch ends."""
    if study_is_running():
        return Completed(message="a study is running; no other was started")
    try:
        dag, reasons, force = find_changes(log)
    except StudyError as error:
        return Failed(message=str(error))
    if not reasons:
        return Completed(
            message=f"nothing has changed in {len(dag.stages)} stages and at the source; no run was"
            " started"
        )
    for reason in reasons:
        log.info("%s", reason)
    summary = "; ".join(reasons[:3]) + (f" and {len(reasons) - 3} more" if reasons[3:] else "")
    deployment = runs.served_study()
    if deployment is None:  # this process runs it
        # From the start: the server does not see later ones at once.
        with tags(*runs.origin_tags(), runs.SCHEDULED):
            state = study(force=force, return_state=True)
        if state.is_completed():
            return Completed(message=f"ran the study: {summary}")
        return Failed(message=state.message)
    run: FlowRun = run_deployment(  # type: ignore[assignment]  # not async here
        deployment,
        flow_run_name=dag.title(force),
        parameters={"force": force},
        timeout=0,
        as_subflow=False,
        tags=[runs.SCHEDULED],
    )
    started = runs.wait_for_start(run.id)
    message = f"started the study '{run.name}': {summary}; it is {started.name}"
    if started.is_running() or started.is_completed():
        return Completed(message=message)
    reason = started.message or f"it has not started within {runs.STARTING} s"
    return Failed(message=f"{message}: {reason}")


def find_changes(log: Log) -> tuple[Dag, list[str], list[str]]:
    """Return the stages, why the study should run, and the stages that must run although
    nothing has changed here.

    Raises:
        StudyError: a setting is wrong, DVC cannot read its files, or the source does not answer.
    """
    dag = repository.inspect()
    force, reasons = [], []
    for stage in dag.stages:
        reasons += [f"{stage.name}: {change}" for change in stage.changed]
        if not stage.meta.source:
            continue
        now = source.query(stage)
        log.info("%s: %s", stage.name, json.dumps(now))
        if not stage.forced and source.differ(now, source.last_fetched(stage.meta)):
            reasons.append(f"{stage.name}: {source.CHANGED}")
            force.append(stage.name)
    return dag, reasons, force


def run() -> int:
    """Watch once, here, and print the outcome; return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server.for_this_process(), tags(runs.SCHEDULED):
        state = watch(return_state=True)
    print(state.message)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    raise SystemExit("error: flows.watch is not a command: use `hemotune watch`")
