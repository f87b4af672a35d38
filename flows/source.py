"""Whether the data has changed where it comes from, found out without a download.

In dvc.yaml a stage that brings data says `meta: {source: COMMAND, state: FILE}`. The command prints
the state of the source as a JSON
object: another one when the source has changed. FILE, an output of the stage, holds the state that
the stage last brought. Two keys of the state have a meaning here:
    path     a file or folder on this machine, with files, bytes and newest as
    hemotune.tree.state_of gives them: every run looks at it asked    when a server gave the answer;
    it does not count as a difference
"""

import json
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import STATE
from hemotune.errors import StudyError
from hemotune.files import read_json, write_json
from hemotune.tree import state_of

ASKED = STATE / "asked.json"  # by stage: when flows.watch last asked a server
CHANGED = "a change of the data at its source"
PATIENCE = 120  # seconds


def is_source(stage: dict[str, Any]) -> bool:
    """Whether a stage's meta names a command that prints the state of its source."""
    return isinstance(stage["meta"].get("source"), str)


def ask(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the stage's source now, as its command prints it.

    Raises:
        StudyError: the source does not answer.
    """
    line = stage["meta"]["source"]
    try:
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise StudyError(f"{stage['name']}: `{line}` gave no answer within {PATIENCE} s") from None
    if answer.returncode:
        told = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[
            -1
        ].removeprefix("error: ")
        raise StudyError(f"{stage['name']}: the source did not answer: {told}")
    try:
        state = dict(json.loads(answer.stdout))
    except (ValueError, TypeError):
        raise StudyError(
            f"{stage['name']}: `{line}` printed no JSON object, but {answer.stdout[:80]!r}"
        ) from None
    if "asked" in state:
        write_json(ASKED, read_or_empty(ASKED) | {stage["name"]: state["asked"]})
    return state


def brought(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the source that the stage last brought; {} where nothing is known."""
    return read_or_empty(Path(stage["meta"].get("state", "")))


def read_or_empty(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def differ(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether two states are of different data."""
    return {**now, "asked": None} != {**before, "asked": None}


def has_changed_here(stage: dict[str, Any]) -> bool:
    """Whether the stage's source is a file or folder on this machine that has changed since the
    stage brought it; nothing is opened.

    A source that is not there is no reason to bring it again: data that was pulled from a remote
    needs none.
    """
    before = brought(stage) if is_source(stage) else {}
    if "path" not in before:
        return False
    try:
        return differ(before | asdict(state_of(Path(before["path"]).expanduser())), before)
    except OSError as error:
        print(
            f"warning: {stage['name']}: {error.filename}: cannot be read ({error.strerror})",
            file=sys.stderr,
            flush=True,
        )
        return False


def last_asked(stage: dict[str, Any]) -> str | None:
    """Return a sentence on when the server that the stage's data comes from was last asked; None
    where there is no server.
    """
    if not is_source(stage) or not (before := brought(stage).get("asked")):
        return None
    last = max(before, read_or_empty(ASKED).get(stage["name"], before))
    when = datetime.fromisoformat(last).strftime("%Y-%m-%d %H:%M UTC")
    return f"{stage['name']}: its source was last asked on {when}"
