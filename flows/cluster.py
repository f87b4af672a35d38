"""Stages on the workers of a Dask cluster, each of which offers one unit of the resource GPU: `dask
worker ADDRESS --resources GPU=1`.

A worker is started in a checkout of the same commit. If DVC has a default remote, data travels
through it: the worker pulls what its stage depends on and pushes what it made. Without a remote all
workers must work in the same, shared folder.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.tasks import Task

from flows import launcher, repository
from flows.dag import Stage
from flows.stage import Decision, Place, failure_note, record_failure
from hemotune.errors import StudyError

if TYPE_CHECKING:
    from distributed import Future
    from prefect_dask.client import PrefectDaskClient

SLOT = "worker"  # of every worker: its own environment determines its device


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster that offer a GPU."""

    client: "PrefectDaskClient"
    apart: bool  # each has a checkout of its own, and data travels through DVC's remote
    submitted: list["Future[State[Any]]"] = field(default_factory=list)

    def submit(
        self,
        task: Task[..., State[Any]],  # Any: Prefect's own
        stage: Stage,
        decision: Decision,
        run: str,
        upstream: list[State[Any]],  # Any: Prefect's own
    ) -> PrefectFuture[Any]:  # Any: Prefect's own
        """Give a stage's task to the next worker that is free.

        Args:
            run: name of the run's folder of logs.
            upstream: final states of the stages that it depends on.

        Raises:
            StudyError: the outputs of its upstream stages cannot be pushed to DVC's remote.
        """
        from prefect_dask.task_runners import PrefectDaskFuture

        entries = None
        if self.apart:
            entries = launcher.current().call(partial(repository.push, stage.upstream))
        place = Place(run, variables={}, slot=SLOT, entries=entries)
        future = self.client.submit(
            task,
            parameters={"stage": stage, "decision": decision, "place": place},
            wait_for=upstream,
            return_type="state",
            resources={"GPU": 1},
            pure=False,
        )
        self.submitted.append(future)
        return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)

    def fetch(self, stage: Stage, state: State[Any]) -> None:  # Any: Prefect's own
        """Pull what a stage made on a worker into this checkout, or record why it failed there."""
        if state.is_failed():
            record_failure(failure_note(stage), state.message or "")
        elif self.apart and state.is_completed():
            if entries := state.result().entries:
                try:
                    launcher.current().call(partial(repository.pull, entries))
                except StudyError as error:  # the stages that need its outputs will fail
                    get_run_logger().error("%s: its outputs were not pulled: %s", stage.name, error)


@contextlib.contextmanager
def connect(address: str, remote: str | None = None) -> Iterator[Workers]:
    """Connect to the scheduler at `address`; what runs or waits there for this study ends with the
    block.

    Args:
        remote: the name of DVC's default remote, if it has one.

    Raises:
        StudyError: no scheduler answers there.
    """
    from prefect_dask.task_runners import DaskTaskRunner

    check_answer(address)
    with DaskTaskRunner(address=address) as runner:
        client = runner.client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not any(worker["resources"].get("GPU") for worker in workers):
            get_run_logger().warning(
                "no worker of %s offers a GPU; waiting for `dask worker %s --resources GPU=1`",
                address,
                address,
            )
        connected = Workers(client, apart=bool(remote))
        try:
            yield connected
        finally:
            with contextlib.suppress(Exception):  # a cluster that is gone runs nothing
                # First, or the next in the queue would start in place of what is stopped.
                client.cancel(connected.submitted, force=True)
                client.run(launcher.stop)


def check_answer(address: str) -> None:
    """Check that a scheduler answers at `address`; a Dask client that finds none leaves threads and
    tracebacks behind.

    Raises:
        StudyError: none does.
    """
    from distributed.comm.core import connect as open_connection
    from distributed.security import Security

    # distributed has no types for these three.

    async def try_connection() -> None:
        encryption = Security().get_connection_args("client")  # as in Dask's configuration
        (await open_connection(address, timeout=30, **encryption)).abort()

    try:
        asyncio.run(try_connection())
    except (OSError, ValueError) as error:
        raise StudyError(
            f"dask: no Dask scheduler answers at {address!r} ({error}); "
            "give the address that `dask scheduler` prints, such as tcp://HOST:8786"
        ) from None
