"""Prefect's server and the deployments study/study and watch/watch: what `make ui` runs. Ctrl-C
ends all of it.

python -m flows.serve                          at http://127.0.0.1:4200
python -m flows.serve --watch "*/30 * * * *"   look for changes every half hour (default: once a
day, at six)
"""

import argparse
import asyncio
import contextlib
import datetime
import os
import signal
import sys
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import EntrypointType, Flow
from prefect.runner import Runner
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import running_server, runs, server
from flows.study import interrupt, study
from flows.watch import watch
from hemotune.errors import StudyError, entry_point


@entry_point
def main():
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve",
        description="Watch, start, cancel and schedule studies in a browser.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets other machines in (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, help="default: 4200, or a free one")
    parser.add_argument(
        "--watch",
        default="0 6 * * *",
        metavar="CRON",
        help="when to look for changes (default: '0 6 * * *')",
    )
    options = parser.parse_args()
    check_cron(options.watch)
    signal.signal(signal.SIGTERM, interrupt)
    if found := running_server():
        whose = "" if found["services"] else ", for a run: watch it there, or wait for its end"
        raise StudyError(f"a server runs here already: {found['api'].removesuffix('/api')}{whose}")
    print("starting Prefect's server ...", flush=True)
    started = datetime.datetime.now(datetime.UTC)
    with (
        server.running(options.host, options.port) as api,
        temporary_settings({PREFECT_API_URL: api}),
    ):
        runs.settle(started)
        os.environ[runs.SERVED_BY] = str(os.getpid())
        runner = Runner(query_seconds=2, limit=None)
        # That one study runs at a time is up to the lock of flows.lock, which goes with its holder
        # and names it. Watches that a schedule starts faster than they end are refused by the
        # server: processes would pile up.
        one = ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        )
        runner.add_deployment(
            deployment(study, "Run the stages of dvc.yaml that have changed, in parallel.")
        )
        about = "Look for changes of data, parameters and code; start the study if there are any."
        runner.add_deployment(deployment(watch, about, cron=options.watch, concurrency_limit=one))
        print(
            f"\n  open    {api.removesuffix('/api')}\n  start   Deployments > study > Run, or:"
            f" PREFECT_API_URL={api} prefect deployment run study/study\n  watch   for changes:"
            f" {options.watch} (cron); Deployments > watch > Run looks at once\n  end     Ctrl-C,"
            " which also ends a study that runs\n",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(runner.start())
    return 0


def check_cron(expression: str) -> None:
    """Refuse a schedule that Prefect cannot read, or that names a date that never comes.

    Raises:
        StudyError: it is one.
    """
    try:
        asyncio.run(CronSchedule(cron=expression).get_dates(1))
    except ValueError:
        raise StudyError(
            f"--watch: {expression!r} is no cron expression with a date to come: give minute, hour,"
            " day, month and weekday, such as '0 6 * * *'"
        ) from None


def deployment(flow: Flow, description: str, **options: Any) -> RunnerDeployment:
    """A deployment of the flow's own name."""
    return flow.to_deployment(
        flow.name,
        description=description,
        paused=False,
        tags=[runs.checkout()],
        entrypoint_type=EntrypointType.MODULE_PATH,
        **options,
    )


if __name__ == "__main__":
    sys.exit(main())
