"""When the deployments run: the schedule of the command line, which is the watch's, and what a user
set on the page.
"""

import asyncio
import zoneinfo
from dataclasses import asdict, dataclass
from typing import Any

import tzlocal
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.server.schemas import schedules as on_server

from hemotune.errors import StudyError
from hemotune.files import read_json, write_json
from hemotune.paths import STATE

ASKED = STATE / "schedule.json"  # the schedule that the last `hemotune ui` was given
SLUG = "hemotune"  # of that schedule, among others that a user may have added on the page


@dataclass(frozen=True)
class Times:
    """What schedule.json holds."""

    cron: str
    timezone: str

    @classmethod
    def parse(cls, cron: str, timezone: str | None) -> "Times":
        """Check a schedule; its time zone is by default this machine's.

        Raises:
            StudyError: it cannot be read or has no next date, or there is no such time zone.
        """
        try:
            zone = zoneinfo.ZoneInfo(timezone or tzlocal.get_localzone_name() or "UTC")
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise StudyError(
                f"--timezone: there is no time zone {timezone or 'of this machine'!r}: give a name"
                " such as Europe/Berlin or UTC"
            ) from None
        times = cls(cron, zone.key)
        try:
            times.next_date()
        except ValueError:
            raise StudyError(
                f"--watch: {cron!r} is no cron expression with a next date: give minute, hour,"
                " day, month and weekday, such as '0 6 * * *'"
            ) from None
        return times

    def next_date(self) -> str:
        """Return when it is due next, such as `Mon 30 Nov 06:00`, in its time zone.

        Raises:
            ValueError: the cron expression is wrong or has no next date.
        """
        schedule = on_server.CronSchedule(cron=self.cron, timezone=self.timezone)
        (date,) = asyncio.run(schedule.get_dates(1))
        return f"{date.astimezone(zoneinfo.ZoneInfo(self.timezone)):%a %d %b %H:%M}"

    def schedule(self) -> CronSchedule:
        return CronSchedule(cron=self.cron, timezone=self.timezone)


def options(
    earlier: DeploymentResponse | None, times: Times | None = None
) -> dict[str, Any]:  # Any: Prefect's
    """Return the arguments of a deployment that decide when it runs: at first at `times`, if any.

    What an earlier start left is kept, with what a user changed on the page since. Before there was
    schedule.json, each start replaced the schedules, and each end paused them.
    """
    if earlier and ASKED.exists():
        # Named again: Prefect removes schedules that an update does not name.
        kept = [
            DeploymentScheduleCreate(
                schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
            )
            for one in earlier.schedules
        ]
        return {"paused": earlier.paused, "schedules": kept}
    own = [DeploymentScheduleCreate(schedule=times.schedule(), slug=SLUG)] if times else []
    return {"paused": False, "schedules": own}


def apply(client: SyncPrefectClient, deployment: DeploymentResponse, times: Times) -> None:
    """Change the deployment's schedule to `times` if an earlier start was given other ones.

    If the same were given, what a user made of the schedule since then stays.
    """
    if not ASKED.exists() or Times(**read_json(ASKED)) != times:
        own = [schedule for schedule in deployment.schedules if schedule.slug == SLUG]
        for schedule in own:
            client.update_deployment_schedule(deployment.id, schedule.id, schedule=times.schedule())
        if not own:
            new = DeploymentScheduleCreate(schedule=times.schedule(), slug=SLUG)
            client.create_deployment_schedules(deployment.id, [new])
    write_json(ASKED, asdict(times))


def describe(deployment: DeploymentResponse) -> str:
    """Return when a deployment runs, in one line."""
    if deployment.paused:
        return "paused on the page"
    return (
        "; ".join(
            describe_one(schedule.schedule) for schedule in deployment.schedules if schedule.active
        )
        or "on no schedule, as set on the page"
    )


def describe_one(schedule: Any) -> str:  # Any: Prefect's three kinds of schedule
    if not isinstance(schedule, CronSchedule):
        return "as set on the page"
    times = Times(schedule.cron, schedule.timezone or "UTC")
    return f"{times.cron} (cron) in {times.timezone}, next {times.next_date()}"
