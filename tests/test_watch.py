"""What `make ui` runs: a server that serves a toy study and its watch; runs that are started, scheduled and cancelled through it."""

import datetime
import time

import httpx
import pytest

from tests.toy import ask, end, serving, wait_for


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
    """Press the button `Run` of a deployment, with parameters typed into its form; returns the run's id."""
    url = f"deployments/{deployment(toy, name)['id']}/create_flow_run"
    return toy.call("POST", url, json={"parameters": parameters})["id"]


def state_of(toy, run):
    return toy.call("GET", f"flow_runs/{run}")["state"]


def moment(text):
    return datetime.datetime.fromisoformat(text)


def ended(toy, run, seconds=120):
    """Wait for the end of a run; returns its state."""
    final = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
    return wait_for(lambda: state if (state := state_of(toy, run))["type"] in final else None, seconds)


def test_a_cancelled_run_leaves_nothing_running_and_a_second_is_refused(toy):
    toy.forget_events()
    toy.set("ab", 0.3)
    toy.write("hold-a", "")
    run = start(toy, "study/study")
    wait_for(lambda: toy.events("a"))
    before = set(toy.processes())
    second = start(toy, "study/study")
    assert ended(toy, second)["type"] == "CANCELLED"
    assert len(toy.events()) == 1

    toy.call("POST", f"flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})
    asked = time.monotonic()
    wait_for(lambda: state_of(toy, run)["type"] == "CANCELLED", 40)
    wait_for(lambda: len(toy.processes()) <= len(before) - 4, 10)  # the flow, its launcher, DVC and the stage
    print(f"cancelled within {time.monotonic() - asked:.1f} s")
    (toy.folder / "hold-a").unlink()
    assert toy.study("--slots", "0").returncode == 0
    assert toy.changed() == []


def test_a_schedule_starts_the_study_only_when_something_changed(toy):
    watch = deployment(toy, "watch/watch")
    assert [schedule["schedule"]["cron"] for schedule in watch["schedules"]] == ["0 6 * * *"]
    toy.forget_events()
    studies, watches = len(runs(toy, "study")), len(runs(toy, "watch"))
    every = {"schedule": {"interval": 10, "anchor_date": datetime.datetime.now(datetime.UTC).isoformat()}, "active": True}
    toy.call("POST", f"deployments/{watch['id']}/schedules", json=[every])

    completed = lambda: [run for run in runs(toy, "watch")[: len(runs(toy, "watch")) - watches] if run["state_type"] == "COMPLETED"]  # noqa: E731
    first = wait_for(completed, 120)[-1]
    assert "nothing has changed" in first["state"]["message"]
    assert len(runs(toy, "study")) == studies and not toy.events()

    toy.write("source.txt", "v2")
    wait_for(lambda: len(runs(toy, "study")) > studies, 120)
    assert ended(toy, runs(toy, "study")[0]["id"])["type"] == "COMPLETED"
    assert "from download v2" in (toy.folder / "report.md").read_text()
    assert sorted(toy.events()) == ["a", "b", "download"]

    # Asked again after the study's end, it starts no other.
    study = runs(toy, "study")[0]
    wait_for(lambda: any(moment(run["start_time"]) > moment(study["end_time"]) for run in completed()), 120)
    assert len(runs(toy, "study")) == studies + 1
    for schedule in deployment(toy, "watch/watch")["schedules"]:
        toy.call("DELETE", f"deployments/{watch['id']}/schedules/{schedule['id']}")
    assert [len(events) for events in toy.events().values()] == [2, 2, 2]


def test_a_change_of_parameters_is_seen(toy):
    wait_for(lambda: not any(run["state_type"] in ("RUNNING", "PENDING") for run in runs(toy, "watch")), 60)
    toy.set("ab", 0.4)
    studies = len(runs(toy, "study"))
    message = ended(toy, start(toy, "watch/watch"))["message"]
    assert "started the study" in message and "params.yaml: seconds: modified" in message
    wait_for(lambda: len(runs(toy, "study")) > studies and runs(toy, "study")[0]["state_type"] == "COMPLETED")
    assert toy.changed() == []


def test_parameters_from_the_page_are_those_of_the_command_line(toy):
    form = deployment(toy, "study/study")["parameter_openapi_schema"]["properties"]
    assert "`cpu,cpu`" in form["slots"]["description"] and form["slots"]["pattern"]
    for name, value in {"slots": "cpu;cpu", "per_gpu": 0}.items():
        with pytest.raises(httpx.HTTPStatusError) as refused:
            start(toy, "study/study", **{name: value})
        assert name in refused.value.response.json()["detail"]
    state = ended(toy, start(toy, "study/study", force=["trian"]))
    assert (state["type"], state["message"]) == ("FAILED", "force: there is no stage trian; `dvc stage list` names them")

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


def test_a_source_that_does_not_answer_fails_the_watch_and_says_why(toy):
    (toy.folder / "source.txt").rename(toy.folder / "away")
    state = ended(toy, start(toy, "watch/watch"))
    (toy.folder / "away").rename(toy.folder / "source.txt")
    assert state["type"] == "FAILED" and state["message"].startswith("download: the source did not answer: ")


def test_a_failed_check_fails_the_watch_and_says_why(toy):
    toy.set("ab", 0.3)
    toy.write("wrong", "")
    state = ended(toy, start(toy, "watch/watch"))
    (toy.folder / "wrong").unlink()
    toy.set("ab", 0.4)
    assert (state["type"], state["message"]) == ("FAILED", "wrong: is not allowed; remove it")


def test_the_end_of_serving_ends_all(toy):
    toy.set("ab", 0.5)
    toy.write("hold-a", "")
    toy.forget_events()
    start(toy, "study/study")
    wait_for(lambda: toy.events("a"))
    end(toy.process)
    wait_for(lambda: not toy.processes(), 15)
    assert not (toy.folder / ".study/server.json").exists()
    serving.cache_clear()
