"""The DAG of dvc.yaml as a Prefect flow: every stage whose inputs are ready runs at once, as far as
slots go.

    python -m flows.study                    run what has changed, on all GPUs, or without any two
    at a time on the processor python -m flows.study --slots 0,1        on these GPUs python -m
    flows.study --slots cpu        one at a time on the processor

Stages, what they depend on and what is changed come from DVC; no stage is named here. A stage's
`meta` in dvc.yaml may say:
    gpu: true             it takes a slot
    retries: 2            it may be tried again, where a failure can pass by itself: where its exit
        status is not 1
    check: COMMAND        run before anything else where something has changed; if it fails, nothing
        is run
    incomplete: COMMAND   what to run instead where some of the stages that it depends on have
        failed
    artifacts: [FILES]    what to show on its page
    source: COMMAND       prints the state of the source that the stage brings data from, see
        flows/source.py
    state: FILE           an output: the state of the source that was brought
    summary: FILE         what to print at the end
"""

import argparse
import collections
import contextlib
import queue
import signal
import sys
import time
from pathlib import Path

from prefect import allow_failure, flow
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed, State

from flows import cluster, launcher, repository, runs, server, source
from flows import slots as slot_list
from flows.lock import AnotherStudy, sole_study
from flows.output import folder_of_run
from flows.stage import failure, failure_note, run_stage
from hemotune.errors import StudyError, entry_point

RETRY_DELAYS = [5, 30, 120]  # seconds


@flow(name="study", log_prints=False)
def study(
    slots: slot_list.Slots = "auto",
    per_gpu: slot_list.PerGpu = 1,
    force: list[str] | None = None,
    dask: str | None = None,
):
    """Run every stage of dvc.yaml that has changed, in parallel.

    Args:
        slots: where stages with `gpu: true` run, one on each: device ids separated by commas, such
            as `0,1` for two GPUs or `cpu,cpu` for two stages at a time on the processor. `auto`:
            all GPUs, or without any `cpu,cpu`.
        per_gpu: how many stages share each device, 1 or more.
        force: stages to run even if nothing changed.
        dask: address of a Dask scheduler on whose workers the stages with `gpu: true` run.
    """
    try:
        return run_alone(slots, per_gpu, force or [], dask)
    except AnotherStudy as error:
        return Cancelled(message=str(error))
    except StudyError as error:
        return Failed(message=str(error))


def run_alone(slots: str, per_gpu: int, force: list[str], dask: str | None) -> State:
    """Do what `study` says and return its final state.

    Raises:
        AnotherStudy: another study runs in this checkout.
        StudyError: no Dask scheduler answers at `dask`.
    """
    log = get_run_logger()
    with runs.at_work(), sole_study(f"the run '{flow_run.name}'") as lock:
        asked = launcher.start(keep=[lock])
        order = []
        try:
            found = asked.call("inspect", on_line=log.info)
            if "stages" not in found:
                return Failed(message=found["reason"])
            stages = found["stages"]
            if problem := unknown_stages(force or [], stages):
                return Failed(message=problem)
            slot_names = slot_list.name_slots(slot_list.find_devices(slots, log.warning), per_gpu)
            order = found["lock"] + [
                stage["name"] for stage in stages if stage["name"] not in found["lock"]
            ]
            show(stages, {})
            for line in filter(None, map(source.last_asked, stages)):
                log.info("%s", line)
            with cluster.connect(dask) if dask else contextlib.nullcontext() as submit:
                elsewhere = bool(submit and found["remote"])
                states = run_all(stages, slot_names, force, submit, elsewhere)
            show(stages, states)
            return conclude(states)
        finally:
            # Entered however the study ends, cancelled from the page too: nothing may train on
            # without it.
            asked.stop()
            repository.order_lock(order)


def unknown_stages(force: list[str], stages: list[dict]) -> str | None:
    """Say which of the stages to force there is not, if any."""
    missing = ", ".join(sorted(set(force) - {stage["name"] for stage in stages}))
    return f"force: there is no stage {missing}; `dvc stage list` names them" if missing else None


def run_all(stages, slots, force, submit=None, elsewhere=False):
    """Run each stage as soon as the stages that it depends on are done and a slot is free, if it
    needs one.

    Args:
        stages: as flows.repository.inspect gives them, in an order in which they can run.
        slots: names of all slots.
        force: names of stages to run even if nothing changed.
        submit: of flows.cluster, gives a stage that needs a slot to a worker; None: they run on
            `slots`.
        elsewhere: whether these workers have checkouts of their own.

    Returns:
        The final state of each stage's task, by the stage's name.
    """
    free, done, run = collections.deque(slots), queue.SimpleQueue(), folder_of_run()
    futures, states, taken = {}, {}, {}
    while len(states) < len(stages):
        for stage in stages:
            name, upstream = stage["name"], stage["upstream"]
            if name in futures or not all(other in states for other in upstream):
                continue
            action, why = decide(stage, stages, states, name in force)
            options = {"stage": stage, "action": action, "why": why, "run": run}
            needs_slot = stage["meta"].get("gpu") and action in ("reproduce", "force")
            if needs_slot and submit:
                entries = (
                    launcher.here().call("offer", stages=upstream)["entries"] if elsewhere else None
                )
                options |= {"slot": slot_list.WORKER, "entries": entries}
                futures[name] = submit(
                    task_of(stage), options, [states[other] for other in upstream]
                )
            elif needs_slot and not free:
                continue
            else:
                if needs_slot:
                    options["slot"] = taken[name] = free.popleft()
                # Prefect's own rule would call the stages that have failed by the numbers of their
                # runs.
                after = [
                    allow_failure(futures[other]) for other in upstream if is_awaited(states[other])
                ]
                futures[name] = task_of(stage).submit(**options, all_slots=slots, wait_for=after)
            futures[name].add_done_callback(lambda _, name=name: done.put(name))
        name = done.get()
        futures[name].wait()
        states[name] = futures[name].state
        if name in taken:
            free.append(taken.pop(name))
        elif submit:
            bring_home(name, states[name], elsewhere)
    return states


def bring_home(name, state, elsewhere):
    """Have in this checkout what a stage on a worker made, or why it failed."""
    if state.is_failed():
        failure(failure_note(name), state.message)
    elif elsewhere and state.is_completed() and "entries" in (made := state.result() or {}):
        launcher.here().call("adopt", entries=made["entries"])


def is_awaited(state: State) -> bool:
    """Whether Prefect's allow_failure lets a task come after one that ended in this state."""
    return not (state.is_crashed() or state.is_cancelled())


def decide(
    stage: dict, stages: list[dict], states: dict[str, State], forced: bool
) -> tuple[str, str]:
    """Choose what run_stage does with a stage whose upstream stages have ended; returns (action,
    why).

    Args:
        stage: one of `stages`, which are all of the study.
        states: the final states of the stages that have ended, by name.
        forced: whether it was asked for even if nothing changed.
    """
    upstream = {name: states[name] for name in stage["upstream"]}
    missing = [name for name, state in upstream.items() if not is_whole(state)]
    only_failed = all(upstream[name].is_failed() for name in missing)
    if missing and "incomplete" in stage["meta"] and only_failed and len(missing) < len(upstream):
        return "incomplete", "without " + "; ".join(
            f"{name}: {upstream[name].message}" for name in missing
        )
    if missing:
        return "skip", f"not run: it needs {', '.join(lacking(stage, stages, states))}"
    if forced or stage["force"]:
        return "force", "; ".join(stage["changed"]) or "a wish"
    # DVC decides again where an upstream stage ran: it may have made the same bytes as before.
    ran = [f"{name} that ran" for name, state in upstream.items() if state.name != "Cached"]
    ran += [f"{name} that was restored" for name, state in upstream.items() if was_restored(state)]
    if why := stage["changed"] or ran:
        return "reproduce", "; ".join(why)
    return "keep", "nothing that it depends on has changed"


def is_whole(state: State) -> bool:
    """Whether a stage that ended in this state has made all that others need."""
    return state.is_completed() and state.name != "Incomplete"


def lacking(stage: dict, stages: list[dict], states: dict) -> list[str]:
    """Names of the stages that failed and so keep this one from running, also by way of others that
    could not run.
    """
    found = []
    for other in stages:
        if other["name"] in stage["upstream"] and states[other["name"]].name == "NotReady":
            found += lacking(other, stages, states)
        elif other["name"] in stage["upstream"] and not is_whole(states[other["name"]]):
            found.append(other["name"])
    return list(dict.fromkeys(found))


def was_restored(state: State) -> bool:
    """Whether DVC restored earlier results of a stage, which may be others than those before."""
    return state.name == "Cached" and (state.result() or {}).get("outcome") == "restored"


def task_of(stage):
    """run_stage under the stage's name, tagged with the stage's kind, tried again as its meta
    says.
    """
    name, retries = stage["name"], int(stage["meta"].get("retries", 0))
    tags = [name.partition("@")[0], *(["gpu"] if stage["meta"].get("gpu") else [])]
    again = {
        "retries": retries,
        "retry_delay_seconds": RETRY_DELAYS[:retries],
        "retry_condition_fn": may_pass,
    }
    return run_stage.with_options(name=name, task_run_name=name, tags=tags, **again)


def may_pass(task, run, state):
    """Whether it makes sense to try a stage again that ended in this state."""
    return not (isinstance(state.data, dict) and state.data.get("lasting"))


def show(stages, states):
    """Publish the table of all stages: what is to be done at the start, what came of it at the
    end.
    """
    rows = []
    for stage in stages:
        state = states.get(stage["name"])
        outcome = (
            state.name
            if state
            else "changed"
            if stage["changed"]
            else "unchanged, unless what it depends on changes"
        )
        rows.append(
            {
                "stage": stage["name"],
                "state": outcome,
                "why": state.message if state else "; ".join(stage["changed"]),
            }
        )
    create_table_artifact(rows, key="stages", description="all stages of the study")


def conclude(states):
    """The flow's final state."""
    count = collections.Counter(state.name for state in states.values())
    told = ", ".join(f"{number} {name.lower()}" for name, number in count.items())
    failed = [
        f"{name}: {state.message}"
        for name, state in states.items()
        if state.is_failed() or state.is_crashed()
    ]
    if failed or count["NotReady"] or count["Incomplete"]:
        return Failed(
            message=f"{told}. " + "; ".join(failed) + ". The next run repeats only what is missing."
        )
    return Completed(message=f"all {len(states)} stages: {told}")


@entry_point
def main():
    parser = argparse.ArgumentParser(
        prog="python -m flows.study",
        description="Run the stages of dvc.yaml that have changed, in parallel.",
    )
    parser.add_argument(
        "--slots",
        default="auto",
        help="auto: all GPUs, or without any cpu,cpu; or device ids such as 0,1",
    )
    parser.add_argument(
        "--per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="stages that share one device (default: 1)",
    )
    parser.add_argument(
        "--force",
        default="",
        metavar="STAGES",
        help="stages to run even if nothing changed, with commas",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run the stages that take a slot on the workers of this Dask scheduler",
    )
    options = parser.parse_args()
    if options.per_gpu < 1:
        raise StudyError(f"--per-gpu: give 1 or more, not {options.per_gpu}")
    chosen = {
        "slots": ",".join(slot_list.find_devices(options.slots)),
        "per_gpu": options.per_gpu,
        "force": [name for name in options.force.split(",") if name],
        "dask": options.dask,
    }
    with sole_study():  # refuse now, not when the server is up
        stages = repository.inspect()["stages"]
    if problem := unknown_stages(chosen["force"], stages):
        raise StudyError(problem)
    signal.signal(signal.SIGTERM, interrupt)
    started = time.time()
    if PREFECT_API_URL.value() or chosen["force"] or any(stage["changed"] for stage in stages):
        with server.for_this_process():
            state = study(**chosen, return_state=True)
        done, message = state.is_completed(), state.message
    else:  # nothing is to be done and nobody watches: no server is started for it
        done, message = True, f"nothing to do: none of the {len(stages)} stages has changed"
        message = "\n".join([message, *filter(None, map(source.last_asked, stages))])
    for path in (Path(stage["meta"]["summary"]) for stage in stages if "summary" in stage["meta"]):
        # After a failure not that of an earlier study
        if path.exists() and (done or path.stat().st_mtime > started):
            print(f"\n{path.read_text(encoding='utf-8').strip()}\n")
    print(message)
    return 0 if done else 1


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
