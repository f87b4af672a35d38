"""Stages on the workers of a Dask cluster, each of which offers one unit of the resource GPU: `dask
worker ADDRESS --resources GPU=1`.

A worker is started in a checkout of the same commit. If DVC has a default remote, data travels
through it: the worker pulls what its stage depends on and pushes what it made. Without a remote all
workers must work in the same, shared folder.
"""

import asyncio
import contextlib

from prefect.logging import get_run_logger

from flows import launcher
from hemotune.errors import StudyError


@contextlib.contextmanager
def connect(address):
    """Connect to the scheduler at `address` and yield a function that submits a task to a worker
    with a free GPU.

    It takes the task, its parameters and the final states of the tasks that it comes after, and
    returns a future of Prefect's. What runs or waits in the cluster for this study ends with the
    block.

    Raises:
        StudyError: no scheduler answers there.
    """
    from prefect_dask import DaskTaskRunner
    from prefect_dask.task_runners import PrefectDaskFuture

    check_answer(address)
    submitted = []

    def submit(task, parameters, upstream):
        future = client.submit(
            task,
            parameters=parameters,
            wait_for=upstream,
            return_type="state",
            resources={"GPU": 1},
            pure=False,
        )
        submitted.append(future)
        return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)

    with DaskTaskRunner(address=address) as runner:
        client = runner.client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not any(worker["resources"].get("GPU") for worker in workers):
            get_run_logger().warning(
                "no worker of %s offers a GPU; waiting for `dask worker %s --resources GPU=1`",
                address,
                address,
            )
        try:
            yield submit
        finally:
            with contextlib.suppress(Exception):  # a cluster that is gone runs nothing
                # First, or the next in the queue would start in place of what is stopped
                client.cancel(submitted, force=True)
                client.run(launcher.stop_here)


def check_answer(address: str) -> None:
    """Look whether a scheduler answers at `address`; a Dask client that finds none leaves threads
    and tracebacks behind.

    Raises:
        StudyError: none does.
    """
    from distributed import Security
    from distributed.comm import connect as open_connection

    async def ask() -> None:
        encryption = Security().get_connection_args("client")  # as Dask's configuration says
        (await open_connection(address, timeout=30, **encryption)).abort()

    try:
        asyncio.run(ask())
    except (OSError, ValueError) as error:
        raise StudyError(
            f"dask: no Dask scheduler answers at {address!r} ({error}); "
            "give the address that `dask scheduler` prints, such as tcp://HOST:8786"
        ) from None
