"""What flows/ uses of the insides of DVC and Prefect, because there is no public way: a new version
that changes it fails here first.
"""

import inspect
import json
import sys

import dvc.lock
import pytest
from prefect._internal import observers
from prefect.logging import loggers
from prefect.server.api import server as prefect_server
from prefect.server.events.services import event_persister

from flows import repository, runs, server, server_process
from tests.flows.toy import Toy

# What a child of the launcher imports although DVC was loaded ahead.
IMPORTED_LATE = """
import json, sys
from flows import repository
repository.preload()
before = set(sys.modules)
repository.inspect()
repository.reproduce("train@a")
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.slow
def test_dvc_is_loaded_ahead(tmp_path):
    toy = Toy(tmp_path / "toy", names="a", seconds=0.0)
    assert toy.run("dvc", "repro", "-q", "download").returncode == 0
    done = toy.run(sys.executable, "-c", IMPORTED_LATE)
    late = json.loads(done.stdout.splitlines()[-1])
    late = [name for name in late if name.startswith(("dvc", "scmrepo", "networkx", "zc"))]
    assert late == [], "add these to flows.repository.PRELOADED: DVC now imports them when it runs"


def test_waiting_for_dvcs_lock_follows_the_module_constant(monkeypatch, tmp_path):
    source = inspect.getsource(dvc.lock.Lock.lock)
    assert "DEFAULT_TIMEOUT / default_retries" in source, (
        "DVC no longer sleeps DEFAULT_TIMEOUT / 6 between two tries: see flows.repository.preload"
    )
    waits = []
    monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0.3)
    monkeypatch.setattr(dvc.lock.time, "sleep", waits.append)
    held, second = dvc.lock.Lock(str(tmp_path / "lock")), dvc.lock.Lock(str(tmp_path / "lock"))
    with held, pytest.raises(dvc.lock.LockError):
        second.lock()
    assert waits and set(waits) == {0.3 / 6}


def test_dvc_repositories_have_what_the_flow_uses(tmp_path, monkeypatch):
    from dvc.repo import Repo, reproduce

    assert "_wait_for_lock" in inspect.signature(Repo.__init__).parameters, (
        "dvc.repo.Repo takes no _wait_for_lock any more: see flows.repository.open_repo"
    )
    for name in ("get_active_graph", "plan_repro"):
        assert hasattr(reproduce, name), f"dvc.repo.reproduce has no {name} any more"
    monkeypatch.chdir(Toy(tmp_path / "toy", names="a").folder)
    with repository.open_repo() as repo:
        assert callable(getattr(repo.stage_cache, "restore", None)), (
            "DVC's run cache has no `restore` any more: see flows.repository.record_restored"
        )


def test_prefects_server_takes_its_pages_from_create_ui_app():
    assert list(inspect.signature(prefect_server.create_ui_app).parameters) == ["ephemeral"]
    source = inspect.getsource(prefect_server.create_app)
    for text in (
        "create_ui_app(ephemeral)",
        'getenv("PREFECT__SERVER_EPHEMERAL")',
        'getenv("PREFECT__SERVER_WEBSERVER_ONLY")',
    ):
        assert text in source, (
            f"Prefect's create_app has no {text} any more: see flows/server_process.py"
        )


def test_prefects_loggers_are_those_that_are_filtered():
    assert event_persister.logger.name == server_process.EVENT_LOGGER, (
        "the logger of Prefect's event persister has another name: see flows/server_process.py"
    )
    for name in runs.OBSERVERS:
        assert f'get_logger("{name}")' in inspect.getsource(observers), (
            f"Prefect's {name} logs under another name: see flows/runs.py"
        )
    for name in ("flow_runs", "task_runs"):
        assert f'get_logger("prefect.{name}")' in inspect.getsource(loggers), (
            f"Prefect logs {name} under another name: see flows/runs.py and flows/stage.py"
        )


def test_prefects_migrations_lie_where_they_are_read():
    assert len(server.migrations()) > 50, "Prefect keeps its migrations elsewhere or otherwise"
