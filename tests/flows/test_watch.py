"""What `make ui` runs: a server for a toy study and its watch; runs that are started, scheduled and
cancelled through it.
"""

import contextlib
import datetime
import http.server
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from prefect.states import Cancelled

from flows import watch
from flows.dag import Dag
from tests.conftest import ROOT
from tests.flows.browser import CHROMIUM, open_pages
from tests.flows.toy import Toy, ask, end, serve, serving, wait_for


@pytest.fixture(scope="module")
def toy():
    """A served study that has run once."""
    toy = serving()
    assert toy.study("--slots", "0").returncode == 0
    return toy


def runs(toy, flow):
    """Runs of a flow that were started, the latest first."""
    found = ask(toy.api, "flow_runs", sort="START_TIME_DESC", flows={"name": {"any_": [flow]}})
    return [run for run in found if run["state_type"] != "SCHEDULED"]


def deployment(toy, name):
    return toy.call("GET", f"deployments/name/{name}")


def start(toy, name, **parameters):
    """Run a deployment as its page does, with parameters from its form; return the run's id."""
    url = f"deployments/{deployment(toy, name)['id']}/create_flow_run"
    return toy.call("POST", url, json={"parameters": parameters})["id"]


def state_of(toy, run):
    return toy.call("GET", f"flow_runs/{run}")["state"]


def moment(text):
    return datetime.datetime.fromisoformat(text)


def ended(toy, run, seconds=120):
    """Wait for the end of a run; return its state."""
    final = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
    return wait_for(
        lambda: state if (state := state_of(toy, run))["type"] in final else None, seconds
    )


def start_and_hold(toy):
    """Start a study whose stage `a` does not end while the file hold-a exists; return the run's id
    once `a` has started.
    """
    toy.forget_events()
    toy.write("hold-a", "")
    run = start(toy, "study/study")
    wait_for(lambda: toy.events("a"))
    return run


def name_of(toy, run):
    return toy.call("GET", f"flow_runs/{run}")["name"]


def begin(toy, flow, tags):
    """Create a run that is Running, although no process works on it; return its id."""
    return toy.call(
        "POST", "flow_runs/", json={"flow_id": flow, "tags": tags, "state": {"type": "RUNNING"}}
    )["id"]


def process_of(toy, module):
    """Return the id of the process that runs a module for this study."""
    return next(
        pid for pid in toy.processes() if module in Path(f"/proc/{pid}/cmdline").read_text()
    )


def kill_serving(toy):
    toy.process.kill()
    toy.process.wait()


def output(toy):
    """Return the output of the latest `hemotune ui` of this study."""
    return (toy.folder / "serve.txt").read_text()


def test_a_cancelled_run_leaves_nothing_running_and_a_second_is_refused(toy):
    toy.forget_events()
    toy.set("ab", 0.3)
    toy.write("hold-a", "")
    run = start(toy, "study/study")
    wait_for(lambda: toy.events("a"))
    before = set(toy.processes())
    second = ended(toy, start(toy, "study/study"))
    assert second["type"] == "CANCELLED"
    assert (
        f"another study is running in this checkout: the run '{name_of(toy, run)}' (process "
        in second["message"]
    )
    assert [event["event"] for event in toy.events("a")] == ["start"]
    # Each line of a stopped stage has its origin before it.
    assert "\nTraceback" not in output(toy)

    toy.call("POST", f"flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    asked = time.monotonic()
    wait_for(lambda: state_of(toy, run)["type"] == "CANCELLED", 40)
    # The flow, its launcher, DVC and the stage.
    wait_for(lambda: len(toy.processes()) <= len(before) - 4, 10)
    print(f"cancelled within {time.monotonic() - asked:.1f} s")
    (toy.folder / "hold-a").unlink()
    assert toy.study("--slots", "0").returncode == 0
    assert toy.changed() == []


def test_a_schedule_starts_the_study_only_if_something_has_changed(toy):
    watch = deployment(toy, "watch/watch")
    assert [schedule["schedule"]["cron"] for schedule in watch["schedules"]] == ["0 6 * * *"]
    toy.forget_events()
    studies, watches = len(runs(toy, "study")), len(runs(toy, "watch"))
    every = {
        "schedule": {
            "interval": 10,
            "anchor_date": datetime.datetime.now(datetime.UTC).isoformat(),
        },
        "active": True,
    }
    toy.call("POST", f"deployments/{watch['id']}/schedules", json=[every])

    def completed():
        later = runs(toy, "watch")[: len(runs(toy, "watch")) - watches]
        return [run for run in later if run["state_type"] == "COMPLETED"]

    first = wait_for(completed, 120)[-1]
    assert "nothing has changed" in first["state"]["message"]
    assert len(runs(toy, "study")) == studies and not toy.events()

    toy.write("source.txt", "v2")
    wait_for(lambda: len(runs(toy, "study")) > studies, 120)
    assert ended(toy, runs(toy, "study")[0]["id"])["type"] == "COMPLETED"
    assert "from download v2" in (toy.folder / "report.md").read_text()
    assert sorted(toy.events()) == ["a", "b", "download"]

    # A watch after the study's end starts no other.
    study = runs(toy, "study")[0]
    wait_for(
        lambda: any(moment(run["start_time"]) > moment(study["end_time"]) for run in completed()),
        120,
    )
    assert len(runs(toy, "study")) == studies + 1
    for schedule in deployment(toy, "watch/watch")["schedules"]:
        toy.call("DELETE", f"deployments/{watch['id']}/schedules/{schedule['id']}")
    assert [len(events) for events in toy.events().values()] == [2, 2, 2]


@contextlib.contextmanager
def listening():
    """Run a web server during the block; yield its address, and what is sent to it."""
    received = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/", received
        listener.shutdown()


def notify(toy, *arguments):
    """Run `hemotune notify`; return its exit status and output."""
    done = toy.run(sys.executable, "-m", "flows.cli", "notify", *arguments)
    return done.returncode, done.stdout


def test_a_change_of_parameters_is_seen_and_a_failure_told(toy):
    assert ask(toy.api, "automations") == []
    with listening() as (address, received):
        assert notify(toy, address)[0] == 0
        assert notify(toy, address)[0] == 0  # it replaces the first
        assert [message["text"][:8] for message in received] == ["Hemotune", "Hemotune"]
        see_changes(toy)
        # Not the runs of other tests, which no schedule had started.
        wait_for(lambda: len(received) == 4)
        assert [message["state"] for message in received[2:]] == ["Failed", "Recovered"]
        assert "train@b: b fails as requested" in received[2]["text"]
        assert f"{toy.api.removesuffix('/api')}/runs/flow-run/" in received[2]["text"]
        assert notify(toy, "--off")[0] == 0
    assert ask(toy.api, "automations") == []
    status, output = notify(toy, "http://127.0.0.1:9/")
    assert status == 1 and output.startswith("error: http: a first message was not taken: ")


def see_changes(toy):
    wait_for(
        lambda: not any(run["state_type"] in ("RUNNING", "PENDING") for run in runs(toy, "watch")),
        60,
    )
    toy.set("ab", 0.4)
    studies = len(runs(toy, "study"))
    toy.write("fail-b", "")
    state = ended(toy, start(toy, "watch/watch"))
    assert state["type"] == "COMPLETED" and "params.yaml: seconds: modified" in state["message"]
    study = runs(toy, "study")[0]
    assert (
        "started the study 'study: 3 of 4 stages'" in state["message"]
        and "; it is Running" in state["message"]
    )
    assert len(runs(toy, "study")) == studies + 1
    assert ended(toy, study["id"])["type"] == "FAILED"

    # The next one reports how that study ended.
    (toy.folder / "fail-b").unlink()
    message = ended(toy, start(toy, "watch/watch"))["message"]
    assert (
        f"The last study, '{study['name']}', ended Failed: " in message
        and "train@b: b fails as requested" in message
    )
    study = runs(toy, "study")[0]
    assert ended(toy, study["id"])["name"] == "Recovered"
    assert study["name"] == "study: 2 of 4 stages" and "watch" in study["tags"]
    assert toy.changed() == []


@pytest.mark.parametrize("flow", ["study", "watch"])
def test_a_run_is_tagged_by_checkout_and_machine_however_it_is_started(toy, flow):
    # As a worker does: by itself, without the tags of a deployment of `hemotune ui`.
    code = f"from flows.{flow} import {flow}; {flow}()"
    assert toy.run(sys.executable, "-c", code).returncode == 0
    tags = [f"checkout:{toy.folder}", f"machine:{socket.gethostname()}"]
    assert set(tags) <= set(runs(toy, flow)[0]["tags"])


def test_the_watch_of_a_pool_has_its_tags_before_it_starts(toy, tmp_path):
    """The server may not see for minutes those that a run gets when it starts."""
    variables = {
        "PREFECT_HOME": str(tmp_path),
        "HEMOTUNE_CHECKOUT": str(toy.folder),
        "HEMOTUNE_MACHINE": socket.gethostname(),
    }
    checkout = toy.beside(ROOT, toy.api)
    for command in (["work-pool", "create", "hemotune", "--type", "process"], ["deploy", "--all"]):
        done = checkout.run(sys.executable, "-m", "prefect", "--no-prompt", *command, **variables)
        assert done.returncode == 0, done.stdout
    deployed = [deployment(toy, name) for name in ("watch/pool", "study/pool")]
    for one in deployed:
        toy.call("DELETE", f"deployments/{one['id']}")
    toy.call("DELETE", "work_pools/hemotune")
    tags = {f"checkout:{toy.folder}", f"machine:{socket.gethostname()}", "watch"}
    assert set(deployed[0]["tags"]) == tags
    assert deployed[1]["tags"] == []  # by tags a watch would find it, and not run the study itself


def test_parameters_from_the_page_are_those_of_the_command_line(toy):
    form = deployment(toy, "study/study")["parameter_openapi_schema"]["properties"]
    assert "`cpu,cpu`" in form["slots"]["description"] and form["slots"]["pattern"]
    assert "On this machine auto is " in form["slots"]["description"]
    assert form["force"]["items"]["enum"] == ["download", "train@a", "train@b", "report"]
    for name, value in {"slots": "cpu;cpu", "per_gpu": 0, "force": ["trian"]}.items():
        with pytest.raises(httpx.HTTPStatusError) as refused:
            start(toy, "study/study", **{name: value})
        assert name in refused.value.response.json()["detail"]

    toy.forget_events()
    toy.set("ab", 0.45)
    for name in "ab":
        toy.write(f"hold-{name}", "")
    run = start(toy, "study/study", slots="10, 2")
    wait_for(lambda: len(toy.events()) == 2)
    for name in "ab":
        (toy.folder / f"hold-{name}").unlink()
    assert ended(toy, run)["type"] == "COMPLETED"
    assert {events[0]["slot"] for events in toy.events().values()} == {"10", "2"}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_pages_ask_no_other_address(toy, tmp_path):
    server, run = toy.api.removesuffix("/api"), runs(toy, "study")[0]
    pages = {
        "runs": "Page 1 of 1",
        f"runs/flow-run/{run['id']}": run["name"],
        "deployments": "Ready",
        "blocks/catalog": "AWS Credentials",
    }
    asked = open_pages(tmp_path, {f"{server}/{page}": text for page, text in pages.items()})
    assert len(asked) > 50
    # Those without a host are `data:` and the like.
    assert {urlsplit(url).netloc for url in asked} - {""} == {urlsplit(server).netloc}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_what_a_page_asks_after_it_has_shown_its_text_is_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "shown<script>setTimeout(() => { fetch('http://late.invalid/');"
        " new WebSocket('ws://late.invalid/') }, 500)</script>"
    )
    asked = open_pages(tmp_path / "browser", {page.as_uri(): "shown"})
    assert sorted(asked) == [page.as_uri(), "http://late.invalid/", "ws://late.invalid/"]


def test_a_watch_whose_study_does_not_run_fails_and_says_why(monkeypatch):
    run = SimpleNamespace(
        id=None, name="brave-otter", state=Cancelled(message="another study is running")
    )
    monkeypatch.setattr(watch, "study_is_running", lambda: False)
    dag = Dag(stages=[], locked=[], remote=None)
    monkeypatch.setattr(watch, "find_changes", lambda log: (dag, ["params.yaml: modified"], []))
    monkeypatch.setattr(watch, "run_deployment", lambda *_, **__: run)
    monkeypatch.setattr(watch.runs, "served_study", lambda: "its id")
    monkeypatch.setattr(watch.runs, "wait_for_start", lambda run_id: run.state)
    state = watch.check_and_start(logging.getLogger())
    assert state.is_failed()
    assert (
        state.message == "started the study 'brave-otter': params.yaml: modified; it is Cancelled:"
        " another study is running"
    )


def test_a_source_that_does_not_answer_fails_the_watch_and_says_why(toy):
    (toy.folder / "source.txt").rename(toy.folder / "away")
    state = ended(toy, start(toy, "watch/watch"))
    (toy.folder / "away").rename(toy.folder / "source.txt")
    assert state["type"] == "FAILED" and state["message"].startswith(
        "download: the source did not answer: "
    )


def test_a_failed_check_fails_the_watch_and_says_why(toy):
    toy.set("ab", 0.3)
    toy.write("wrong", "")
    with listening() as (address, received):
        # An address of Apprise, which the server of `hemotune ui` can send to.
        apprise = address.replace("http:", "json:")
        assert notify(toy, apprise) == (
            1,
            "error: json: the server of PREFECT_API_URL sends only to http: and https:\n",
        )
        assert notify(toy.beside(), apprise)[0] == 0
        state = ended(toy, start(toy, "watch/watch"))
        wait_for(lambda: len(received) == 2)
        assert received[1]["title"] == "watch 'watch': Failed"
        assert received[1]["message"].startswith("wrong: is not allowed; remove it")
        assert notify(toy.beside(), "--off")[0] == 0
    (toy.folder / "wrong").unlink()
    toy.set("ab", 0.4)
    assert state["type"] == "FAILED" and state["message"].startswith(
        "wrong: is not allowed; remove it. The last study, "
    )


def test_another_checkout_is_served_at_the_server_of_this_one(toy, tmp_path):
    other = serve(Toy(tmp_path / "other", names="a", seconds=0.1), "--name", "mine", api=toy.api)
    assert f"using Prefect's server at {toy.api.removesuffix('/api')}" in output(other)
    run = start(other, "study/mine")
    assert ended(other, run)["type"] == "COMPLETED"
    assert f"checkout:{other.folder}" in toy.call("GET", f"flow_runs/{run}")["tags"]
    assert other.changed() == []
    end(other.process)
    wait_for(lambda: not other.processes(), 15)
    assert deployment(toy, "study/study")["status"] == "READY" and toy.process.poll() is None


def test_a_server_that_dies_is_restarted_and_the_study_continues(toy):
    toy.set("ab", 0.5)
    run = start_and_hold(toy)
    os.kill(process_of(toy, "flows.server_process"), signal.SIGKILL)
    wait_for(lambda: "ended with status -9; it was restarted" in output(toy), 20)
    assert state_of(toy, run)["type"] == "RUNNING"  # waits for the new server's answer
    (toy.folder / "hold-a").unlink()
    assert ended(toy, run)["type"] == "COMPLETED"
    assert toy.changed() == []
    assert "\nTraceback" not in output(toy)


def set_on_the_page(toy):
    """Pause both deployments and add a schedule to each; return them as they were."""
    served = [deployment(toy, name) for name in ("study/study", "watch/watch")]
    cron = {"schedule": {"cron": "15 7 * * *", "timezone": "Asia/Tokyo"}, "active": True}
    for one in served:
        toy.call("POST", f"deployments/{one['id']}/schedules", json=[cron])
        toy.call("POST", f"deployments/{one['id']}/pause_deployment")
    return served


def assert_kept(toy, served):
    """Check that what was set on the page has survived a start; end the pauses."""
    for one in served:
        kept = toy.call("GET", f"deployments/{one['id']}")
        crons = [schedule["schedule"]["cron"] for schedule in kept["schedules"]]
        assert kept["paused"] and crons.count("15 7 * * *") == 1, kept["name"]
        assert len(crons) == 1 + len(one["schedules"])
        toy.call("POST", f"deployments/{one['id']}/resume_deployment")


def test_runs_that_a_killed_server_process_left_end_and_block_nothing(toy):
    toy.set("ab", 0.6)
    run = start_and_hold(toy)
    served = set_on_the_page(toy)
    toy.process.send_signal(signal.SIGSTOP)
    asked = start(toy, "study/study")
    flow = toy.call("GET", f"flow_runs/{run}")["flow_id"]
    # A run from before runs had tags, one of another checkout, whose processes are not known here,
    # and one that was cancelled.
    own = f"checkout:{toy.folder}"
    old, other, cancelling = (
        begin(toy, flow, tags) for tags in ([], ["checkout:/elsewhere"], [own])
    )
    toy.call("POST", f"flow_runs/{cancelling}/set_state", json={"state": {"type": "CANCELLING"}})
    pending = start(toy, "watch/watch")  # counts as the one watch that may run
    toy.call("POST", f"flow_runs/{pending}/set_state", json={"state": {"type": "PENDING"}})
    # The server too: else it may still hear from the flow that its task is cancelled.
    os.kill(process_of(toy, "flows.server_process"), signal.SIGKILL)
    kill_serving(toy)
    wait_for(lambda: not toy.processes(), 10)
    serve(toy, port=toy.api.split(":")[-1].removesuffix("/api"))
    assert_kept(toy, served)
    assert "watch   for changes: paused on the page" in output(toy)
    for left in (run, old, pending, cancelling):
        state = state_of(toy, left)
        assert state["type"] == "CRASHED" and "no process works on this run" in state["message"]
    tasks = ask(toy.api, "task_runs", flow_runs={"id": {"any_": [run]}})
    states = {task["name"]: task["state_type"] for task in tasks}
    assert states["train@a"] == "CRASHED"
    assert (
        state_of(toy, asked)["type"] == "CANCELLED"
        and "due while nothing was served" in state_of(toy, asked)["message"]
    )
    assert state_of(toy, other)["type"] == "RUNNING"
    assert [event["event"] for event in toy.events("a")] == ["start"]  # nothing started by itself

    (toy.folder / "hold-a").unlink()
    following = start(toy, "study/study")
    wait_for(lambda: state_of(toy, following)["type"] in ("RUNNING", "COMPLETED"), 60)
    assert ended(toy, following)["type"] == "COMPLETED"
    assert toy.changed() == []
    assert ended(toy, start(toy, "watch/watch"))["type"] == "COMPLETED"


def test_a_study_from_the_command_line_outlives_the_server_it_uses(toy):
    toy.set("ab", 0.7)
    toy.forget_events()
    toy.write("hold-a", "")
    process = toy.start(
        sys.executable, "-m", "flows.cli", "run", "--slots", "0", stdout=subprocess.PIPE, stderr=-2
    )
    wait_for(lambda: toy.events("a"))
    run = runs(toy, "study")[0]
    kill_serving(toy)
    serve(toy, port=toy.api.split(":")[-1].removesuffix("/api"))
    assert state_of(toy, run["id"])["type"] == "RUNNING"
    (toy.folder / "hold-a").unlink()
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    assert state_of(toy, run["id"])["type"] == "COMPLETED"


def test_the_end_of_hemotune_ui_ends_everything(toy):
    serving.cache_clear()  # other tests serve another study
    toy.set("ab", 0.8)
    start_and_hold(toy)
    end(toy.process)
    wait_for(lambda: not toy.processes(), 15)
    assert not (toy.folder / ".study/server.json").exists()
    assert "\nTraceback" not in output(toy)
