"""Source kaggle: what arrives, and what becomes of a download that is stopped, killed or started
twice.
"""

import fcntl
import json
import multiprocessing
import random
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import source
from hemotune.settings.dataset import Dataset
from tasks.download import __main__ as download
from tasks.download import sources
from tests.tasks.download.conftest import (
    TOKEN,
    arrived,
    files_in,
    parts_asked,
    picture,
    use,
    zip_in,
)
from tests.tasks.download.kaggle_server import HANDLE

LATEST = Dataset(source="kaggle", handle=HANDLE, version="latest")


@pytest.mark.slow
def test_pinned_version_without_a_token_from_a_process(kaggle, server):
    output, errors = (running := kaggle.process(version=4)).communicate(timeout=60)
    assert running.returncode == 0, errors
    assert errors == "" and arrived(kaggle, server, 4)
    assert server.places() == ["DownloadDataset", "storage"]
    assert re.search(r"\[100%\] download (\d+)/\1, \d+ kB/s", output)
    assert f"kaggle: {HANDLE} version 4: {zip_in(kaggle, 4)} (" in output
    origin = json.loads((kaggle.raw / "source.json").read_text())
    assert [origin[key] for key in ("source", "reference", "version", "images")] == [
        "kaggle",
        HANDLE,
        "4",
        200,
    ]
    assert (kaggle.raw / "images/TEST/B/7.jpeg").read_bytes() == picture("4TESTB7", 1000)


def test_a_version_is_downloaded_once_and_later_needs_no_network(kaggle, server):
    assert kaggle()[0] == 0
    asked = len(server.seen)
    assert kaggle()[0] == 0 and len(server.seen) == asked
    state = json.loads(Path("data/source_state.json").read_text())
    came = datetime.fromtimestamp(zip_in(kaggle).stat().st_mtime, UTC)
    assert datetime.fromisoformat(state["asked"]) == came.replace(microsecond=0)
    assert download.main("--source") == 0 and len(server.seen) == asked  # a version never changes


def test_latest_is_recorded_as_the_version_it_was_and_a_newer_one_comes(kaggle, server):
    newest = server.versions.pop(6)
    assert kaggle(version="latest")[0] == 0
    assert json.loads((kaggle.raw / "source.json").read_text())["version"] == "4"
    before = json.loads(Path("data/source_state.json").read_text())
    assert not source.differ(sources.source_state(LATEST), before)
    server.versions[6] = newest
    assert kaggle(version="latest")[0] == 0
    assert json.loads((kaggle.raw / "source.json").read_text())["version"] == "6"
    assert arrived(kaggle, server, 4) and arrived(kaggle, server, 6)
    assert source.differ(sources.source_state(LATEST), before)


@pytest.mark.parametrize(
    "kind",
    ["environment", "file named in the environment", "access_token", "kaggle.json", "user and key"],
)
def test_tokens_are_found_where_the_client_finds_them(kaggle, server, monkeypatch, kind):
    server.token = "someone:0123456789" if kind in ("kaggle.json", "user and key") else TOKEN
    folder = kaggle.home / ".kaggle"
    folder.mkdir()
    user, _, key = server.token.partition(":")
    file = {"file named in the environment": "my-token", "kaggle.json": "kaggle.json"}.get(
        kind, "access_token"
    )
    if kind == "user and key":
        monkeypatch.setenv("KAGGLE_USERNAME", user)
        monkeypatch.setenv("KAGGLE_KEY", key)
    elif kind == "environment":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    else:
        content = (
            json.dumps({"username": user, "key": key}) if kind == "kaggle.json" else TOKEN + "\n"
        )
        (folder / file).touch(mode=0o600)
        (folder / file).write_text(content)
        if kind == "file named in the environment":
            monkeypatch.setenv("KAGGLE_API_TOKEN", str(folder / file))
    status, output, errors = kaggle()
    assert (status, errors) == (0, "")
    # The storage is another host: it gets the signed link, and no token.
    assert ["authorization" in request["headers"] for request in server.seen] == [True, False]


def test_login_by_the_kaggle_command(kaggle, server):
    server.token = TOKEN
    login = {"refresh_token": "r", "access_token": TOKEN, "username": "u", "scopes": []}
    (kaggle.home / ".kaggle").mkdir()
    file = kaggle.home / ".kaggle" / "credentials.json"
    file.touch(mode=0o600)
    file.write_text(
        json.dumps(
            login
            | {"access_token_expiration": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        )
    )
    assert kaggle()[0] == 0


def test_token_that_others_can_read_is_a_warning_with_the_fix(kaggle, server):
    server.token = "someone:0123456789"
    (kaggle.home / ".kaggle").mkdir()
    file = kaggle.home / ".kaggle" / "kaggle.json"
    file.write_text('{"username": "someone", "key": "0123456789"}')
    file.chmod(0o644)
    server.faults["DownloadDataset"] += [{"status": 503}]
    status, output, errors = kaggle()
    assert status == 0
    assert (
        errors == f"warning: {file} holds your Kaggle token and other users can read it: chmod 600"
        f" {file}\n"
    )


def test_killed_at_ten_points_and_started_again(kaggle, server, workspace):
    """Each process gets a few bytes more and is killed; the last one finishes with the right bytes,
    hardly any fetched twice.
    """
    use(workspace, source="kaggle", handle=HANDLE, version=6)
    # No new imports: ten processes in a second
    size, fork = len(server.versions[6]), multiprocessing.get_context("fork")
    points = sorted(random.Random(5).sample(range(size), 10))
    for before, point in zip([0, *points], points, strict=False):
        server.faults["storage"] += [{"stall": point - before}]
        sent = server.sent
        running = fork.Process(target=download.main)
        running.start()
        while server.sent - sent < point - before and running.is_alive():
            time.sleep(0.002)
        time.sleep(random.Random(point).random() * 0.02)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
        assert not zip_in(kaggle).exists() and not kaggle.raw.exists()
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert len(files_in(kaggle.raw)) == 201


def test_interrupted_by_the_user(kaggle, server):
    server.faults["storage"] += [{"stall": 100_000}]
    running = kaggle.process()
    while (
        not (partial := zip_in(kaggle).with_name("blood-cells.zip.partial")).exists()
        or not partial.stat().st_size
    ):
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=20)
    assert (
        running.returncode == 130
        and "are kept" in output
        and errors.startswith("stopped: interrupted")
    )
    assert not zip_in(kaggle).exists() and not kaggle.raw.exists()
    assert kaggle()[0] == 0 and arrived(kaggle, server)
    assert parts_asked(server)[1] is not None


def test_second_checkout_waits_and_downloads_nothing(kaggle, server):
    zip_in(kaggle).parent.mkdir(parents=True)
    with open(zip_in(kaggle).parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = kaggle.process()
        assert "another run is downloading" in running.stdout.readline()
        zip_in(kaggle).write_bytes(server.versions[6])
    running.communicate(timeout=20)
    assert running.returncode == 0 and server.seen == []
