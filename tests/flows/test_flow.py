"""The flow on a toy study: real processes, real DVC, a real Prefect server; only the stages sleep
instead of training.
"""

import contextlib
import http.server
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from flows import artifacts, configure, output, server, slots
from hemotune.errors import StudyError
from tests.conftest import make_nvidia_smi
from tests.flows.toy import Toy, ask, serving, settled, wait_for


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that has run once, on three slots, two of them on one device.

    Its attributes: `first_events`, `first_run` and `first_tasks` of that run, and `snapshot`, a
    copy of its folder after it.
    """
    toy = Toy(tmp_path_factory.mktemp("toys") / "study", serving().api)
    toy.write("fail-download", "75")  # the first try fails; the flow retries after some seconds
    with holding(toy, "a"):
        process = start_flow(toy, "0,1,1")
        wait_for(lambda: toy.events("download"))
        wait_for(lambda: "Retry 1/1" in printed(toy))
        (toy.folder / "fail-download").unlink()
        # While one stage takes long, the others must run on the slots that it leaves.
        wait_for(
            lambda: len(toy.events()) == 8 and all(len(toy.events(name)) == 2 for name in "bcdefg")
        )
    process.wait(120)
    assert process.returncode == 0, printed(toy)
    toy.first_events, (toy.first_run, toy.first_tasks) = toy.events(), last_run(toy)
    toy.snapshot = shutil.copytree(toy.folder, toy.folder.parent / "snapshot")
    return toy


@pytest.fixture
def toy(study):
    """The study as it was after its first run, without the events of that run."""
    shutil.rmtree(study.folder)
    shutil.copytree(study.snapshot, study.folder)
    study.forget_events()
    return study


@contextlib.contextmanager
def holding(toy, names):
    """While the block runs, these stages do not end once they have started."""
    for name in names:
        toy.write(f"hold-{name}", "")
    try:
        yield
    finally:
        for name in names:
            (toy.folder / f"hold-{name}").unlink()


def start_flow(toy, devices):
    """Start a flow that runs beside the test; `printed` returns its output."""
    with open(toy.folder / "output.txt", "w") as output:
        return toy.start(
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            "--slots",
            devices,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def printed(toy):
    return (toy.folder / "output.txt").read_text()


def last_run(toy):
    """Return this study's latest flow run, and its task runs by name."""
    run = ask(toy.api, "flow_runs", sort="START_TIME_DESC", flows={"name": {"any_": ["study"]}})[0]
    return run, {task["name"]: task for task in wait_for(lambda: settled(toy.api, run["id"]))}


def test_no_slot_is_used_twice_and_none_idles_while_work_waits(study):
    runs = defaultdict(list)
    for name, events in study.first_events.items():
        if name != "download":
            started, ended = events
            runs[started["slot"]].append((started["at"], ended["at"]))
    assert set(runs) == {"0", "1"} and sum(map(len, runs.values())) == 7
    for device, spans in runs.items():
        for moment, _ in spans:
            assert sum(start <= moment < stop for start, stop in spans) <= {"0": 1, "1": 2}[device]
    # The one that was held ended last, and it alone had its slot: nothing idled, or the fixture had
    # waited in vain.
    assert max(study.first_events, key=lambda name: study.first_events[name][-1]["at"]) == "a"


def test_tasks_are_named_tagged_and_logged_and_say_why_they_ran(study):
    run, tasks = study.first_run, study.first_tasks
    assert run["state_type"] == "COMPLETED"
    assert set(tasks) == {"download", "report", *(f"train@{name}" for name in "abcdefg")}
    assert set(tasks["train@c"]["tags"]) >= {"train", "gpu"}
    assert re.fullmatch(
        r"ran for [\d.]+ s: no earlier result in dvc.lock",
        tasks["train@c"]["state"]["message"],
    )
    logs = ask(study.api, "logs", logs={"task_run_id": {"any_": [tasks["train@c"]["id"]]}})
    assert "[ 50%] work 2/4" in [line["message"] for line in logs]
    assert len(study.first_events["download"]) == 3  # started and failed; started and ended
    inputs = [given for several in tasks["report"]["task_inputs"].values() for given in several]
    upstream = {given["id"] for given in inputs if given["input_type"] == "task_run"}
    assert upstream == {task["id"] for name, task in tasks.items() if name != "report"}


def test_artifacts_show_progress_tables_and_the_report_with_its_figure(study):
    of_run = {"id": {"any_": [study.first_run["id"]]}}
    artifacts = ask(study.api, "artifacts", flow_runs=of_run, sort="CREATED_DESC")
    found = {item["key"]: item for item in artifacts}
    # The report's last line says 50 %.
    assert found["train-c-progress"]["data"] == found["report-progress"]["data"] == 100
    assert (
        "data:image/png;base64,iVBOR" in found["report"]["data"]
        and "# complete" in found["report"]["data"]
    )
    assert "| name | made |" in found["results"]["data"] and "\n| g | " in found["results"]["data"]
    assert found["results"]["description"] == "Results: results.csv"
    assert all("train@g" in found[key]["data"] for key in ("stages-at-the-start", "stages"))


def test_lock_file_is_the_same_bytes_as_dvc_repro_leaves(toy):
    twin = Toy(toy.folder.parent / "twin")
    assert twin.run("dvc", "repro", "-q").returncode == 0
    assert (twin.folder / "dvc.lock").read_text() == (toy.folder / "dvc.lock").read_text()
    assert toy.changed() == []
    # An added experiment gets the place that DVC would give it; only it and the report run.
    for each in (toy, twin):
        each.set("habcdefg", 1.0)
    assert toy.study("--slots", "0").returncode == 0
    assert list(toy.events()) == ["h"]
    assert twin.run("dvc", "repro", "-q").returncode == 0
    assert (twin.folder / "dvc.lock").read_text() == (toy.folder / "dvc.lock").read_text()


def test_unchanged_study_starts_nothing(toy):
    done = toy.study()
    assert done.returncode == 0 and not toy.events(), done.stdout
    _, tasks = last_run(toy)
    assert {task["state_name"] for task in tasks.values()} == {"Cached"}
    # If there is no server, none is started.
    done = toy.beside(api=None).study()
    report = (toy.folder / "report.md").read_text().strip()
    assert (done.returncode, done.stdout) == (
        0,
        f"\n{report}\n\nnothing to do: none of the 9 stages has changed\n",
    )


def status(toy):
    done = toy.run(sys.executable, "-m", "flows.cli", "status")
    return done.returncode, done.stdout


def test_status_shows_what_is_running_failed_and_changed(toy, tmp_path):
    page = f"  {toy.api.removesuffix('/api')} (PREFECT_API_URL)"
    none = f"running: no study\n{page}\nfailed: 0\n"
    changed = [
        f"  {name}: no earlier result in dvc.lock\n"
        for name in ("download", "train@a", "train@b", "report")
    ]
    new = Toy(tmp_path / "new", names="ab")
    assert status(new) == (
        0,
        f"running: no study\nfailed: 0\nchanged: 4 of 4 stages\n{''.join(changed)}",
    )
    assert status(toy) == (0, f"{none}changed: 0 of 9 stages\n")

    toy.set("ab", 0.25)
    toy.write("fail-b", "")
    with holding(toy, "a"):
        run = start_flow(toy, "0,1")
        wait_for(lambda: toy.events("a") and (toy.folder / ".study/failures/b.json").exists())
        code, output = status(toy)
    assert run.wait(120) == 1
    assert code == 0
    lines = output.splitlines()
    assert lines[0].startswith("running: the run '")
    assert lines[1:] == [
        page,
        "failed: 1",
        "  b: b fails as requested",
        "changed: not known while a study runs",
    ]

    toy.write("params.yaml", "names: [a")
    code, output = status(toy)
    assert code == 1
    failed = "failed: 1\n  b: b fails as requested\n"
    assert output.startswith(f"running: no study\n{page}\n{failed}error: dvc: ")
    assert "Traceback" not in output


def test_nothing_runs_if_a_check_fails(toy):
    toy.set("abcdefg", 0.1)
    toy.write("wrong", "")
    done = toy.study()
    (toy.folder / "wrong").unlink()
    assert (done.returncode, done.stdout) == (1, "error: wrong: is not allowed; remove it\n")
    assert not toy.events()


def test_an_exception_is_shown_where_users_look_and_is_not_retried(toy):
    toy.write("raise-download", f"the beginning {2_000_000 * 'x'} the end")
    done = toy.study("--force", "download")
    (toy.folder / "raise-download").unlink()
    # Not the report of an earlier study.
    assert done.returncode == 1 and "# complete" not in done.stdout
    assert [event["event"] for event in toy.events("download")] == ["start"]
    run, tasks = last_run(toy)
    shown = (
        r"RuntimeError: the beginning x{400,500} \.\.\. x{400,500} the end \(its whole output:"
        r" (\.study/logs/\S+/download\.log)\)"
    )
    for message in (
        tasks["download"]["state"]["message"],
        run["state"]["message"],
        done.stdout.splitlines()[-1],
    ):
        assert re.search(shown, message), message[-1000:]
    assert (
        f"RuntimeError: the beginning {2_000_000 * 'x'} the end\n"
        in (toy.folder / re.search(shown, message)[1]).read_text()
    )
    assert (
        "RuntimeError: the beginning" in (toy.folder / ".study/failures/download.json").read_text()
    )
    assert {name for name, task in tasks.items() if task["state_name"] == "NotReady"} == set(
        tasks
    ) - {"download"}
    assert {tasks[name]["state"]["message"] for name in ("train@a", "report")} == {
        "not run: it needs download"
    }
    logs = ask(
        toy.api,
        "logs",
        logs={"task_run_id": {"any_": [tasks["download"]["id"]]}},
        sort="TIMESTAMP_ASC",
    )
    errors = [
        line["message"]
        for line in logs
        if line["level"] == logging.ERROR and not line["message"].startswith("Finished in")
    ]
    assert errors[0] == "Traceback (most recent call last):" and "work.py" in errors[1]
    assert errors[-1].startswith("RuntimeError: the beginning x") and errors[-1].endswith(
        "x the end"
    )
    assert toy.study().returncode == 0


def test_logs_of_the_last_ten_runs_are_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in (*range(10, 22), 9):  # a clock that was set back
        log = output.path_of_log(f"run-{number:02}", "train@a/b")
        log.touch()
    assert sorted(path.name for path in output.LOGS.iterdir()) == [
        "run-09",
        *(f"run-{number}" for number in range(13, 22)),
    ]
    assert log.name == "train@a-b.log"


@pytest.mark.parametrize("command", ["run", "watch"])
def test_an_address_without_a_prefect_server_is_one_line(toy, command):
    done = toy.beside(api="http://somebody:secret@127.0.0.1:9/api").run(
        sys.executable, "-m", "flows.cli", command
    )
    assert (done.returncode, done.stdout) == (
        1,
        (
            "error: PREFECT_API_URL=http://127.0.0.1:9/api: no Prefect server of this version"
            " answers at this address ([Errno 111] Connection refused); correct the variable, or"
            " unset it: then the run starts its own server\n"
        ),
    )


@pytest.fixture
def other_server():
    """Yield the address of a server that answers everything with a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/api"
        other.shutdown()


def test_an_address_where_something_else_answers_is_refused(other_server):
    for address in (other_server, "nonsense"):
        with pytest.raises(
            StudyError,
            match=(
                f"^PREFECT_API_URL={address}: no Prefect server of this version answers at this"
                " address"
            ),
        ):
            server.check_answer(address)


def test_a_malformed_address_is_refused_without_its_password(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://somebody:secret@[::1/api")
    with pytest.raises(
        SystemExit,
        match="^error: PREFECT_API_URL: Invalid IPv6 URL; correct the variable, or unset it",
    ):
        configure()


def test_a_failure_leaves_the_others_and_an_incomplete_report_and_is_repeated_alone(toy):
    toy.write("fail-c", "")
    toy.write("kill-d", "")
    toy.set("abcdefg", 0.2)
    done = toy.study("--slots", "0,1,2")
    assert done.returncode == 1 and "# incomplete" in done.stdout, done.stdout
    run, tasks = last_run(toy)
    assert (
        run["state_type"] == "FAILED" and "train@c: c fails as requested" in run["state"]["message"]
    )
    assert {name for name, task in tasks.items() if task["state_name"] == "Failed"} == {
        "train@c",
        "train@d",
    }
    assert tasks["report"]["state_name"] == "Incomplete"
    assert (toy.folder / "report.md").read_text().startswith("# incomplete\n\nof a b e f g ")
    assert "c fails as requested" in (toy.folder / ".study/failures/c.json").read_text()
    assert "killed by signal 9" in (toy.folder / ".study/failures/d.json").read_text()
    assert toy.changed() == ["report", "train@c", "train@d"]

    (toy.folder / "fail-c").unlink()
    (toy.folder / "kill-d").unlink()
    toy.forget_events()
    assert toy.study("--slots", "0").returncode == 0
    assert list(toy.events()) == ["c", "d"]
    assert (toy.folder / "report.md").read_text().startswith("# complete\n\nof a b c d e f g ")
    assert not list((toy.folder / ".study/failures").iterdir())
    assert toy.changed() == []


def test_earlier_results_are_restored_up_to_the_report(toy):
    first = (toy.folder / "results.csv").read_text()
    toy.set("abcdefg", 0.1)
    assert toy.study("--slots", "0").returncode == 0
    assert (toy.folder / "results.csv").read_text() != first
    toy.forget_events()
    toy.set("abcdefg", 1.0)
    done = toy.study()
    assert done.returncode == 0 and not toy.events(), done.stdout
    assert (toy.folder / "results.csv").read_text() == first
    assert toy.changed() == []
    _, tasks = last_run(toy)
    assert {task["state_name"] for task in tasks.values()} == {"Cached"}
    message = tasks["train@a"]["state"]["message"]
    assert message.startswith(
        "DVC restored the results of an earlier run: params.yaml: seconds: modified"
    )


def test_nothing_outlives_the_flow_and_the_next_run_continues(toy):
    toy.set("abcdefg", 0.3)
    with holding(toy, "ab"):
        flow = flow_in_two_stages(toy)
        second = toy.study()
        assert (
            second.returncode == 1 and "another study is running in this checkout" in second.stdout
        )
        end_and_look(toy, flow, signal.SIGINT)
        for number in (signal.SIGTERM, signal.SIGKILL):
            end_and_look(toy, flow_in_two_stages(toy), number)
        flow = flow_in_two_stages(toy)
        kill_all(toy)
        flow.wait(60)
    assert "launcher" in (toy.folder / ".dvc/tmp/rwlock").read_text()
    done = toy.study("--slots", "0,1")
    assert done.returncode == 0, done.stdout
    assert "had been killed" not in done.stdout
    assert toy.changed() == []


def flow_in_two_stages(toy):
    """Start a flow on two slots; returns it once a stage has started on each."""
    toy.forget_events()
    flow = start_flow(toy, "0,1")
    wait_for(lambda: len(toy.events()) == 2)
    return flow


def end_and_look(toy, flow, number):
    """Send a signal to the flow; check that its processes end within ten seconds and that it
    fails.
    """
    flow.send_signal(number)
    wait_for(lambda: set(toy.processes()) <= {flow.pid}, 10)
    assert flow.wait(60) != 0
    assert [len(events) for events in toy.events().values()] == [1, 1]  # started, and did not end


def kill_all(toy):
    """Kill all processes at once, as a reboot does: stopped ones cannot release DVC's locks."""
    processes = toy.processes()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            os.kill(process, number)


def test_if_nvidia_smi_fails_it_is_reported_once_and_the_cpu_is_used_twice(toy, tmp_path):
    toy.set("ab", 0.15)
    path = make_nvidia_smi(tmp_path, "echo no driver; exit 9")
    done = toy.run(sys.executable, "-m", "flows.cli", "run", "--slots", "auto", PATH=path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("nvidia-smi fails: exit status 9, no driver; ") == 1
    assert "runs on slot cpu#1" in done.stdout and "runs on slot cpu#2" in done.stdout
    assert {events[0]["slot"] for events in toy.events().values()} == {"-1"}


def test_data_is_fetched_again_after_its_local_source_has_changed(toy):
    toy.write("local", "")
    toy.set("a", 0.0)
    assert toy.run("dvc", "repro", "-q", "--force").returncode == 0
    toy.forget_events()
    toy.write("source.txt", "v2")
    done = toy.study("--slots", "0")
    assert done.returncode == 0, done.stdout
    assert "from download v2" in (toy.folder / "report.md").read_text()
    assert sorted(toy.events()) == ["a", "download"]
    _, tasks = last_run(toy)
    assert re.fullmatch(
        r"ran for [\d.]+ s: a change of the data at its source",
        tasks["download"]["state"]["message"],
    )


def test_images_are_embedded_as_far_as_there_is_room(tmp_path):
    (tmp_path / "small.png").write_bytes(b"12")
    (tmp_path / "large.png").write_bytes(b"1" * 1000)
    text = "![s](small.png) ![l](large.png) ![n](none.png) ![w](https://example.org/x.png)"
    assert (
        artifacts.embed_images(text, tmp_path, largest=200)
        == "![s](data:image/png;base64,MTI=) *l: see large.png* *n: see none.png*"
        " ![w](https://example.org/x.png)"
    )


def test_no_stage_is_named_in_the_flows():
    code = "\n".join(path.read_text() for path in Path(slots.__file__).parent.glob("*.py"))
    for stage in [
        "validate",
        "prepare",
        "backbone",
        "tasks.download",
        "tasks.report",
        "tasks.finetune",
    ]:
        assert stage not in code, stage
