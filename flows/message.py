"""Messages to addresses that the library Apprise knows: mail and more.

Prefect itself can send webhooks, and mail only through paid services. Its server must know this
class to send by it: flows.server_process imports it.
"""

from prefect.blocks.notifications import AbstractAppriseNotificationBlock
from pydantic import Field, SecretStr


class Message(AbstractAppriseNotificationBlock):
    """An address of Apprise, such as `mailtos://NAME:PASSWORD@example.org?to=me@example.org`."""

    _block_type_name = "Hemotune message"
    _block_type_slug = "hemotune-message"

    url: SecretStr = Field(title="Address", description="https://github.com/caronc/apprise/wiki")
