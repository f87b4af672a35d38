"""One stage of dvc.yaml as one Prefect task: its process and its outcome."""

import contextlib
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed, Pending

from flows import artifacts, launcher, output, repository, source
from flows.dag import Stage
from flows.repository import Entries, Outcome
from hemotune.files import read_json, write_json
from hemotune.paths import FAILURES


def is_no_empty_traceback(record: logging.LogRecord) -> bool:
    """Whether a log record is not the empty traceback that Prefect logs of every failed state: the
    next line gives the reason as well.
    """
    return not (record.exc_info and record.exc_info[0] is None)


# Prefect has no setting for this line.
logging.getLogger("prefect.task_runs").addFilter(is_no_empty_traceback)


@dataclass(frozen=True)
class Decision:
    """What a study does with a stage.

    reproduce: DVC decides whether it must run; force: it must; incomplete: run its other command on
    what there is; keep: nothing has changed; skip: one of its upstream stages is missing.
    """

    action: Literal["reproduce", "force", "incomplete", "keep", "skip"]
    why: str


@dataclass(frozen=True)
class Place:
    """Where a stage runs, and with what."""

    run: str  # name of the run's folder of logs
    variables: dict[str, str]  # of the environment
    slot: str | None = None
    # In another checkout: the entries of dvc.lock for its upstream stages. None: in this checkout.
    entries: Entries | None = None


@task
def run_stage(stage: Stage, decision: Decision, place: Place) -> State[Any]:  # Any: Prefect's own
    """Do one stage's share of a study.

    Returns:
        Completed (named Cached if nothing ran, Incomplete after "incomplete"), Failed, Cancelled
        or, after "skip", Pending (named NotReady, as Prefect does). The result of a Completed or
        Failed state is an Outcome.
    """
    if decision.action == "skip":
        return Pending(name="NotReady", message=decision.why)
    if decision.action == "keep":
        return Completed(name="Cached", message=decision.why, data=Outcome("unchanged"))
    log = get_run_logger()
    note = failure_note(stage)
    note.unlink(missing_ok=True)
    if place.slot:
        log.info("runs on slot %s", place.slot)
    path, started = output.path_of_log(place.run, stage.name), time.monotonic()
    with output.Watcher(stage.name, log, path) as watcher:
        try:
            outcome = execute(stage, decision, place, watcher)
        except launcher.CallFailed as error:
            outcome = Outcome("failed", reason=str(error))
        except launcher.Stopped as stopped:
            return Cancelled(message=str(stopped))
        if outcome.kind == "ran":
            watcher.complete()
    publish_artifacts(stage, outcome)
    if outcome.kind == "failed":
        reason = record_failure(note, reason_of(outcome, watcher.error))
        return Failed(message=f"{reason} (its whole output: {path})", data=outcome)
    return succeeded(decision, outcome, seconds=time.monotonic() - started)


def execute(stage: Stage, decision: Decision, place: Place, watcher: output.Watcher) -> Outcome:
    """Carry out the decision in a child of the launcher, with all output passed to `watcher`."""

    def call(action: partial[Outcome]) -> Outcome:
        variables = {"PYTHONUNBUFFERED": "1", **place.variables}
        return launcher.current().call(action, variables, watcher.line, watcher.write)

    force = decision.action == "force"
    if decision.action == "incomplete" and stage.meta.incomplete:
        return call(partial(repository.run_command, stage.meta.incomplete))
    if place.entries is not None:
        return call(partial(repository.reproduce_elsewhere, stage.name, place.entries, force))
    outcome = call(partial(repository.reproduce, stage.name, force))
    # If the source has changed, what DVC restored or kept is older.
    if not force and source.has_changed_here(stage.name, stage.meta):
        outcome = call(partial(repository.reproduce, stage.name, force=True))
    return outcome


def publish_artifacts(stage: Stage, outcome: Outcome) -> None:
    """Show the files that the stage names; a stage that failed may have written some of them."""
    if outcome.kind != "unchanged":
        for title, path in (stage.meta.artifacts or {}).items():
            if Path(path).exists() or outcome.kind == "ran":
                artifacts.publish(title, Path(path))


def succeeded(decision: Decision, outcome: Outcome, seconds: float) -> State[Any]:  # Any: Prefect's
    """Return the state of a stage that did not fail: its name and message say whether it ran."""
    if outcome.kind == "unchanged":
        name, message = "Cached", "its inputs are the same as before"
    elif outcome.kind == "restored":
        name, message = "Cached", f"DVC restored the results of an earlier run: {decision.why}"
    elif decision.action == "incomplete":
        name, message = "Incomplete", decision.why
    else:
        name, message = "Completed", f"ran for {seconds:.1f} s: {decision.why}"
    return Completed(name=name, message=message, data=outcome)


def reason_of(outcome: Outcome, printed: str | None) -> str:
    """Return why a stage failed: the error that it printed, if its command ended by itself with a
    failure, else what DVC reports.

    A command that was killed may have printed an error that it had overcome; so may one whose
    outputs DVC then misses.
    """
    if printed and ", exited with " in outcome.reason:
        return launcher.shorten(printed, 1000)
    return outcome.reason


def record_failure(note: Path, reason: str) -> str:
    """Return the reason that the stage itself wrote into the file `note`; if it wrote none, write
    `reason` there and return it.
    """
    if note.exists():
        return str(read_json(note).get("reason", reason))
    with contextlib.suppress(OSError):  # a full disk
        write_json(note, {"reason": reason})
    return reason


def failure_note(stage: Stage) -> Path:
    """Where a failed stage leaves its reason: for finetune@KEY .study/failures/KEY.json."""
    return FAILURES / f"{stage.key.replace('/', '-')}.json"
