"""Tell somebody when a scheduled study has failed, or works again: one automation of Prefect's
server, which `hemotune notify` creates and removes.
"""

from datetime import timedelta

import apprise
import httpx
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types import SecretDict
from pydantic import SecretStr

from flows import runs, server
from flows.message import Message
from hemotune.errors import StudyError

BLOCK = "hemotune-notify"  # the address, at the server
STATES = ["Failed", "Crashed", runs.RECOVERED]
SUBJECT = "{{ flow.name }} '{{ flow_run.name }}': {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message or '' }} {{ flow_run|ui_url }}"
# `text` is what Slack, Mattermost and Teams show.
PAYLOAD = (
    "{% set line = flow.name ~ ' ' ~ flow_run.name ~ ': ' ~ flow_run.state.name ~ '. '"
    " ~ (flow_run.state.message or '') ~ ' ' ~ (flow_run|ui_url) %}"
    '{"text": {{ line|tojson }}, "state": {{ flow_run.state.name|tojson }}}'
)
WORKS = "Hemotune tells this address when a scheduled study fails or works again"


def notify(address: str | None, off: bool) -> None:
    """Send a message to `address` and create the automation, or remove it; replace an earlier one.

    Args:
        address: `http:` or `https:`, which gets JSON by POST, or one of Apprise, such as
            `mailtos:`.
        off: remove the automation.

    Raises:
        StudyError: no server runs, or the address is wrong or takes no message.
    """
    if bool(address) == off:
        raise StudyError("give an address, or --off")
    url = server.address()
    if url is None:
        raise StudyError(
            "no server runs that could tell: start `hemotune ui` beside this, or set"
            " PREFECT_API_URL"
        )
    server.bypass_proxy()
    if address:
        if not is_web(address) and url == server.of_others():
            raise StudyError(
                f"{scheme(address)} the server of PREFECT_API_URL sends only to http: and https:"
            )
        send(address)
    server.check_answer(url)
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for earlier in client.read_automations_by_name(name()):
            client.delete_automation(earlier.id)
        if address:
            client.create_automation(automation(client, address))
    print(f"{name()}: {f'on, to {scheme(address)}' if address else 'off'}")


def name() -> str:
    """Return the automation's name; one server may have those of several checkouts."""
    return f"Tell when a scheduled study fails or recovers: {runs.folder_name()}"


def is_web(address: str) -> bool:
    return scheme(address) in ("http:", "https:")


def scheme(address: str) -> str:
    """Return what can be shown of an address: the rest may hold a password."""
    return address.partition(":")[0] + ":"


def send(address: str) -> None:
    """Send a first message.

    Raises:
        StudyError: it was not taken.
    """
    failed = f"{scheme(address)} a first message was not taken: "
    if is_web(address):
        try:
            httpx.post(address, json={"text": WORKS}, timeout=30).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise StudyError(f"{failed}status {error.response.status_code}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StudyError(f"{failed}{error}") from None
        return
    sender = apprise.Apprise()
    if not sender.add(address):
        raise StudyError(
            f"{scheme(address)} no such address is known: give https://... or one of"
            " https://github.com/caronc/apprise/wiki, such as"
            " mailtos://NAME:PASSWORD@example.org?to=me@example.org"
        )
    if not sender.notify(title="Hemotune", body=WORKS):
        raise StudyError(f"{failed}check the address and its password")


def automation(client: SyncPrefectClient, address: str) -> AutomationCore:
    """Return the automation, whose address is saved at the server as a block."""
    action: ActionTypes
    if is_web(address):
        headers = SecretDict({"Content-Type": "application/json"})
        block = Webhook(url=SecretStr(address), headers=headers).save(BLOCK, overwrite=True)
        action = CallWebhook(block_document_id=block, payload=PAYLOAD)
    else:
        block = Message(url=SecretStr(address)).save(BLOCK, overwrite=True)
        action = SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)
    return AutomationCore(
        name=name(),
        description="Made by `hemotune notify`, which also removes it.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in STATES},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=[
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
                for tag in [*runs.origin_tags(), runs.SCHEDULED]
            ],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[action],
    )


if __name__ == "__main__":
    raise SystemExit("error: flows.notify is not a command: use `hemotune notify`")
