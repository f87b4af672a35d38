"""The study as Prefect flows. Prefect reads its settings when it is imported, so they are made
here, before any module can do that.
"""

import json
import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path

STATE = Path(".study")  # of running things; git-ignored
SERVER = STATE / "server.json"  # written by flows.server while one runs


def configure():
    """Keep all that Prefect writes inside .study/prefect, run stages with this Python, and find the
    server that `make ui` started.

    What the environment already says is respected, except an address that Prefect would refuse with
    a traceback.
    """
    try:
        urllib.parse.urlsplit(os.environ.get("PREFECT_API_URL", ""))
    except ValueError as error:
        sys.exit(
            f"error: PREFECT_API_URL: {error}; correct the variable, or unset it: then the run"
            " starts its own server"
        )
    home = os.environ.setdefault("PREFECT_HOME", str((STATE / "prefect").absolute()))
    Path(home).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    # Flows.server starts one, with its pages
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    os.environ.setdefault("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "false")
    # The stages' commands say `python`: the one that runs the flow, also where its environment is
    # not activated.
    own, path = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = own + os.pathsep + path
    # A server that a run started for itself ends with that run.
    if "PREFECT_API_URL" not in os.environ and (server := running_server()) and server["services"]:
        os.environ["PREFECT_API_URL"] = server["api"]


def running_server() -> dict[str, str | bool] | None:
    """What flows.server wrote about the server in this checkout, {"api", "services"}, or None if
    none answers.

    The file alone proves nothing: it outlives a reboot, after which another checkout's server may
    have the port.
    """
    try:
        server = json.loads(SERVER.read_text(encoding="utf-8"))
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with directly.open(f"{server['api']}/admin/settings", timeout=10) as answer:
            home = json.load(answer)["home"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if home == os.environ["PREFECT_HOME"] else None


configure()
