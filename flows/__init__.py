"""The study as Prefect flows.

Prefect reads its settings from the environment once, when it is imported, and any module of this
package may be the first to import it. So this module sets them, and does nothing else.
"""

import os
import sys
import urllib.parse
from pathlib import Path

from hemotune.paths import STATE


def configure() -> None:
    """Keep all that Prefect writes inside .study/prefect, and send no usage statistics.

    Variables that are set already stay as they are. An address that Prefect would refuse with a
    traceback ends this process with one line.
    """
    try:
        urllib.parse.urlsplit(os.environ.get("PREFECT_API_URL", ""))
    except ValueError as error:
        sys.exit(
            f"error: PREFECT_API_URL: {error}; correct the variable, or unset it: then the run"
            " starts its own server"
        )
    home = os.environ.setdefault("PREFECT_HOME", str((STATE / "prefect").absolute()))
    if Path("dvc.yaml").exists():  # only in a checkout
        Path(home).mkdir(parents=True, exist_ok=True)  # Prefect does not create its parent
    for name, value in {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        # flows.server starts a server, with its pages; Prefect starts none by itself.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        # Prefect's newer pages do not show the tasks of a run that is opened in its first seconds,
        # nor in a run's log which task wrote a line.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        # Nor do the pages show advertisements.
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Who sets a login for the server has its runs use it.
        "PREFECT_API_AUTH_STRING": os.environ.get("PREFECT_SERVER_API_AUTH_STRING", ""),
    }.items():
        if value:
            os.environ.setdefault(name, value)


configure()
