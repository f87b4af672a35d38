"""Shared by the tests: a workspace with the project's files, and one tiny study that many tests
look at.
"""

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent

# Hundreds of processes import the same code; many containers forbid Python to keep its bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "CUDA_VISIBLE_DEVICES": "",
    # A temporary repository is committed to without the user's own git settings.
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{
        f"GIT_{who}_{what}": f"{who}@test.invalid"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}

# Small in every respect, and still each stage does what it does in a real study.
TINY_PROFILE = """\
dataset:
  source: sample
  sample: {photographs: 5, copies: 5, width: 64, height: 48, seed: 3}
images: {size: 32}
validation:
  unreadable: error
  mode: error
  size: error
  duplicate_across: error
  duplicate_within: warning
  near_duplicate_across: warning
  small_class: error
  imbalance: warning
  allowed_modes: [RGB]
  smallest_class: 5
  largest_imbalance: 3.0
split: {train: 0.64, validation: 0.16, test: 0.20, seed: 1}
backbone:
  weights: pretrain
  # A hundred steps: fewer leave the averages of batch normalization where they began, and a
  # model that answers all images alike.
  pretrain: {images: 64, epochs: 4, batch_size: 2, learning_rate: 1.0e-3, seed: 1001}
training:
  epochs: 2
  batch_size: 16
  dropout: 0.5
  learning_rate_scale: 30
  precision: auto
  seed: 1
report: {difference: 2.0}
"""

TINY_PARAMS = """\
profile: tiny
backbones: [MobileNet]
trainings: [random-1]
experiments:
  narrow: {layers: 1, units: 4, learning_rate: 1.0e-5}
  deep: {layers: 2, units: 8, learning_rate: 1.0e-4}
"""


def run(
    command: Sequence[str | Path], cwd: Path, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a workspace and return the finished process; its output is text.

    None as the value of a variable removes it.
    """
    wanted = {**ENVIRONMENT, "PYTHONPATH": str(cwd), **environment}
    variables = {name: value for name, value in wanted.items() if value is not None}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=900
    )


def python(
    module: str, *arguments: object, cwd: Path, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` in a workspace."""
    return run([sys.executable, "-m", module, *map(str, arguments)], cwd, **environment)


def make_nvidia_smi(folder: Path, script: str) -> str:
    """Write a made-up nvidia-smi, a shell script, into `folder`; return a PATH that begins
    there.
    """
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}{os.pathsep}{ENVIRONMENT['PATH']}"


def documented_model_code() -> str:
    """The Python code by which docs/predict.md uses a model: imports, `read(path, recipe)` and one
    prediction.
    """
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs/predict.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def make_workspace(folder: Path) -> Path:
    """Copy the project's code and settings into `folder`, with the tiny profile switched on."""
    # With the code's bytecode, but for what another process is just writing
    unfinished = shutil.ignore_patterns("*.pyc.*")
    for name in ("hemotune", "tasks", "flows", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=unfinished)
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "profiles" / "tiny.yaml").write_text(TINY_PROFILE)
    (folder / "params.yaml").write_text(TINY_PARAMS)
    return folder


def make_repository(folder: Path) -> Path:
    """A workspace that is a git and DVC repository with a first commit."""
    return commit_workspace(make_workspace(folder))


def place_database(home: Path) -> None:
    """Put the database of a new Prefect server into its folder `home`.

    Prefect makes one by a hundred migrations, which take longer than the server's start.
    """
    made = ROOT / f".pytest_cache/prefect-{importlib.metadata.version('prefect')}"
    made.parent.mkdir(exist_ok=True)
    with FileLock(f"{made}.lock"):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=made.parent) as folder:
                upgrade = ["prefect", "server", "database", "upgrade", "--yes"]
                done = run([sys.executable, "-m", *upgrade], ROOT, PREFECT_HOME=folder)
                assert done.returncode == 0, done.stderr
                os.replace(Path(folder, "prefect.db"), made)
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(made, home / "prefect.db")


def commit_workspace(folder: Path) -> Path:
    """Make a workspace a git and DVC repository with a first commit."""
    place_database(folder / ".study/prefect")
    shutil.copytree(
        ROOT / ".dvc",
        folder / ".dvc",
        ignore=shutil.ignore_patterns("cache", "tmp", "config.local"),
    )
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    for command in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "Begin"],
    ):
        subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)
    return folder


def stand_in(folder: Path) -> None:
    """Make up every file that a stage reads or writes and `folder` lacks, and have DVC take them
    for what the stages made.
    """
    from dvc.repo import Repo  # two seconds, which few tests need

    with contextlib.chdir(folder), Repo() as repo:
        files = [
            Path(file.fs_path) for stage in repo.index.stages for file in (*stage.deps, *stage.outs)
        ]
        for path in sorted(files, reverse=True):  # what lies in an output before the output
            if not path.exists():
                path = path if path.suffix else path / "file"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(path))
        repo.commit(force=True)


# Files of few tests that take minutes, because they load TensorFlow or run a study. They begin, so
# that at the end no core idles while one of them runs alone.
SLOWEST = [
    "test_study",
    "test_flow",
    "test_watch",
    "test_dask",
    "test_report",
    "test_jax",
    "test_model",
    "test_heat",
    "test_server",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(SLOWEST)))
    for item in items:
        if item.path.stem in order:
            item.add_marker("slow")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)
