"""Prefect's server and the deployments study/study and watch/watch: what `make ui` runs. Ctrl-C
ends all of it.
"""

import asyncio
import contextlib
import datetime
import os
import signal
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows import runs, server
from flows.study import study
from flows.watch import watch
from hemotune.errors import StudyError


def serve(host: str, port: int | None, cron: str) -> int:
    """Serve both deployments until Ctrl-C; `cron` is the schedule of the watch.

    Returns:
        The exit status.

    Raises:
        StudyError: the schedule is wrong, a server runs here already, or the new one does not
            start.
    """
    check_cron(cron)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if found := server.find_running():
        whose = "" if found.services else ", for a run: watch it there, or wait for its end"
        raise StudyError(f"a server runs here already: {found.api.removesuffix('/api')}{whose}")
    print("starting Prefect's server ...", flush=True)
    started = datetime.datetime.now(datetime.UTC)
    with server.running(host, port) as api, temporary_settings({PREFECT_API_URL: api}):
        runs.end_abandoned(started)
        os.environ[runs.SERVED_BY] = str(os.getpid())
        runner = Runner(query_seconds=2, limit=None)
        # flows.lock lets one study run at a time: its lock ends with its holder and names it. The
        # server refuses a watch while another one runs: a fast schedule would pile up processes.
        one_watch = ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        )
        runner.add_deployment(
            deployment(study, "Run the stages of dvc.yaml that have changed, in parallel.")
        )
        runner.add_deployment(
            deployment(
                watch,
                "Check data, parameters and code for changes; start the study if there are any.",
                cron=cron,
                concurrency_limit=one_watch,
            )
        )
        print(
            f"\n  open    {api.removesuffix('/api')}"
            "\n  start   Deployments > study > Run, or:"
            f" PREFECT_API_URL={api} prefect deployment run study/study"
            f"\n  watch   for changes: {cron} (cron); Deployments > watch > Run checks at once"
            "\n  end     Ctrl-C, which also ends a running study\n",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(runner.start())
    return 0


def check_cron(expression: str) -> None:
    """Check that a schedule can be read and has a next date.

    Raises:
        StudyError: it cannot, or has none.
    """
    try:
        asyncio.run(CronSchedule(cron=expression).get_dates(1))
    except ValueError:
        raise StudyError(
            f"--watch: {expression!r} is no cron expression with a next date: give minute, hour,"
            " day, month and weekday, such as '0 6 * * *'"
        ) from None


def deployment(
    flow: Flow[..., Any],  # Any: what a flow returns
    description: str,
    **options: Any,  # Any: passed on to Prefect
) -> RunnerDeployment:
    """Return a deployment under the flow's own name."""
    return flow.to_deployment(  # type: ignore[return-value]  # not async here
        flow.name,
        description=description,
        paused=False,
        tags=[runs.checkout_tag()],
        entrypoint_type=EntrypointType.MODULE_PATH,
        **options,
    )


if __name__ == "__main__":
    raise SystemExit("error: flows.serve is not a command: use `hemotune ui`")
