"""What the flow asks of DVC. Each action runs in a child of flows.launcher, at the top folder of a
checkout, and returns plain values.

DVC's own lock and its table of busy paths make it safe to run `reproduce` of different stages at
the same time: a process holds the lock only before and after its stage's command (shown in
tests/flows/test_flow.py).
"""

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

from flows import source
from hemotune.errors import StudyError
from hemotune.files import write_text

RWLOCK = Path(".dvc/tmp/rwlock")

# All that a child would otherwise import for itself, in every fork again.
PRELOADED = [
    "dvc.commands.repro",
    "dvc.dependency",
    "dvc.dvcfile",
    "dvc.lock",
    "dvc.parsing",
    "dvc.repo",
    "dvc.repo.artifacts",
    "dvc.repo.datasets",
    "dvc.repo.graph",
    "dvc.repo.index",
    "dvc.repo.metrics",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.repo.status",
    "dvc.repo.trie",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.stage.cache",
    "dvc.stage.run",
    "dvc_data.hashfile.db.local",
    "networkx",
    "scmrepo.git",
    "zc.lockfile",
]


def preload():
    """Import DVC, and let a process that waits for DVC's lock look for it 20 times a second instead
    of twice.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    import dvc.lock

    # With `wait` this is no limit: DVC sleeps a sixth of it between two tries.
    dvc.lock.DEFAULT_TIMEOUT = 0.3


def open_repo():
    from dvc.repo import Repo

    repo = Repo(_wait_for_lock=True)
    repo.scm_context.quiet = True  # no advice on git after each stage
    return repo


def inspect():
    """Read the DAG of dvc.yaml and ask DVC what has changed, once for all stages; where something
    has, run the stages' checks.

    Returns:
        {"stages": [{"name", "command", "upstream": names of the stages it depends on, "meta": dict,
        "changed": what DVC says, empty if nothing, "force": whether it must run even if DVC sees no
        change}], in the order in which `dvc repro` runs them, "lock": names in dvc.lock in their
        order, "remote": name or None}

    Raises:
        StudyError: a check failed, or DVC cannot read its files: nothing should run.
    """
    from dvc.exceptions import DvcException

    set_aside_damaged_lock()
    set_aside_damaged_rwlock()
    try:
        return inspect_and_check()
    except DvcException as error:
        raise StudyError(f"dvc: {error}") from None


def inspect_and_check():
    from dvc.utils.serialize import load_yaml

    try:
        found = ask_dvc()
    except (
        Exception
        # A wrong value on which DVC fails: the check explains it better.
    ):
        if Path("dvc.yaml").exists():
            check(load_yaml("dvc.yaml").get("stages", {}).values())
        raise
    if any(stage["changed"] for stage in found["stages"]):
        check(found["stages"])
    return found


def ask_dvc():
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with open_repo() as repo:
        status, lock = repo.status(), read_lock().get("stages", {})
        graph = get_active_graph(repo.index.graph)
        stages = [
            {
                "name": stage.addressing,
                "command": stage.cmd,
                "upstream": sorted(upstream.addressing for upstream in graph.successors(stage)),
                "meta": getattr(stage, "meta", None) or {},
                "changed": describe(
                    status.get(stage.addressing, []), known=stage.addressing in lock
                ),
            }
            for stage in plan_repro(graph, repo.stage.collect("dvc.yaml"))
        ]
        for stage in stages:
            stage["force"] = source.has_changed_here(stage)
            stage["changed"] += [source.CHANGED] * stage["force"]
        return {"stages": stages, "lock": list(lock), "remote": repo.config["core"].get("remote")}


def check(stages):
    """Run the commands that stages name as `check` in their meta."""
    for line in dict.fromkeys(
        stage["meta"]["check"] for stage in stages if "check" in stage.get("meta", {})
    ):
        done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = done.stderr.strip()
            # A traceback, say, whose last line names the exception
            if not said.startswith("error: "):
                said = said.rpartition("\n")[2]
            raise StudyError(
                said.removeprefix("error: ") or f"`{line}` failed with status {done.returncode}"
            )


def describe(status, known):
    """Turn DVC's status of a stage into short lines: `data/raw: modified`, `profiles/sample.yaml:
    training: modified`.

    Args:
        known: whether dvc.lock has the stage. Where it has not, DVC calls every file of the stage
            modified or deleted.
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


def reproduce(stage, force=False):
    """Run one stage if DVC finds that it must be run.

    Returns:
        {"outcome": "ran" | "restored" | "unchanged" | "failed", "reason": of a failure, "lasting":
        whether the stage said that it would fail again}
    """
    from dvc.exceptions import DvcException

    with open_repo() as repo:
        restored = note_restored(repo)
        try:
            ran = repo.reproduce(stage, single_item=True, force=force)
        except DvcException as error:
            cause = error
            while cause.__cause__:
                cause = cause.__cause__
            # hemotune/errors.py: with status 1 a stage says that somebody has to mend something.
            return {
                "outcome": "failed",
                "reason": readable(str(cause)),
                "lasting": str(cause).endswith(", exited with 1"),
            }
    return {"outcome": "restored" if restored else "ran" if ran else "unchanged"}


def note_restored(repo) -> list[str]:
    """Return a list that gets the name of each stage whose results DVC takes from its cache of
    earlier runs in place of running it.
    """
    restore, restored = repo.stage_cache.restore, []

    def restore_and_note(stage, **options):
        restore(stage, **options)  # raises an exception where there is nothing to restore
        restored.append(stage.addressing)

    repo.stage_cache.restore = restore_and_note
    return restored


def readable(reason):
    """Name the signal where DVC says `exited with -9`."""
    text, _, status = reason.rpartition(", exited with ")
    try:
        code = int(status)
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name
    except ValueError:
        return reason
    return f"{text}, killed by signal {number} ({name})" if text else reason


def command(stage, line):
    """Run a stage's other command outside DVC, which therefore still holds the stage for
    changed.
    """
    print(f"> {line}", flush=True)
    code = subprocess.call(line, shell=True)
    return (
        {"outcome": "ran", "changed": []}
        if code == 0
        else {"outcome": "failed", "reason": readable(f"failed to run: {line}, exited with {code}")}
    )


def order_lock(names):
    """Put the names given first in dvc.lock, in their order, and leave the others as they are:
    parallel stages commit in any order.
    """
    with open_repo() as repo, repo.lock:
        data = read_lock()
        entries = data.get("stages", {})
        ordered = [name for name in names if name in entries]
        ordered += [name for name in entries if name not in ordered]
        if ordered != list(entries):
            data["stages"] = {name: entries[name] for name in ordered}
            write_lock(data)
    return {}


def offer(stages):
    """Push what these stages made to DVC's remote; returns {"entries": their entries of dvc.lock},
    by which another checkout pulls it.
    """
    with open_repo() as repo:
        if stages:
            repo.push(targets=stages)
    entries = read_lock().get("stages", {})
    return {"entries": {name: plain(entries[name]) for name in stages}}


def adopt(entries):
    """Write entries of another checkout's dvc.lock into this one's, and pull what they stand
    for.
    """
    with open_repo() as repo:
        with repo.lock:
            data = read_lock() or {"schema": "2.0"}
            data["stages"] = dict(data.get("stages", {})) | entries
            write_lock(data)
    with open_repo() as repo:
        if entries:
            repo.pull(targets=list(entries), force=True)
    return {}


def reproduce_elsewhere(stage, entries, force=False):
    """Like `reproduce`, in a checkout that has what other stages made only by way of DVC's remote.

    Args:
        entries: those of dvc.lock for the stages that it depends on.

    Returns:
        as `reproduce`, and "entries": that of this stage
    """
    adopt(entries)
    answer = reproduce(stage, force)
    return answer if answer["outcome"] == "failed" else answer | offer([stage])


def plain(value):
    """Dictionaries, lists and scalars in place of the YAML parser's own classes, which also hold
    the layout of a file.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)


def read_lock():
    from dvc.utils.serialize import parse_yaml_for_update

    try:
        return parse_yaml_for_update(Path("dvc.lock").read_text(encoding="utf-8"), "dvc.lock") or {}
    except FileNotFoundError:
        return {}


def set_aside_damaged_lock():
    """Rename a dvc.lock that DVC was writing when it was killed: DVC refuses it, and finds what the
    stages made in its run cache.
    """
    from dvc.utils.serialize import YAMLFileCorruptedError

    try:
        whole = not Path("dvc.lock").exists() or "schema" in read_lock()
    except YAMLFileCorruptedError:
        whole = False
    if not whole:
        Path("dvc.lock").replace("dvc.lock.damaged")
        print(
            "warning: dvc.lock is damaged; set aside as dvc.lock.damaged",
            file=sys.stderr,
            flush=True,
        )


def set_aside_damaged_rwlock() -> None:
    """Rename the table of busy paths that DVC was writing when it was killed: DVC refuses it, and
    makes a new one.

    A process that holds the repository's lock may be writing the table at this moment; then it
    stays.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    if rwlock_is_whole():
        return
    try:
        with Repo() as repo, repo.lock:
            if not rwlock_is_whole():
                RWLOCK.replace(f"{RWLOCK}.damaged")
                print(
                    f"warning: {RWLOCK} is damaged; set aside as {RWLOCK}.damaged",
                    file=sys.stderr,
                    flush=True,
                )
    except LockError:
        return


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


def write_lock(data):
    from dvc.utils.serialize import dumps_yaml

    write_text("dvc.lock", dumps_yaml(data))


ACTIONS = {
    action.__name__: action
    for action in [inspect, reproduce, reproduce_elsewhere, command, order_lock, offer, adopt]
}
