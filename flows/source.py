"""Whether the data has changed at its source, found without a download.

In dvc.yaml a stage that fetches data has `meta: {source: COMMAND, state: FILE}`. The command prints
the state of the source as a JSON object, which differs once the source has changed. FILE, an output
of the stage, holds the state as of the last fetch. Two keys of the state have a meaning here:
    path     a file or folder on this machine, with files, bytes and newest as
             hemotune.tree.state_of returns them: every run checks it. A value may be such an
             object itself, for one more file
    asked    when a server gave the answer; it does not count as a difference
"""

import json
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import launcher
from flows.dag import Meta, Stage
from hemotune.errors import StudyError
from hemotune.files import read_json, write_json
from hemotune.paths import STATE
from hemotune.tree import state_of

LAST_QUERIES = STATE / "asked.json"  # by stage: when flows.watch last queried a server
CHANGED = "a change of the data at its source"
TIMEOUT = 120  # seconds

State = dict[str, Any]  # Any: what the command prints; only `path` and `asked` have a meaning


def query(stage: Stage) -> State:
    """Return the current state of the stage's source, as its command prints it.

    Raises:
        StudyError: the source does not answer.
    """
    line = stage.meta.source or ""
    try:
        done = subprocess.run(
            line,
            shell=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=launcher.environment(),
        )
    except subprocess.TimeoutExpired:
        raise StudyError(f"{stage.name}: `{line}` gave no answer within {TIMEOUT} s") from None
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise StudyError(
            f"{stage.name}: the source did not answer: {errors[-1].removeprefix('error: ')}"
        )
    try:
        state = dict(json.loads(done.stdout))
    except (ValueError, TypeError):
        raise StudyError(
            f"{stage.name}: `{line}` printed no JSON object, but {done.stdout[:80]!r}"
        ) from None
    if "asked" in state:
        write_json(LAST_QUERIES, read_or_empty(LAST_QUERIES) | {stage.name: state["asked"]})
    return state


def last_fetched(meta: Meta) -> State:
    """Return the state of the source as of the stage's last fetch; {} if it is not known."""
    return read_or_empty(Path(meta.state or ""))


def read_or_empty(path: Path) -> State:
    try:
        return dict(read_json(path))
    except (OSError, ValueError):
        return {}


def differ(now: State, before: State) -> bool:
    """Whether two states are of different data."""
    return {**now, "asked": None} != {**before, "asked": None}


def has_changed_here(name: str, meta: Meta) -> bool:
    """Whether a stage's source is a file or folder on this machine that has changed since the last
    fetch; no file is opened.

    A source that is not there does not count as changed: data that was pulled from a remote needs
    none.
    """
    before = last_fetched(meta) if meta.source else {}
    try:
        return any(
            differ(part | asdict(state_of(Path(part["path"]).expanduser())), part)
            for part in [before, *before.values()]
            if isinstance(part, dict) and "path" in part
        )
    except OSError as error:
        print(
            f"warning: {name}: {error.filename}: cannot be read ({error.strerror})",
            file=sys.stderr,
            flush=True,
        )
        return False


def last_query(stage: Stage) -> str | None:
    """Return a sentence on when the server that the stage's data comes from was last queried; None
    if there is no server.
    """
    if not stage.meta.source or not (before := last_fetched(stage.meta).get("asked")):
        return None
    last = max(before, read_or_empty(LAST_QUERIES).get(stage.name, before))
    when = datetime.fromisoformat(last).strftime("%Y-%m-%d %H:%M UTC")
    return f"{stage.name}: its source was last checked on {when}"
