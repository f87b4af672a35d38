"""Two workers of a real Dask cluster, each in a checkout of its own, that meet only in a folder as DVC's remote."""

import signal
import sys
import time

import pytest

from tests.toy import Toy, end, serving, wait_for

pytest.importorskip("prefect_dask")


def test_workers_in_their_own_checkouts_make_the_same_report(tmp_path):
    home = Toy(tmp_path / "home", serving().api, names="abcd", seconds=0.5)
    home.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    for command in [("add", "-A"), ("-c", "user.name=t", "-c", "user.email=t@test.invalid", "commit", "-qm", "Begin")]:
        assert home.run("git", *command).returncode == 0
    processes = [
        home.start(
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler",
            "--port",
            "0",
            "--scheduler-file",
            str(tmp_path / "s.json"),
            "--no-dashboard",
            stdout=-3,
            stderr=-3,
        )
    ]
    try:
        address = wait_for(lambda: (tmp_path / "s.json").exists() and scheduler(tmp_path / "s.json"))
        workers = []
        for name in ("one", "two"):
            home.run("git", "clone", "-q", str(home.folder), str(tmp_path / name))
            worker = Toy.__new__(Toy)
            worker.folder, worker.api = tmp_path / name, home.api
            worker.write("source.txt", "v1")  # not in git; the stages of this toy read it
            workers.append(worker)
            command = [
                "-m",
                "distributed.cli.dask_worker",
                address,
                "--resources",
                "GPU=1",
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
            ]
            processes.append(worker.start("dask", *command, stdout=open(tmp_path / f"{name}.txt", "w"), stderr=-2))
        done = home.study("--dask", address)
        assert done.returncode == 0, done.stdout
        assert all(worker.events() and len(worker.events()) < 4 for worker in workers)  # both trained, and each had a part
        assert sorted([*workers[0].events(), *workers[1].events()]) == ["a", "b", "c", "d"]
        assert list(home.events()) == ["download"]
        assert home.changed() == []

        alone = Toy(tmp_path / "alone", names="abcd", seconds=0.5)
        assert alone.run("dvc", "repro", "-q").returncode == 0
        assert (alone.folder / "report.md").read_text() == (home.folder / "report.md").read_text()
        assert (alone.folder / "dvc.lock").read_text() == (home.folder / "dvc.lock").read_text()

        # What runs on a worker ends with the flow.
        home.set("abcd", 0.6)
        for worker in workers:
            worker.set("abcd", 0.6)
            worker.forget_events()
            for name in "abcd":
                worker.write(f"hold-{name}", "")
        flow = home.start(sys.executable, "-m", "flows.study", "--dask", address, stdout=-3, stderr=-3)
        wait_for(lambda: all(worker.events() for worker in workers))
        started = time.monotonic()
        flow.send_signal(signal.SIGTERM)
        wait_for(lambda: all(len(worker.processes()) == 1 for worker in workers), 10)
        assert time.monotonic() - started < 10
        flow.wait(20)
    finally:
        for process in processes:
            end(process, signal.SIGKILL)


def scheduler(path):
    import json

    try:
        return json.loads(path.read_text())["address"]
    except ValueError:
        return None
