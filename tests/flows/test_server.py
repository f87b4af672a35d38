"""Prefect's server as the flows start, restart and find it."""

import contextlib
import datetime
import http.server
import json
import os
import sqlite3
import subprocess
import sys
import threading
import uuid

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_DATABASE_CONNECTION_URL,
    temporary_settings,
)

from flows import server
from hemotune.errors import StudyError
from hemotune.files import write_json
from tests.conftest import ROOT, place_database
from tests.flows.toy import ask, wait_for


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    """A folder without a study, in which servers write their files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place_database(tmp_path / "prefect")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def test_a_run_that_starts_its_own_server_can_be_watched(own_place, tmp_path):
    (tmp_path / "prefect/prefect.db").unlink()  # as on a fresh machine
    with server.running(port=0, services=False) as api:
        # As a browser does.
        page = httpx.get(f"{api.removesuffix('api')}runs", headers={"Accept": "text/html"})
    assert page.status_code == 200 and "<html" in page.text


def test_a_server_with_a_login_is_found_with_it_alone(own_place, monkeypatch, capfd):
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: "me:secret"}),
        server.running(port=0) as api,
    ):
        assert httpx.post(f"{api}/flow_runs/filter").status_code == 401
        assert server.find_running() == server.Address(api, services=True)
        server.check_answer(api)
        with temporary_settings({PREFECT_API_AUTH_STRING: None}):
            assert server.find_running() is None
    assert "asks for a login: set PREFECT_API_AUTH_STRING" in capfd.readouterr().out


def test_a_port_is_held_from_its_choice_on(monkeypatch):
    with server.listening("127.0.0.1", 0) as taken:
        monkeypatch.setattr(server, "PORT", taken.getsockname()[1])
        with pytest.raises(
            StudyError,
            match=f"port {server.PORT} is taken: choose another with --port, or 0 for any",
        ):
            server.listening("127.0.0.1", server.PORT)
        with server.listening("127.0.0.1", None) as other:
            assert other.getsockname()[1] != server.PORT
    with server.listening("127.0.0.1", None) as own:
        assert own.getsockname()[1] == server.PORT
    with pytest.raises(
        StudyError,
        match=(
            "cannot listen at no.such.host.invalid, port 0: .*; choose others with --host and"
            " --port"
        ),
    ):
        server.listening("no.such.host.invalid", 0)


def test_a_server_that_does_not_start_is_an_error_with_its_status(own_place, monkeypatch):
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense")
    with (
        pytest.raises(StudyError, match="Prefect's server ended with status [1-9]"),
        server.running(port=0),
    ):
        pass
    assert not server.ADDRESS_FILE.exists()


@pytest.mark.parametrize(
    "found, refused",
    [
        (
            "newer",
            (
                r"prefect.db was written by a newer Prefect than 3\S+ \(revision 0123456789ab\);"
                r" install that one, or remove the file"
            ),
        ),
        (
            "damaged",
            (
                r"prefect.db: file is not a database; remove the file: it holds only the history of"
                r" runs"
            ),
        ),
    ],
)
def test_a_database_that_cannot_be_read_is_named_with_the_fix(own_place, tmp_path, found, refused):
    path = tmp_path / "prefect.db"
    if found == "newer":
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("create table alembic_version (version_num text)")
            database.execute("insert into alembic_version values ('0123456789ab')")
    else:
        path.write_text("no database" * 1000)
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}):
        with pytest.raises(StudyError, match=refused), server.running(port=0):
            pass


def test_after_three_deaths_in_a_row_a_server_is_not_restarted(own_place):
    code = (
        "start = lambda: subprocess.Popen(['false']); server.restart(start(), start,"
        " threading.Event())"
    )
    imports = "import subprocess, threading; from flows import server"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {code}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Prefect's server ended with status 1; it was restarted",
        "Prefect's server ended with status 1; it was restarted",
        (
            "error: Prefect's server ended three times in a row (status 1); its messages are above;"
            " start again with the same command"
        ),
    ]


def test_events_that_clients_send_again_after_a_restart_leave_no_traceback(own_place, capfd):
    now = datetime.datetime.now(datetime.UTC).isoformat()
    resource = {"prefect.resource.id": "study.test"}
    batch = [
        {"id": str(uuid.uuid4()), "occurred": now, "event": "sent", "resource": resource}
        for _ in range(30)
    ]

    def stored(api):
        return [event["event"] for event in ask(api, "events", limit=50)["events"]]

    with server.running(port=0) as api:
        httpx.post(f"{api}/events", json=batch).raise_for_status()
        wait_for(lambda: stored(api).count("sent") == 30)
    with server.running(port=0) as api:  # it does not know what the old one received
        # It tries to store them at the 20th and at each later one.
        for part in (batch[:20], *([event] for event in batch[20:])):
            httpx.post(f"{api}/events", json=part).raise_for_status()
            assert stored(api) == ["sent"] * 30  # none of them twice
        later = {**batch[0], "id": str(uuid.uuid4()), "event": "sent later"}
        httpx.post(f"{api}/events", json=[later]).raise_for_status()
        wait_for(lambda: "sent later" in stored(api))
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_counts_only_if_its_api_answers_and_is_of_this_checkout(own_place):
    class Settings(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"home": self.server.home}).encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Settings) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{answering.server_port}/api"
        # As earlier versions wrote it; the process exists, as another one may after a reboot.
        write_json(server.ADDRESS_FILE, {"pid": os.getpid(), "api": api, "services": True})
        answering.home = "/another/checkout/.study/prefect"
        assert server.find_running() is None
        answering.home = os.environ["PREFECT_HOME"]
        assert server.find_running() == server.Address(api, services=True)
        answering.shutdown()
    assert server.find_running() is None
