"""The deployments of the study and of its watch at Prefect's server: by them a page or a schedule
starts runs.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows import runs, schedules, slots
from flows.schedules import Times
from flows.study import study
from flows.watch import watch
from hemotune.errors import StudyError

AnyFlow = Flow[..., Any]  # Any: what a flow returns

STUDY = "Run the stages of dvc.yaml that have changed, in parallel."
WATCH = "Check data, parameters and code for changes; start the study if there are any."


@dataclass(frozen=True)
class Registered:
    """What is served: the full names of both deployments, and when the second runs."""

    study: str
    watch: str
    times: str


def register(
    runner: Runner, times: Times, name: str | None, stages: Future[list[str]]
) -> Registered:
    """Register both deployments at the server, for `runner` to serve.

    Args:
        times: of the watch.
        name: of both deployments; None: their flows' names.
        stages: the names of the stages that can be forced.

    Raises:
        StudyError: a deployment of this name is of another checkout.
    """
    # flows.lock lets one study run at a time: its lock ends with its holder and names it. The
    # server refuses a watch while another one runs: a fast schedule would pile up processes.
    one_watch = ConcurrencyLimitConfig(
        limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
    )
    with get_client(sync_client=True) as client:
        kept_study, kept_watch = (find(client, flow, name) for flow in (study, watch))
        started = deployment(study, name, STUDY, **schedules.options(kept_study))
        offer_choices(client, add(client, runner, started), stages)
        watching = deployment(
            watch,
            name,
            WATCH,
            tags=[*runs.origin_tags(), runs.SCHEDULED],
            concurrency_limit=one_watch,
            **schedules.options(kept_watch, times),
        )
        served = add(client, runner, watching)
        schedules.apply(client, served, times)
        when = schedules.describe(client.read_deployment(served.id))
    return Registered(full_name(study, name), full_name(watch, name), when)


def add(
    client: SyncPrefectClient, runner: Runner, deployment: RunnerDeployment
) -> DeploymentResponse:
    added: UUID = runner.add_deployment(deployment)  # type: ignore[assignment]  # not async here
    return client.read_deployment(added)


def full_name(flow: AnyFlow, name: str | None) -> str:
    return f"{flow.name}/{name or flow.name}"


def find(client: SyncPrefectClient, flow: AnyFlow, name: str | None) -> DeploymentResponse | None:
    """Return a flow's deployment as an earlier start left it, if there was one.

    Raises:
        StudyError: it is of another checkout.
    """
    try:
        found = client.read_deployment_by_name(full_name(flow, name))
    except ObjectNotFound:
        return None
    if name and not set(runs.origin_tags()) <= set(found.tags):
        raise StudyError(
            f"{full_name(flow, name)} is a deployment of another checkout at this server"
            f" ({', '.join(found.tags)}): choose another name with --name"
        )
    return found


def deployment(
    flow: AnyFlow,
    name: str | None,
    description: str,
    **options: Any,  # Any: passed on to Prefect
) -> RunnerDeployment:
    return flow.to_deployment(  # type: ignore[return-value]  # not async here
        name or flow.name,
        description=description,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **{"tags": runs.origin_tags(), **options},
    )


def offer_choices(
    client: SyncPrefectClient, served: DeploymentResponse, stages: Future[list[str]]
) -> None:
    """Let the form of a run name what there is: the stages, and the devices of this machine.

    Without stages that can be read, the form stays as it is: a run then says what is wrong.
    """
    schema = served.parameter_openapi_schema or {}
    given = schema["properties"]
    devices = slots.find_devices("auto")
    given["slots"]["description"] += f" On this machine auto is {','.join(devices)}."
    if not stages.exception():
        given["force"]["items"]["enum"] = stages.result()
    client.update_deployment(served.id, DeploymentUpdate(parameter_openapi_schema=schema))
