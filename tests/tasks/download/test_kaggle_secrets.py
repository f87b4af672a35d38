"""Source kaggle: the token and the signed link appear nowhere."""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from hemotune.errors import TEMPORARY_FAILURE
from tests.conftest import commit_workspace, python
from tests.tasks.download.conftest import TOKEN, parts_asked, use
from tests.tasks.download.kaggle_server import HANDLE, SIGNATURE


def found_in(secrets, texts, *folders):
    """Where a secret appears: in one of the texts, or in a file."""
    texts |= {
        str(path): path.read_bytes().decode("latin-1")
        for top in folders
        for path in top.rglob("*")
        if path.is_file()
    }
    return [where for where, text in texts.items() for secret in secrets if secret in text]


def test_token_and_signed_link_appear_nowhere(kaggle, server, workspace):
    """The client's VERBOSE prints each header; and the link is refused once, and stalls once, as
    errors could tell it.
    """
    server.token = TOKEN
    server.faults["storage"] += [{"status": 403}, {"stall": 100_000}]
    running = kaggle.process(
        KAGGLE_API_TOKEN=TOKEN, VERBOSE="true", VERBOSE_OUTPUT="1", HEMOTUNE_TIMEOUT="1"
    )
    while len(parts_asked(server)) < 2:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    listed = process_list()
    output, errors = running.communicate(timeout=30)
    assert running.returncode == 0 and "tasks.download" in listed
    texts = {"output": output, "errors": errors, "process list": listed}
    assert found_in([TOKEN, SIGNATURE], texts, workspace, kaggle.folder, kaggle.home) == []


def process_list():
    """The command lines of all processes, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            lines.append(path.read_bytes().decode("latin-1").replace("\0", " "))
    return "\n".join(lines)


@pytest.mark.parametrize("place", ["DownloadDataset", "storage"])
def test_token_and_signed_link_appear_in_no_error(kaggle, server, workspace, monkeypatch, place):
    server.token = TOKEN
    for name, value in {
        "KAGGLE_API_TOKEN": TOKEN,
        "VERBOSE": "true",
        "HEMOTUNE_TIMEOUT": "0.1",
    }.items():
        monkeypatch.setenv(name, value)
    server.faults[place] += [{"stall": 0}] * 3 + [
        {"status": 500, "body": f"{TOKEN} {SIGNATURE}".encode()}
    ] * 9
    status, output, errors = kaggle()
    assert status == TEMPORARY_FAILURE
    assert (
        found_in([TOKEN, SIGNATURE], {"output": output, "errors": errors}, workspace, kaggle.folder)
        == []
    )


@pytest.mark.slow
def test_token_and_signed_link_appear_nowhere_in_prefect(kaggle, server, workspace):
    """A flow whose one stage is the study's own download; all that Prefect's server knows lies in
    its database.

    It also shows that a proxy, here the one that leads to the stand-in for Kaggle, is not asked for
    the flow's own server.
    """
    stages = YAML(typ="safe").load((workspace / "dvc.yaml").read_text())["stages"]
    with open(workspace / "dvc.yaml", "w") as file:
        YAML().dump({"stages": {"download": stages["download"]}}, file)
    use(workspace, source="kaggle", handle=HANDLE, version=6)
    commit_workspace(workspace)
    server.token = TOKEN
    server.faults["storage"] += [{"status": 403}, {"cut": 100_000}]
    home = {name: os.environ[name] for name in ("HOME", "HEMOTUNE_CACHE", "HEMOTUNE_PAUSE")}
    settings = {
        "KAGGLE_API_TOKEN": TOKEN,
        "VERBOSE": "true",
        "PREFECT_HOME": str(workspace / ".study/prefect"),
    }
    done = python("flows.cli", "run", cwd=workspace, **server.environment, **home, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    texts = {"output": done.stdout + done.stderr}
    with contextlib.closing(sqlite3.connect(workspace / ".study/prefect/prefect.db")) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        texts |= {
            table: str(database.execute(f'SELECT * FROM "{table}"').fetchall()) for table in tables
        }
    assert "was refused (403)" in texts["log"] and "resuming at" in texts["log"]
    assert found_in([TOKEN, SIGNATURE], texts, workspace, kaggle.folder, kaggle.home) == []
