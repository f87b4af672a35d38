"""One stage of dvc.yaml as one Prefect task: its process, its log, its progress, its outcome."""

import contextvars
import functools
import logging
import re
import threading
import time
from pathlib import Path

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows import STATE, artifacts, launcher, slots, source
from tasks.files import read_json, write_json

PROGRESS = re.compile(r"\[ *(\d+)%\] *(.*)")


def is_news(record):
    """Drop what Prefect logs of every failed state, with an empty traceback: the line that follows says it as well."""
    return not (record.exc_info and record.exc_info[0] is None)


logging.getLogger("prefect.task_runs").addFilter(is_news)


@task
def run_stage(stage, action, why, slot=None, all_slots=(), entries=None):
    """Do one stage's share of a study.

    Args:
        stage: as flows.repository.inspect gives it.
        action: "reproduce" (DVC decides whether it must run), "force" (it must), "incomplete" (run its other command on what there is),
            or "keep" (nothing changed).
        why: the reason for this action.
        slot: the slot that it may use, of `all_slots`.
        entries: where the stage runs in another checkout, the entries of dvc.lock for the stages that it depends on.

    Returns:
        A state: Completed (named Cached where nothing ran, Incomplete after "incomplete"), Failed or Cancelled. Its result is
        a dictionary {"why", "slot", "seconds", "outcome", ...}.
    """
    if action == "keep":
        return Completed(name="Cached", message=why, data={"why": why})
    log = get_run_logger()
    note = failure_note(stage["name"])
    note.unlink(missing_ok=True)
    environment = {"PYTHONUNBUFFERED": "1", **slots.environment(slot, all_slots)}
    started = time.monotonic()
    if slot:
        log.info("runs on slot %s", slot)
    with Watcher(stage["name"], log) as watcher:
        call = functools.partial(launcher.here().call, environment=environment, on_line=watcher.line, stage=stage["name"])
        try:
            if action == "incomplete":
                answer = call("command", line=stage["meta"]["incomplete"])
            elif entries is not None:
                answer = call("reproduce_elsewhere", force=action == "force", entries=entries)
            else:
                answer = call("reproduce", force=action == "force")
                if action == "reproduce" and source.has_changed_here(stage):  # what DVC had of it in its cache is older
                    answer = call("reproduce", force=True)
        except launcher.Stopped as stopped:
            return Cancelled(message=str(stopped))
    result = {"why": why, "slot": slot, "seconds": round(time.monotonic() - started, 1), **answer}
    if answer["outcome"] != "unchanged":
        for path in map(Path, stage["meta"].get("artifacts", [])):
            if path.exists() or answer["outcome"] == "ran":  # a stage that failed may have written why
                artifacts.publish(path, stage["name"])
    if answer["outcome"] in ("failed", "crashed"):
        return Failed(message=failure(note, watcher.error or answer["reason"]), data=result)
    if answer["outcome"] == "unchanged":
        return Completed(name="Cached", message="what it depends on is the same again", data=result)
    if action == "incomplete":
        return Completed(name="Incomplete", message=why, data=result)
    return Completed(message=f"ran {result['seconds']} s because of {why}", data=result)


def failure(note, reason):
    """The reason that the stage wrote itself into the file `note`; where it could not, `reason`, which is then written there."""
    if not note.exists():
        write_json(note, {"reason": reason})
    return read_json(note).get("reason", reason)


def failure_note(name):
    """Where a failed stage leaves its reason: for finetune@KEY .study/failures/KEY.json."""
    return STATE / "failures" / f"{name.rpartition('@')[2].replace('/', '-')}.json"


class Watcher:
    """Passes a stage's lines to the task's log, and moves its progress artifact by lines such as `[ 37%] fine-tune 12/32`.

    The artifact is moved by a thread of its own: a slow server must not hold up a stage whose output is not read.
    """

    def __init__(self, name, log):
        self.name, self.log, self.error, self.latest = name, log, None, None
        self.changed, self.ended = threading.Event(), threading.Event()
        self.mover = threading.Thread(target=contextvars.copy_context().run, args=[self.move], daemon=True)

    def __enter__(self):
        self.mover.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.changed.set()

    def line(self, text):
        self.log.info("%s", text)
        if text.startswith("error: "):
            self.error = text.removeprefix("error: ")
        if found := PROGRESS.match(text):
            self.latest = int(found[1]), found[2]
            self.changed.set()

    def move(self):
        """Show the latest progress, at most every second, until the stage has ended and its last line is shown."""
        artifact, shown, ended = None, None, False
        try:
            while not ended:
                self.changed.wait()
                self.changed.clear()
                ended = self.ended.is_set()
                if self.latest == shown:
                    continue
                percent, description = shown = self.latest
                if artifact is None:
                    artifact = create_progress_artifact(percent, key=artifacts.key(self.name, "progress"), description=description)
                else:
                    update_progress_artifact(artifact, percent, description=description)
                self.ended.wait(1)
        except Exception as error:  # noqa: BLE001 - a page that does not move is no reason to fail a stage
            self.log.warning("the progress cannot be shown: %s", error)
