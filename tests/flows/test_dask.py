"""Two workers of a real Dask cluster, each in a checkout of its own, that share only a folder as
DVC's remote.
"""

import json
import signal
import sys

import pytest

from flows.cluster import connect
from hemotune.errors import StudyError
from tests.flows.toy import Toy, end, serving, wait_for

pytest.importorskip("prefect_dask")
WORKER = ["--resources", "GPU=1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]


@pytest.fixture
def cluster(tmp_path):
    """A study in `home` under git, and a scheduler with two workers; yield the study, the workers'
    checkouts and the address.
    """
    home = Toy(tmp_path / "home", serving().api, names="abcd", seconds=0.5)
    home.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    for command in [
        ("add", "-A"),
        ("-c", "user.name=t", "-c", "user.email=t@test.invalid", "commit", "-qm", "Begin"),
    ]:
        assert home.run("git", *command).returncode == 0
    note, output = tmp_path / "scheduler.json", open(tmp_path / "dask.txt", "w")
    processes = [
        home.start(
            "dask",
            "scheduler",
            "--port",
            "0",
            "--scheduler-file",
            str(note),
            "--no-dashboard",
            stdout=output,
            stderr=output,
        )
    ]
    try:
        address = wait_for(
            lambda: (
                json.loads(note.read_text())["address"]
                if note.exists() and note.stat().st_size
                else None
            )
        )
        workers = []
        for name in ("one", "two"):
            home.run("git", "clone", "-q", str(home.folder), str(tmp_path / name))
            workers.append(home.beside(tmp_path / name, home.api))
            workers[-1].write("source.txt", "v1")  # not in git; the stages of this toy read it
            processes.append(
                workers[-1].start("dask", "worker", address, *WORKER, stdout=output, stderr=output)
            )
        yield home, workers, address
    finally:
        for process in processes:
            end(process, signal.SIGKILL)


def test_an_address_without_a_scheduler_is_refused_with_the_fix():
    with pytest.raises(
        StudyError,
        match="dask: no Dask scheduler answers at 'nonsense' .*missing port.*such as tcp://",
    ):
        with connect("nonsense"):
            pass


def test_workers_in_their_own_checkouts_make_the_same_report(cluster, tmp_path):
    home, workers, address = cluster
    done = home.study("--dask", address)
    assert done.returncode == 0, done.stdout
    assert sorted([*workers[0].events(), *workers[1].events()]) == ["a", "b", "c", "d"]
    assert all(worker.events() for worker in workers)  # each ran some
    assert list(home.events()) == ["download"]
    assert home.changed() == []

    alone = Toy(tmp_path / "alone", names="abcd", seconds=0.5)
    assert alone.run("dvc", "repro", "-q").returncode == 0
    for name in ("report.md", "dvc.lock"):
        assert (alone.folder / name).read_text() == (home.folder / name).read_text()

    # What runs on a worker ends with the flow.
    for study in (home, *workers):
        study.set("abcd", 0.6)
    for worker in workers:
        worker.forget_events()
        for name in "abcd":
            worker.write(f"hold-{name}", "")
    command = [sys.executable, "-m", "flows.cli", "run", "--dask", address]
    flow = home.start(*command, stdout=-3, stderr=-3)
    wait_for(lambda: all(worker.events() for worker in workers))
    flow.send_signal(signal.SIGTERM)
    wait_for(lambda: all(len(worker.processes()) == 1 for worker in workers), 10)
    flow.wait(30)
    # What was queued there does not start.
    assert [len(worker.events()) for worker in workers] == [1, 1]
