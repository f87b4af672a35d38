"""The DAG of dvc.yaml as a Prefect flow: every stage whose inputs are ready runs at once, as far as
slots allow.

Stages, their dependencies and their changes come from DVC; no stage is named here. flows.dag.Meta
lists what a stage's `meta` in dvc.yaml may hold.
"""

import collections
import contextlib
import queue
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import allow_failure, flow
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import Task

from flows import (
    artifacts,
    cluster,
    gpu_sharing,
    launcher,
    mps,
    repository,
    runs,
    server,
    source,
)
from flows import slots as slot_list
from flows.dag import Stage
from flows.lock import AnotherStudy, name_holder, sole_study
from flows.output import folder_of_run
from flows.repository import Outcome
from flows.stage import Decision, Place, run_stage
from hemotune.errors import StudyError

RETRY_DELAYS = [5, 30, 120]  # seconds

# Any: Prefect's own, here and below.
States = dict[str, State[Any]]  # final states of tasks by stage name
Future = PrefectFuture[Any]


@flow(name="study", log_prints=False)
def study(
    slots: slot_list.Slots = "auto",
    per_gpu: slot_list.PerGpu = "auto",
    force: Sequence[str] = (),
    dask: str | None = None,
) -> State[Any]:  # Any: Prefect's own
    """Run every stage of dvc.yaml that has changed, in parallel.

    Args:
        slots: where stages with `gpu: true` run, one on each: device ids separated by commas, such
            as `0,1` for two GPUs or `cpu,cpu` for two stages at a time on the CPU. `auto`: all
            GPUs, or `cpu,cpu` if there are none.
        per_gpu: how many stages share each device, 1 or more. `auto`: as many as the memory of the
            GPU holds.
        force: stages to run even if nothing has changed.
        dask: address of a Dask scheduler on whose workers the stages with `gpu: true` run.
    """
    try:
        with runs.working(), sole_study(f"the run '{flow_run.name}'") as lock:
            return run_alone(lock, slots, per_gpu, force, dask)
    except AnotherStudy as error:
        return Cancelled(message=str(error))
    except StudyError as error:
        return Failed(message=str(error))


def run_alone(
    lock: int, slots: str, per_gpu: slot_list.PerGpu, force: Sequence[str], dask: str | None
) -> State[Any]:  # Any: Prefect's own
    """Run the study of this checkout, whose lock (a file descriptor) the caller holds.

    Raises:
        StudyError: a check failed, DVC cannot read its files, there is no such slot or stage, or no
            Dask scheduler answers at `dask`.
    """
    log, own, order = get_run_logger(), launcher.start(keep=[lock]), []
    at_last = contextlib.ExitStack()
    try:
        dag = own.call(repository.inspect, on_line=log.info)
        order = dag.lock_order()
        refuse_unknown(force, dag.stages)
        title = dag.title(force)
        runs.describe(dag.tags(), title)
        name_holder(lock, f"the run '{title}'")
        devices = slot_list.find_devices(slots, log.warning)
        slot_names = slot_list.name_slots(
            devices, gpu_sharing.per_device(per_gpu, devices, log.info)
        )
        service = at_last.enter_context(mps.running(slot_names, log))
        show(dag.stages, {})
        for line in filter(None, map(source.last_query, dag.stages)):
            log.info("%s", line)
        with cluster.connect(dask, dag.remote) if dask else contextlib.nullcontext() as workers:
            states = run_all(dag.stages, slot_names, force, workers, service)
        show(dag.stages, states)
        state = conclude(states)
        if state.is_completed() and runs.has_recovered():
            state.name = runs.RECOVERED
        return state
    finally:
        # However the study ends, also when it is cancelled from the page: no stage may outlive it.
        own.stop()
        at_last.close()
        repository.order_lock(order)


def refuse_unknown(force: Sequence[str], stages: list[Stage]) -> None:
    """Check that the stages to force exist.

    Raises:
        StudyError: one does not.
    """
    if unknown := sorted(set(force) - {stage.name for stage in stages}):
        raise StudyError(
            f"force: there is no stage {', '.join(unknown)}; `dvc stage list` names them"
        )


def run_all(
    stages: list[Stage],
    slots: list[str],
    force: Sequence[str],
    workers: cluster.Workers | None,
    service: dict[str, str],
) -> States:
    """Run each stage as soon as its upstream stages have ended and, if it needs a slot, one is
    free.

    Args:
        stages: in an order in which they can run.
        slots: names of all slots of this machine.
        force: names of stages to run even if nothing has changed.
        workers: of a cluster, on which stages that need a slot run instead.
        service: variables of the service by which stages share a GPU.
    """
    run, states, taken = folder_of_run(), States(), dict[str, str | None]()
    free, ended = collections.deque(slots), queue.SimpleQueue[Future]()
    futures: dict[str, Future] = {}
    while len(states) < len(stages):
        for stage in stages:
            if stage.name in futures or not states.keys() >= set(stage.upstream):
                continue
            decision = decide(stage, stages, states, stage.name in force)
            needs_slot = stage.meta.gpu and decision.action in ("reproduce", "force")
            if needs_slot and workers:
                upstream = [states[name] for name in stage.upstream]
                future = workers.submit(task_of(stage), stage, decision, run, upstream)
            elif needs_slot and not free:
                continue
            else:
                slot = taken[stage.name] = free.popleft() if needs_slot else None
                beside = slots if has_rivals(stage, stages) else slots[:1]
                variables = slot_list.variables(slot, beside) | (service if slot else {})
                place = Place(run, variables, slot)
                reported = [futures[n] for n in stage.upstream if has_reported(states[n])]
                future = submit(stage, decision, place, reported)
            futures[stage.name] = future
            future.add_done_callback(ended.put)
        future = ended.get()
        future.wait()
        stage = next(stage for stage in stages if futures.get(stage.name) is future)
        states[stage.name] = future.state
        if slot := taken.get(stage.name):
            free.append(slot)
        if workers:
            workers.fetch(stage, states[stage.name])
    return states


def has_reported(state: State[Any]) -> bool:  # Prefect's type of any result
    return not (state.is_crashed() or state.is_cancelled())


def submit(stage: Stage, decision: Decision, place: Place, after: list[Future]) -> Future:
    """Start a stage's task on this machine.

    Args:
        after: of upstream stages, failed ones too: Prefect's own rule would name these by the ids
            of their runs.
    """
    waits = [allow_failure(future) for future in after]
    return task_of(stage).submit(
        stage=stage, decision=decision, place=place, wait_for=waits, return_state=False
    )


def has_rivals(stage: Stage, stages: list[Stage]) -> bool:
    """Return whether another stage that takes a slot can run at the same time as `stage`.

    A stage that all others wait for has none, so it may use all cores.
    """
    return any(
        other.meta.gpu and other is not stage and stage.name not in other.upstream
        for other in stages
    )


def decide(stage: Stage, stages: list[Stage], states: States, forced: bool) -> Decision:
    """Choose what to do with a stage whose upstream stages have ended.

    Args:
        stages: all of the study.
        states: of the stages that have ended.
        forced: whether to run it even if nothing has changed.
    """
    upstream = {name: states[name] for name in stage.upstream}
    missing = [name for name, state in upstream.items() if not is_whole(state)]
    only_failed = all(upstream[name].is_failed() for name in missing)
    if missing and stage.meta.incomplete and only_failed and len(missing) < len(upstream):
        failures = [f"{name}: {upstream[name].message}" for name in missing]
        return Decision("incomplete", f"without {'; '.join(failures)}")
    if missing:
        causes = ", ".join(failed_causes(stage, stages, states))
        return Decision("skip", f"not run: it needs {causes}")
    if forced or stage.forced:
        return Decision("force", "; ".join(stage.changed) or "forced with --force")
    # DVC decides again after an upstream stage ran: it may have made the same bytes as before.
    rerun = [
        f"upstream stage {name} was {'restored' if was_restored(state) else 'rerun'}"
        for name, state in upstream.items()
        if state.name != "Cached" or was_restored(state)
    ]
    if why := stage.changed or rerun:
        return Decision("reproduce", "; ".join(why))
    return Decision("keep", "none of its inputs has changed")


def is_whole(state: State[Any]) -> bool:  # Any: Prefect's own
    """Whether a stage that ended in this state has made all that others need."""
    return state.is_completed() and state.name != "Incomplete"


def was_restored(state: State[Any]) -> bool:  # Any: Prefect's own
    """Whether DVC restored earlier results of a stage, which may differ from those before."""
    return state.name == "Cached" and bool(state.result().kind == "restored")


def failed_causes(stage: Stage, stages: list[Stage], states: States) -> list[str]:
    """Names of the failed stages that keep this one from running, also by way of others that could
    not run.
    """
    causes = []
    for other in stages:
        if other.name in stage.upstream and states[other.name].name == "NotReady":
            causes += failed_causes(other, stages, states)
        elif other.name in stage.upstream and not is_whole(states[other.name]):
            causes.append(other.name)
    return list(dict.fromkeys(causes))


def task_of(stage: Stage) -> Task[[Stage, Decision, Place], State[Any]]:  # Any: Prefect's own
    """Return run_stage under the stage's name, tagged with the stage's kind, with its retries."""
    retries = int(stage.meta.retries)
    return run_stage.with_options(
        name=stage.name,
        task_run_name=stage.name,
        tags=[stage.name.partition("@")[0], *(["gpu"] if stage.meta.gpu else [])],
        retries=retries,
        retry_delay_seconds=[float(delay) for delay in RETRY_DELAYS[:retries]],
        retry_condition_fn=is_retryable,
    )


def is_retryable(_task: object, _run: TaskRun, state: State[Any]) -> bool:  # Any: Prefect's own
    """Whether a retry of a stage that ended in this state may succeed."""
    return not (isinstance(state.data, Outcome) and state.data.lasting)


def show(stages: list[Stage], states: States) -> None:
    """Publish the table of all stages: what is to be done, or what became of it."""
    rows = []
    for stage in stages:
        reasons = "; ".join(stage.changed)
        if state := states.get(stage.name):
            row = {"state": str(state.name), "why": str(state.message)}
        elif reasons:
            row = {"state": "changed", "why": reasons}
        else:
            row = {"state": "unchanged, unless an upstream stage changes", "why": ""}
        rows.append({"stage": stage.name, **row})
    title = "Stages" if states else "Stages at the start"
    artifacts.publish_table(rows, artifacts.key(title), title)


def conclude(states: States) -> State[Any]:  # Any: Prefect's own
    """Return the flow's final state."""
    count = collections.Counter(state.name for state in states.values())
    counts = ", ".join(f"{number} {str(name).lower()}" for name, number in count.items())
    failures = [
        f"{name}: {state.message}"
        for name, state in states.items()
        if state.is_failed() or state.is_crashed()
    ]
    if failures or count["NotReady"] or count["Incomplete"]:
        return Failed(
            message=f"{counts}. {'; '.join(failures)}. The next run repeats only what is missing."
        )
    return Completed(message=f"all {len(states)} stages: {counts}")


def run(slots: str, per_gpu: slot_list.PerGpu, force: Sequence[str], dask: str | None) -> int:
    """Run a study from the command line, with a server if there is none, and print its summary.

    Returns:
        The exit status.

    Raises:
        StudyError: an argument is wrong, or another study runs in this checkout.
    """
    devices = ",".join(slot_list.find_devices(slots))
    with sole_study():  # refuse now, not when the server has started
        stages = repository.inspect().stages
    refuse_unknown(force, stages)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.time()
    if server.address() or force or any(stage.changed for stage in stages):
        with server.for_this_process():
            state = study(devices, per_gpu, force, dask, return_state=True)
        succeeded, message = state.is_completed(), state.message
    else:  # there is nothing to do and nobody watches: no server is started for it
        nothing = f"nothing to do: none of the {len(stages)} stages has changed"
        lines = [nothing, *filter(None, map(source.last_query, stages))]
        succeeded, message = True, "\n".join(lines)
    for path in (Path(stage.meta.summary) for stage in stages if stage.meta.summary):
        # After a failure, not that of an earlier study.
        if path.exists() and (succeeded or path.stat().st_mtime > started):
            print(f"\n{path.read_text(encoding='utf-8').strip()}\n")
    print(message)
    return 0 if succeeded else 1


if __name__ == "__main__":
    raise SystemExit("error: flows.study is not a command: use `hemotune run`")
