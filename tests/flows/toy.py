"""A small study in a folder of its own: stages that sleep, print their progress and write a file,
under DVC like the real ones.
"""

import atexit
import copy
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from flows import cli
from tests.conftest import ROOT, place_database

CLIENT = httpx.Client(timeout=300)  # a server that restarts on a busy machine answers late

WORK = """
import json, os, pathlib, sys, time
name, seconds, out = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3])
def note(event):
    with open(f"events/{name}", "a") as file:
        slot = os.environ.get("CUDA_VISIBLE_DEVICES")
        mps = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
        line = {"event": event, "at": time.time(), "slot": slot, "mps": mps}
        file.write(json.dumps(line) + "\\n")
os.makedirs("events", exist_ok=True)
note("start")
if os.path.exists(f"kill-{name}"):
    os.kill(os.getpid(), 9)
if os.path.exists(f"fail-{name}"):
    print(f"error: {name} fails as requested", file=sys.stderr)
    sys.exit(int(open(f"fail-{name}").read() or 1))
if os.path.exists(f"raise-{name}"):
    raise RuntimeError(open(f"raise-{name}").read())
while os.path.exists(f"hold-{name}"):
    time.sleep(0.05)
for step in range(1, 5):
    time.sleep(seconds / 4)
    print(f"[{step * 25:3}%] work {step}/4", flush=True)
out.parent.mkdir(parents=True, exist_ok=True)
version = open("source.txt").read()
out.write_text(f"{name} {version} {seconds}\\n")
if name == "download":
    state = {"version": version}
    # The source is a file on this machine, not a server.
    if os.path.exists("local"):
        from hemotune.tree import state_of
        state = {"path": "source.txt", **vars(state_of(pathlib.Path("source.txt")))}
    pathlib.Path("data/state.json").write_text(json.dumps(state))
note("end")
"""

REPORT = """
import base64, pathlib, sys
print("[ 50%] writing", flush=True)
made = sorted(path.name for path in pathlib.Path("data/results").iterdir())
kind = "incomplete" if "--incomplete" in sys.argv else "complete"
pathlib.Path("figure.png").write_bytes(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNkYPj/HwADBwIAMCbHYQAAAABJRU5ErkJggg=="
))
text = pathlib.Path("data/raw").read_text()
heading = f"# {kind}\\n\\nof {' '.join(made)} from {text}\\n"
pathlib.Path("report.md").write_text(heading + "![a figure](figure.png)\\n")
rows = [f"{name},{pathlib.Path('data/results', name).read_text()}" for name in made]
pathlib.Path("results.csv").write_text("name,made\\n" + "".join(rows))
"""

CHECK = """
import os, sys
if os.path.exists("wrong"):
    sys.exit("error: wrong: is not allowed; remove it")
"""

DAG = """
stages:
  download:
    cmd: python work.py download 0.1 data/raw
    deps: [work.py]
    outs: [data/raw, data/state.json]
    meta:
      check: python check.py
      source: v=$(cat source.txt) && printf '{"version":"%s"}' "$v"
      state: data/state.json
      retries: 1
  train:
    matrix: {name: "${names}"}
    cmd: python work.py ${item.name} ${seconds} data/results/${item.name}
    deps: [work.py, data/raw]
    params: [seconds]
    outs: ["data/results/${item.name}"]
    meta: {gpu: true}
  report:
    cmd: python report.py
    deps: [report.py, data/raw, data/results]
    params: [names]
    outs: [report.md, results.csv, figure.png]
    meta:
      incomplete: python report.py --incomplete
      artifacts: {Report: report.md, Results: results.csv}
      summary: report.md
"""


class Toy:
    """A toy study in `folder`, whose commands use the Prefect server `api` if there is one."""

    def __init__(self, folder, api=None, names="abcdefg", seconds=1.0):
        self.folder, self.api = Path(folder), api
        self.folder.mkdir()
        for name, text in {
            "work.py": WORK,
            "report.py": REPORT,
            "check.py": CHECK,
            "dvc.yaml": DAG,
            "source.txt": "v1",
        }.items():
            self.write(name, text)
        self.write(".gitignore", "/data\n/events\n/hold-*\n/.study\n/source.txt\n__pycache__\n")
        self.set(names, seconds)
        place_database(self.folder / ".study/prefect")
        self.run("git", "init", "-q", ".")
        self.run("dvc", "init", "-q")

    def beside(self, folder=None, api=None):
        """The same study with another server or none, or a copy of it in another folder."""
        other = copy.copy(self)
        other.folder, other.api = folder or self.folder, api
        return other

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def set(self, names, seconds):
        self.write("params.yaml", f"seconds: {seconds}\nnames: [{', '.join(names)}]\n")

    def environment(self):
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
        }
        variables |= {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
        }
        variables.pop("CUDA_VISIBLE_DEVICES", None)
        return variables | ({"PREFECT_API_URL": self.api} if self.api else {})

    def start(self, *command, **options):
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), text=True, **options
        )

    def run(self, *command, **variables):
        """Run a command in the study's folder; return its CompletedProcess, all output in
        `stdout`.
        """
        environment = self.environment() | variables
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
        )

    def study(self, *options):
        """Run the flow as a user does whose PATH has no Python of this environment."""
        return self.run(sys.executable, "-m", "flows.cli", "run", *options, PATH="/usr/bin:/bin")

    def events(self, name=None):
        """Return what the stages recorded, by stage, or of one: dictionaries with event, at
        (seconds), slot, mps.
        """
        if name:
            path = self.folder / "events" / name
            return (
                [json.loads(line) for line in path.read_text().splitlines()]
                if path.exists()
                else []
            )
        folder = self.folder / "events"
        return (
            {path.name: self.events(path.name) for path in sorted(folder.iterdir())}
            if folder.exists()
            else {}
        )

    def call(self, method, path, **options):
        """Call the server's API; return its answer, if any."""
        # The server answers 503 while its database is busy; Prefect's own client retries as well.
        answer = wait_for(
            lambda: (
                a
                if (a := CLIENT.request(method, f"{self.api}/{path}", **options)).status_code != 503
                else None
            )
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def forget_events(self):
        for path in (self.folder / "events").glob("*"):
            path.unlink()

    def changed(self):
        """Return the names of the stages that have changed for DVC."""
        return sorted(json.loads(self.run("dvc", "status", "--json").stdout.splitlines()[-1]))

    def processes(self):
        """Return the ids of all processes in this folder, zombies excepted."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and (entry / "cwd").resolve() == self.folder
                    and "State:\tZ" not in (entry / "status").read_text()
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def call(*arguments):
    """Run `hemotune ARGUMENTS` in this process; returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        cli.app(arguments)
    return ended.value.code


def wait_for(what, seconds=120):
    """Wait until `what()` is true and return it.

    Raises:
        TimeoutError: it was not within `seconds`.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := what():
            return result
        time.sleep(0.2)
    raise TimeoutError(f"not within {seconds} s")


def end(process, number=signal.SIGTERM, seconds=60):
    """Send a signal and wait for the process to end.

    Raises:
        subprocess.TimeoutExpired: it did not within `seconds`; it is killed.
    """
    process.send_signal(number)
    try:
        process.wait(seconds)
    finally:
        process.kill()


@functools.cache
def serving():
    """A toy study that `hemotune ui` serves for all tests of this session.

    Its `api` is the server's address.
    """
    toy = Toy(Path(tempfile.mkdtemp()) / "served", names="ab", seconds=0.2)
    atexit.register(shutil.rmtree, toy.folder.parent, ignore_errors=True)
    return serve(toy)


def serve(toy, *options, port="0", api=None):
    """Serve a toy study with `hemotune ui OPTIONS` until this Python ends, at the server `api` if
    one is given; return it with `api` and `process` set.
    """
    printed, server = toy.folder / "serve.txt", toy.folder / ".study/server.json"
    command = [sys.executable, "-m", "flows.cli", "ui", *([] if api else ["--port", port])]
    own = toy.beside(api=api)  # of the server that is to be started, if none is given
    toy.process = own.start(*command, *options, stdout=open(printed, "w"), stderr=-2)
    atexit.register(end, toy.process, signal.SIGTERM)
    wait_for(lambda: "open  " in printed.read_text() or toy.process.poll() is not None, 300)
    if toy.process.poll() is not None:
        pytest.fail(
            f"hemotune ui ended with status {toy.process.returncode}:\n{printed.read_text()}"
        )
    toy.api = api or json.loads(server.read_text())["api"]
    return toy


def ask(api, what, **body):
    """Call a filter of the server's API; return the list of what it found."""
    return CLIENT.post(f"{api}/{what}/filter", json=body).raise_for_status().json()


def settled(api, run):
    """Return the flow run's task runs once the server has the last state of each, else None."""
    tasks = ask(api, "task_runs", flow_runs={"id": {"any_": [run]}})
    return (
        tasks if tasks and all(task["state_type"] not in ("RUNNING",) for task in tasks) else None
    )
