"""Stages on the workers of a Dask cluster, each of which offers one unit of the resource GPU: `dask worker ADDRESS --resources GPU=1`.

A worker is started in a checkout of the same commit. If DVC has a default remote, data travels through it: the worker pulls what its
stage depends on and pushes what it made. Without a remote all workers must work in the same, shared folder.
"""

import contextlib

from flows import launcher


@contextlib.contextmanager
def connect(address):
    """Connect to the scheduler at `address` and yield Prefect's task runner for it; what runs there is stopped with the block."""
    from prefect_dask import DaskTaskRunner

    with DaskTaskRunner(address=address) as runner:
        try:
            yield runner
        finally:
            with contextlib.suppress(Exception):  # a worker that is gone runs nothing
                runner.client.run(launcher.stop_here)


def submit(runner, task, parameters, upstream):
    """Submit a task to a worker with a free GPU.

    Args:
        upstream: final states of the tasks that it comes after, for the edges of the graph.
    """
    from prefect_dask.task_runners import PrefectDaskFuture

    future = runner.client.submit(task, parameters=parameters, wait_for=upstream, return_type="state", resources={"GPU": 1}, pure=False)
    return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)
