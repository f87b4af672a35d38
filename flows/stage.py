"""One stage of dvc.yaml as one Prefect task: its process and its outcome."""

import contextlib
import logging
import time
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed, Pending, State

from flows import STATE, artifacts, launcher, output, slots, source
from hemotune.files import read_json, write_json


def is_news(record):
    """Drop what Prefect logs of every failed state, with an empty traceback: the line that follows
    says it as well.
    """
    return not (record.exc_info and record.exc_info[0] is None)


logging.getLogger("prefect.task_runs").addFilter(is_news)


@task
def run_stage(stage, action, why, run, slot=None, all_slots=(), entries=None):
    """Do one stage's share of a study.

    Args:
        stage: as flows.repository.inspect gives it.
        action: "reproduce" (DVC decides whether it must run), "force" (it must), "incomplete" (run
            its other command on what there is), "keep" (nothing changed), or "skip" (what it
            depends on is missing).
        why: the reason for this action.
        run: the name of the run's folder of logs.
        slot: the slot that it may use, of `all_slots`.
        entries: where the stage runs in another checkout, the entries of dvc.lock for the stages
            that it depends on.

    Returns:
        A state: Completed (named Cached where nothing ran, Incomplete after "incomplete"), Failed,
            Cancelled or, after "skip",
        Pending (named NotReady, as Prefect does). Its result is a dictionary {"why", "slot",
        "seconds", "outcome", ...}.
    """
    if action == "skip":
        return Pending(name="NotReady", message=why)
    if action == "keep":
        return Completed(name="Cached", message=why, data={"why": why})
    log = get_run_logger()
    note = failure_note(stage["name"])
    note.unlink(missing_ok=True)
    environment = {"PYTHONUNBUFFERED": "1", **slots.environment(slot, all_slots)}
    started = time.monotonic()
    if slot:
        log.info("runs on slot %s", slot)
    printed = output.path_of_log(run, stage["name"])
    with output.Watcher(stage["name"], log, printed) as watcher:
        try:
            answer = call(stage, action, entries, environment, watcher)
        except launcher.Stopped as stopped:
            return Cancelled(message=str(stopped))
    result = {"why": why, "slot": slot, "seconds": round(time.monotonic() - started, 1), **answer}
    if answer["outcome"] != "unchanged":
        for path in map(Path, stage["meta"].get("artifacts", [])):
            # A stage that failed may have written why
            if path.exists() or answer["outcome"] == "ran":
                artifacts.publish(path, stage["name"])
    if answer["outcome"] in ("failed", "crashed"):
        reason = failure(note, reason_of(answer, watcher.error))
        return Failed(message=f"{reason} (its whole output: {printed})", data=result)
    return success(action, result)


def call(
    stage: dict, action: str, entries: dict | None, environment: dict, watcher: output.Watcher
) -> dict:
    """Have the launcher do what `action` says, with all output passed to `watcher`; returns its
    answer.
    """
    how = {
        "environment": environment,
        "on_line": watcher.line,
        "copy": watcher,
        "stage": stage["name"],
    }
    if action == "incomplete":
        return launcher.here().call("command", line=stage["meta"]["incomplete"], **how)
    if entries is not None:
        return launcher.here().call(
            "reproduce_elsewhere", force=action == "force", entries=entries, **how
        )
    answer = launcher.here().call("reproduce", force=action == "force", **how)
    # What DVC had of it in its cache is older
    if action == "reproduce" and source.has_changed_here(stage):
        answer = launcher.here().call("reproduce", force=True, **how)
    return answer


def success(action: str, result: dict) -> State:
    """The state of a stage that did not fail; it tells by name and message whether anything ran."""
    if result["outcome"] == "unchanged":
        return Completed(name="Cached", message="what it depends on is the same again", data=result)
    if result["outcome"] == "restored":
        message = f"DVC restored the results of an earlier run because of {result['why']}"
        return Completed(name="Cached", message=message, data=result)
    if action == "incomplete":
        return Completed(name="Incomplete", message=result["why"], data=result)
    return Completed(message=f"ran {result['seconds']} s because of {result['why']}", data=result)


def reason_of(answer: dict, printed: str | None) -> str:
    """Why a stage failed: the error that it printed, if its command ended by itself with a failure,
    else what DVC says.

    A command that was killed may have printed an error that it had overcome; so may one whose
    outputs DVC then misses.
    """
    return (
        launcher.shorten(printed, 1000)
        if printed and ", exited with " in answer["reason"]
        else answer["reason"]
    )


def failure(note, reason):
    """The reason that the stage wrote itself into the file `note`; where it could not, `reason`,
    which is then written there.
    """
    if note.exists():
        return read_json(note).get("reason", reason)
    with contextlib.suppress(OSError):  # a full disk
        write_json(note, {"reason": reason})
    return reason


def failure_note(name):
    """Where a failed stage leaves its reason: for finetune@KEY .study/failures/KEY.json."""
    return STATE / "failures" / f"{name.rpartition('@')[2].replace('/', '-')}.json"
