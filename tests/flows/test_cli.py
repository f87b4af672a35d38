"""The command line `hemotune`: help, wrong options, folders that are no checkout."""

import importlib
import runpy
import subprocess
import tomllib
import zipfile
from types import SimpleNamespace

import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from flows import schedules, serve
from flows.deployments import Registered
from flows.schedules import Times
from tests.conftest import ENVIRONMENT, ROOT, python
from tests.flows.toy import Toy, call

IN_CHECKOUT = ["run", "ui", "watch", "notify", "status", "clean", "doctor"]
COMMANDS = ["init", "run", "ui", "predict", "watch", "notify", "status", "clean", "doctor", "audit"]


@pytest.fixture
def elsewhere(tmp_path):
    """Run `hemotune ARGUMENTS` in an empty folder; importing Prefect or DVC there is an error."""
    poison, folder = tmp_path / "poison", tmp_path / "empty"
    for path in (poison, folder):
        path.mkdir()
    for name in ("prefect", "dvc", "keras"):
        (poison / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')")

    def hemotune(*arguments):
        done = python("flows.cli", *arguments, cwd=folder, PYTHONPATH=f"{poison}:{ROOT}")
        assert not list(folder.iterdir())
        return done.returncode, done.stdout, done.stderr

    return hemotune


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_needs_no_checkout_and_loads_neither_prefect_nor_dvc(elsewhere, command):
    code, output, errors = elsewhere(*command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("Usage: ")
    if not command:
        assert [line.split()[0] for line in output.partition("Commands:\n")[2].splitlines()] == (
            COMMANDS
        )
        assert "..." not in output.partition("Commands:\n")[2]


@pytest.mark.parametrize("command", IN_CHECKOUT)
def test_outside_a_checkout_a_command_is_one_line(elsewhere, command):
    assert elsewhere(command) == (
        1,
        "",
        "error: dvc.yaml is missing: run from the top folder of a checkout\n",
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["rum"], "No such command 'rum'."),
        (["run", "--slot", "0"], "No such option: --slot"),
        (["run", "--per-gpu", "0"], "Invalid value for '--per-gpu': "),
        (["ui", "--port", "http"], "Invalid value for '--port': "),
        (["ui", "--port", "65536"], "Invalid value for '--port': Input should be less than"),
        (["status", "now"], "Got unexpected extra argument(s) (now)"),
    ],
)
def test_wrong_options_are_named(elsewhere, arguments, problem):
    code, output, errors = elsewhere(*arguments)
    assert (code, output) == (2, "")
    assert errors.splitlines()[-1].startswith(f"Error: {problem}")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("clean", "clean"),
        ("doctor", "doctor"),
        ("notify", "notify"),
        ("serve", "ui"),
        ("status", "status"),
        ("study", "run"),
        ("watch", "watch"),
    ],
)
@pytest.mark.filterwarnings("ignore:'flows:RuntimeWarning")  # the module was imported before
def test_a_module_of_a_command_names_the_command(module, command):
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"flows.{module}", run_name="__main__")
    assert end.value.code == f"error: flows.{module} is not a command: use `hemotune {command}`"


def test_what_no_device_and_no_stage_is_called_is_refused_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(Toy(tmp_path / "toy", names="a").folder)
    for options, problem in {
        "--slots cpu;cpu": (
            "slots: 'cpu;cpu' is no device: give auto, or ids such as 0,1 or cpu,cpu"
        ),
        "--force trian": "force: there is no stage trian; `dvc stage list` names them",
    }.items():
        capfd.readouterr()
        assert call("run", *options.split()) == 1
        assert capfd.readouterr() == ("", f"error: {problem}\n")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with no more than what a command looks for at first."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "environment", "problem"),
    [
        (["--watch", "every day"], {}, "--watch: 'every day' is no cron expression"),
        (["--watch", "0 0 30 2 *"], {}, "--watch: '0 0 30 2 *' is no cron expression"),
        ([], {"HEMOTUNE_WATCH": "hourly?"}, "--watch: 'hourly?' is no cron expression"),
        (["--timezone", "Mars/Base"], {}, "--timezone: there is no time zone 'Mars/Base'"),
        ([], {"HEMOTUNE_TIMEZONE": "Berlin"}, "--timezone: there is no time zone 'Berlin'"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_starts(
    checkout, monkeypatch, capfd, options, environment, problem
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert call("ui", *options) == 1
    output, errors = capfd.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith(f"error: {problem}")
    assert len(list(checkout.iterdir())) == 2


def test_a_schedule_has_the_time_zone_of_this_machine_unless_told(monkeypatch):
    monkeypatch.setattr(schedules.tzlocal, "get_localzone_name", lambda: "America/Lima")
    assert Times.parse("0 6 * * *", None) == Times("0 6 * * *", "America/Lima")
    assert Times.parse("0 6 * * 1", "Asia/Tokyo").next_date().startswith("Mon ")


def test_only_another_schedule_from_the_command_line_replaces_that_of_the_last_start(checkout):
    calls = []

    class Client:
        def update_deployment_schedule(self, deployment, own, schedule):
            calls.append((own, schedule.cron))

        def create_deployment_schedules(self, deployment, new):
            calls.append(("new", new[0].schedule.cron))

    (checkout / ".study").mkdir()
    own, users = (SimpleNamespace(id=slug, slug=slug) for slug in (schedules.SLUG, None))
    served = SimpleNamespace(id="watch", schedules=[own, users])
    deleted = SimpleNamespace(id="watch", schedules=[users])
    daily, weekly = Times("0 6 * * *", "UTC"), Times("0 6 * * 1", "UTC")
    for times, deployment in [
        (daily, served),  # as it was created
        (daily, served),
        (weekly, served),
        (weekly, deleted),  # on the page: it stays so
        (daily, deleted),
    ]:
        schedules.apply(Client(), deployment, times)
    assert calls == [
        (schedules.SLUG, "0 6 * * *"),
        (schedules.SLUG, "0 6 * * 1"),
        ("new", "0 6 * * *"),
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give an address, or --off"),
        (["https://example.org", "--off"], "give an address, or --off"),
        (["--off"], "no server runs that could tell: start `hemotune ui` beside this, or set"),
    ],
)
def test_nobody_is_told_without_an_address_and_a_server(checkout, capfd, arguments, problem):
    assert call("notify", *arguments) == 1
    assert capfd.readouterr().err.startswith(f"error: {problem}")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "work.example.org"])
def test_a_page_that_others_reach_without_a_login_is_warned_of(host, monkeypatch, capfd):
    serve.warn_if_open(host)
    warning = capfd.readouterr().err
    assert warning.startswith(f"warning: --host {host}: the page has no login")
    assert warning.count("\n") == 1 and "PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD" in warning
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "me:secret"}):
        serve.warn_if_open(host)
    for local in ("127.0.0.1", "::1", "localhost"):
        serve.warn_if_open(local)
    assert capfd.readouterr().err == ""


def test_the_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["hemotune"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.slow
def test_an_installation_has_all_files(workspace, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (workspace / name).write_bytes((ROOT / name).read_bytes())
    command = ["uv", "build", "--quiet", "--offline", "--no-build-isolation", "--wheel"]
    subprocess.run([*command, "--out-dir", tmp_path / "wheel"], cwd=workspace, env=ENVIRONMENT)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    assert packed == {
        path.relative_to(workspace).as_posix()
        for package in ("flows", "tasks", "hemotune")
        for path in (workspace / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.parametrize(
    ("login", "shown"), [(None, ""), ("me:secret", " PREFECT_API_AUTH_STRING=NAME:PASSWORD")]
)
def test_the_command_that_starts_a_run_has_the_login_that_it_needs(capsys, login, shown):
    with temporary_settings({PREFECT_API_AUTH_STRING: login}):
        serve.print_welcome("http://host/api", Registered("study/study", "watch/watch", "daily"))
    output = capsys.readouterr().out
    command = f" PREFECT_API_URL=http://host/api{shown} prefect deployment run study/study\n"
    assert command in output and "secret" not in output
