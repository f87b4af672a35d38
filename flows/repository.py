"""What the flow does through DVC, at the top folder of a checkout. Functions that write or run
something are called in a child of flows.launcher.

DVC's own lock and its table of busy paths make it safe to `reproduce` different stages at the same
time: a process holds the lock only before and after its stage's command (shown in
tests/flows/test_flow.py).
"""

import contextlib
import importlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows import launcher, source
from flows.dag import Dag, Meta, Stage
from hemotune.errors import StudyError
from hemotune.files import write_text

if TYPE_CHECKING:
    import dvc.repo
    import dvc.stage

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")
Entries = dict[str, Any]  # stages of dvc.lock by name; what DVC writes there is DVC's own

# DVC warns about the stages of a killed run when it removes them from its table of busy paths:
# nothing is wrong then.
logging.getLogger("dvc.rwlock").setLevel(logging.ERROR)

# What DVC imports only when it needs it. A child would import it again after each fork, a second in
# all, and DVC has no function that does so ahead. tests/flows/test_internals.py compares this list
# with what a child imports.
PRELOADED = [
    "dvc.cachemgr",
    "dvc.commands.repro",
    "dvc.data_cloud",
    "dvc.dependency",
    "dvc.dirs",
    "dvc.dvcfile",
    "dvc.lock",
    "dvc.parsing",
    "dvc.repo",
    "dvc.repo.artifacts",
    "dvc.repo.datasets",
    "dvc.repo.graph",
    "dvc.repo.index",
    "dvc.repo.metrics",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.repo.status",
    "dvc.repo.trie",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.stage.cache",
    "dvc.stage.run",
    "dvc.utils.strictyaml",
    "dvc_data.hashfile._progress",
    "dvc_data.hashfile.db.local",
    "dvc_data.hashfile.status",
    "networkx",
    "pyparsing",
    "ruamel.yaml",
    "scmrepo.git",
    "zc.lockfile",
]


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    kind: Literal["ran", "restored", "unchanged", "failed"]
    reason: str = ""  # of a failure
    lasting: bool = False  # its command ended with exit status 1: it would fail again
    entries: Entries = field(default_factory=dict)  # its own, if it ran in another checkout


def preload() -> None:
    """Import DVC, and let a process that waits for DVC's lock try 20 times a second, not twice."""
    for name in PRELOADED:
        importlib.import_module(name)
    import dvc.lock

    # No option of DVC sets this. With `wait` it is no limit: DVC sleeps a sixth of it between two
    # tries.
    dvc.lock.DEFAULT_TIMEOUT = 0.3


def open_repo() -> "dvc.repo.Repo":
    from dvc.repo import Repo

    # `dvc` commands have no option to wait for the lock; the argument is DVC's own, for its queue.
    repo = Repo(_wait_for_lock=True)
    repo.scm_context.quiet = True  # no advice on git after each stage
    return repo


def inspect() -> Dag:
    """Read dvc.yaml and find what has changed; if anything has, run the stages' checks.

    Raises:
        StudyError: a check failed, or DVC cannot read its files: nothing should run.
    """
    from dvc.exceptions import DvcException

    set_aside_damaged_lock()
    set_aside_damaged_rwlock()
    try:
        return read_and_check()
    except DvcException as error:
        raise StudyError(f"dvc: {error}") from None


def read_and_check() -> Dag:
    from dvc.utils.serialize import load_yaml

    try:
        dag = read_dag()
    except Exception:
        # A wrong value at which DVC fails: the check explains it better.
        if Path("dvc.yaml").exists():
            stages = load_yaml("dvc.yaml").get("stages", {}).values()
            check(Meta.parse(stage.get("meta")) for stage in stages)
        raise
    if any(stage.changed for stage in dag.stages):
        check(stage.meta for stage in dag.stages)
    return dag


def read_dag() -> Dag:
    # DVC prints its order and its graph, but returns neither from a documented function.
    from dvc.repo.reproduce import get_active_graph, plan_repro
    from dvc.utils.serialize import load_yaml

    with open_repo() as repo:
        status, locked = repo.status(), list(read_lock().get("stages", {}))
        graph = get_active_graph(repo.index.graph)
        stages = []
        for stage in plan_repro(graph, repo.stage.collect("dvc.yaml")):
            name, meta = stage.addressing, Meta.parse(getattr(stage, "meta", None))
            changed = reasons(status.get(name, []), known=name in locked)
            forced = source.has_changed_here(name, meta)
            stages.append(
                Stage(
                    name=name,
                    upstream=sorted(other.addressing for other in graph.successors(stage)),
                    changed=changed + [source.CHANGED] * forced,
                    forced=forced,
                    meta=meta,
                )
            )
        remote = repo.config["core"].get("remote")
    profile = load_yaml("params.yaml").get("profile")
    return Dag(stages, locked, remote, profile, revision())


def revision() -> str | None:
    """Return the commit of this checkout, with `-dirty` if a tracked file differs from it; None
    without one.
    """
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def stage_names() -> list[str]:
    """Return the names of all stages, in dvc.yaml's order."""
    with open_repo() as repo:
        return [stage.addressing for stage in repo.stage.collect("dvc.yaml")]


def check(metas: Iterable[Meta]) -> None:
    """Run each command that a stage names as its `check`, once.

    Raises:
        StudyError: one failed.
    """
    for line in dict.fromkeys(meta.check for meta in metas if meta.check):
        done = subprocess.run(
            line, shell=True, stderr=subprocess.PIPE, text=True, env=launcher.environment()
        )
        if done.returncode:
            message = done.stderr.strip()
            if not message.startswith("error: "):  # a traceback: its last line names the exception
                message = message.rpartition("\n")[2]
            raise StudyError(
                message.removeprefix("error: ")
                or f"`{line}` failed with exit status {done.returncode}"
            )


def reasons(status: list[Any], known: bool) -> list[str]:  # Any: strings and nested dictionaries
    """Turn DVC's status of a stage into short lines: `data/raw: modified`, `profiles/sample.yaml:
    training: modified`.

    Args:
        known: whether dvc.lock has the stage. If not, DVC calls all its files modified or deleted.
    """
    if status and not known:
        return ["no earlier result in dvc.lock"]
    lines = []
    for entry in status:
        if isinstance(entry, str):
            lines.append(entry)
            continue
        for kind, paths in entry.items():
            for path, state in paths.items():
                states = state.items() if isinstance(state, dict) else [("", state)]
                lines += [
                    f"{path}: {f'{key}: ' if key else ''}{value}"
                    for key, value in states
                    if kind == "changed deps" or value
                ]
    return lines


def reproduce(stage: str, force: bool = False) -> Outcome:
    """Run one stage if DVC finds that it must run, or in any case with `force`."""
    from dvc.exceptions import DvcException

    with open_repo() as repo:
        restored = record_restored(repo)
        try:
            ran = repo.reproduce(stage, single_item=True, force=force)
        except DvcException as error:
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            reason = str(cause)
            # hemotune/errors.py: exit status 1 means that the user has to fix something.
            return Outcome("failed", name_signal(reason), reason.endswith(", exited with 1"))
    return Outcome("restored" if restored else "ran" if ran else "unchanged")


def record_restored(repo: "dvc.repo.Repo") -> list[str]:
    """Return a list to which the name of each stage is added whose results DVC takes from its cache
    of earlier runs.
    """
    # DVC only prints which stages it restores.
    restore, restored = repo.stage_cache.restore, []

    def restore_and_record(stage: "dvc.stage.Stage", **options: Any) -> None:  # Any: DVC's own
        restore(stage, **options)  # raises an exception if there is nothing to restore
        restored.append(stage.addressing)

    repo.stage_cache.restore = restore_and_record
    return restored


def name_signal(reason: str) -> str:
    """Name the signal where DVC writes `exited with -9`."""
    text, _, status = reason.rpartition(", exited with ")
    try:
        code = int(status)
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name
    except ValueError:
        return reason
    return f"{text}, killed by signal {number} ({name})" if text else reason


def run_command(line: str) -> Outcome:
    """Run a stage's `incomplete` command outside DVC, for which the stage is still changed."""
    print(f"> {line}", flush=True)
    status = subprocess.call(line, shell=True)
    if status == 0:
        return Outcome("ran")
    return Outcome("failed", name_signal(f"failed to run: {line}, exited with {status}"))


def order_lock(names: list[str]) -> None:
    """Sort dvc.lock, into which parallel stages commit in any order: first these names, then the
    others as they are.
    """
    with open_repo() as repo, repo.lock:
        data = read_lock()
        entries = data.get("stages", {})
        place = {name: number for number, name in enumerate(names)}
        ordered = sorted(entries, key=lambda name: place.get(name, len(names)))
        if ordered != list(entries):
            data["stages"] = {name: entries[name] for name in ordered}
            write_lock(data)


def push(stages: list[str]) -> Entries:
    """Push the outputs of these stages to DVC's remote; return the entries by which another
    checkout can `pull` them.
    """
    from dvc.utils.serialize import load_yaml

    with open_repo() as repo:
        if stages:
            repo.push(targets=stages)
    entries = load_yaml(LOCK).get("stages", {}) if stages else {}
    return {name: entries[name] for name in stages}


def pull(entries: Entries) -> None:
    """Write entries of another checkout's dvc.lock into this one's, and pull their outputs."""
    with open_repo() as repo, repo.lock:
        data = read_lock() or {"schema": "2.0"}
        data["stages"] = dict(data.get("stages", {})) | entries
        write_lock(data)
    with open_repo() as repo:
        if entries:
            repo.pull(targets=list(entries), force=True)


def reproduce_elsewhere(stage: str, entries: Entries, force: bool = False) -> Outcome:
    """Like `reproduce`, in a checkout that gets other stages' outputs only through DVC's remote.

    Args:
        entries: those of its upstream stages; the outcome holds its own.
    """
    pull(entries)
    outcome = reproduce(stage, force)
    return outcome if outcome.kind == "failed" else replace(outcome, entries=push([stage]))


def read_lock() -> dict[str, Any]:  # Any: DVC's own
    """Return dvc.lock with its layout, as DVC reads it to change it; {} if there is none."""
    from dvc.utils.serialize import parse_yaml_for_update

    try:
        return parse_yaml_for_update(LOCK.read_text(encoding="utf-8"), LOCK) or {}
    except FileNotFoundError:
        return {}


def write_lock(data: dict[str, Any]) -> None:  # Any: DVC's own
    from dvc.utils.serialize import dumps_yaml

    write_text(LOCK, dumps_yaml(data))


def set_aside_damaged_lock() -> None:
    """Rename a dvc.lock that DVC was writing when it was killed: DVC refuses it, and finds the
    stages' outputs in its run cache.
    """
    from dvc.utils.serialize import YAMLFileCorruptedError

    with contextlib.suppress(YAMLFileCorruptedError):
        if not LOCK.exists() or "schema" in read_lock():
            return
    set_aside(LOCK)


def set_aside_damaged_rwlock() -> None:
    """Rename the table of busy paths that DVC was writing when it was killed: DVC refuses it, and
    creates a new one.

    It stays if a process holds the repository's lock, which may be writing the table now.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    if rwlock_is_whole():
        return
    with contextlib.suppress(LockError), Repo() as repo, repo.lock:
        if not rwlock_is_whole():
            set_aside(RWLOCK)


def set_aside(path: Path) -> None:
    aside = path.replace(f"{path}.damaged")
    print(f"warning: {path} is damaged; set aside as {aside}", file=sys.stderr, flush=True)


def rwlock_is_whole() -> bool:
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        SCHEMA(json.loads(RWLOCK.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return True
    except (ValueError, Invalid):
        return False
    return True
