"""`make setup` with made-up tools: which Python it takes, and which lock files it installs."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

TOOLS = "cat cp dirname head make mkdir rm sed sh uname".split()
NO_DRIVER = "echo NVIDIA-SMI has failed; exit 9"
H100 = "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-8932f937)'"
# Each notes how it was called. The made-up Python is also that of the environment which it makes.
PYTHON = """\
[ "$1" = -c ] && exit {unfit}
echo "${{0##*/}} $*" >> calls
[ "$2" = venv ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp uv .venv/bin/uv
exit 0
"""
UV = """\
echo "uv $*" >> calls
[ "$1" = venv ] && mkdir -p .venv/bin && cp python .venv/bin/python && cp uv .venv/bin/uv
exit 0
"""


class Machine:
    """A folder with the Makefile and all that `make setup` reads, and a PATH of its own."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in ("Makefile", "setup.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for path in ROOT.glob("requirements*.lock"):
            shutil.copy(path, folder)
        for tool in TOOLS:
            # Not a link, through which a test could write into the machine's own tool.
            self.program(tool, f'exec {shutil.which(tool)} "$@"')
        self.program("uv", UV, folder)
        self.program("python", PYTHON.format(unfit=0), folder)
        # A machine without a GPU of its own, also where the tests run on one with a GPU.
        self.program("nvidia-smi", "exit 127")

    def program(self, name, script, folder=None):
        path = (folder or self.bin) / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(self, *variables):
        """Run `make setup`; return its exit status, output, first line of errors, and what the
        made-up tools were asked.
        """
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            ["make", "setup", *variables],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
        )
        asked = calls.read_text().splitlines() if calls.exists() else []
        error = (done.stderr.splitlines() or [""])[0]
        return done.returncode, done.stdout, error, asked


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def synced(asked):
    """The lock files that uv was asked to install."""
    (command,) = [line for line in asked if line.startswith("uv pip sync ")]
    assert "--require-hashes" in command
    return [word for word in command.split() if word.endswith(".lock")]


def test_the_first_python_that_fits_is_taken(machine):
    machine.program("python3.11", PYTHON.format(unfit=1))  # a shim, or a Python without venv
    machine.program("python3.12", PYTHON.format(unfit=0))
    code, output, error, asked = machine.setup()
    assert (code, error) == (0, "")
    assert output == (
        "setup: requirements.lock into .venv, with python3.12; no CUDA libraries: nvidia-smi lists"
        " no GPU\n"
    )
    assert asked[0] == "python3.12 -m venv --clear .venv"
    assert "requirements-setup.lock" in asked[1] and synced(asked) == ["requirements.lock"]

    assert machine.setup() == (0, "", "", [])  # nothing to do
    os.utime(machine.folder / "requirements.lock", (2e9, 2e9))
    _, output, _, asked = machine.setup()
    assert "with .venv/bin/python;" in output and asked[0].startswith("python -m pip install")
    machine.program("python3.13", PYTHON.format(unfit=0))
    assert machine.setup("PYTHON=python3.13")[3][0] == "python3.13 -m venv --clear .venv"


def test_without_a_python_uv_brings_its_own(machine):
    machine.program("uv", UV)
    code, output, _, asked = machine.setup()
    assert code == 0 and "into .venv, with uv;" in output
    assert asked[0] == "uv venv --quiet --seed --python >=3.11,<3.14 .venv"
    assert synced(asked) == ["requirements.lock"]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ([], "no Python 3.11, 3.12 or 3.13 with venv was found: install one (Debian, Ubuntu: apt"),
        (
            ["PYTHON=python3.10"],
            "PYTHON=python3.10 is not Python 3.11, 3.12 or 3.13, or lacks venv",
        ),
        (["BACKEND=torch"], "BACKEND=torch is not supported: tensorflow or jax"),
    ],
)
def test_what_is_missing_is_one_line_and_nothing_is_made(machine, variables, problem):
    machine.program("python3.10", PYTHON.format(unfit=1))
    code, output, error, asked = machine.setup(*variables)
    assert (code, output, asked) == (2, "", [])
    assert error.startswith(f"error: {problem}")
    assert not (machine.folder / ".venv").exists()


def test_a_gpu_brings_its_libraries_which_stay(machine):
    machine.program("python3.11", PYTHON.format(unfit=0))
    machine.program("uname", "echo Linux x86_64")
    machine.program("nvidia-smi", H100)
    code, output, _, asked = machine.setup()
    assert code == 0 and output == (
        "setup: requirements.lock requirements-cuda.lock into .venv, with python3.11; TensorFlow's"
        " CUDA libraries: nvidia-smi lists NVIDIA H100 80GB HBM3\n"
    )
    assert synced(asked) == ["requirements.lock", "requirements-cuda.lock"]

    machine.program("nvidia-smi", NO_DRIVER)  # the driver fails for a while
    assert machine.setup() == (0, "", "", [])
    machine.program("nvidia-smi", H100)
    assert synced(machine.setup("BACKEND=jax")[3]) == [
        "requirements.lock",
        "requirements-jax-cuda.lock",
    ]
    assert machine.setup() == (0, "", "", [])
    machine.program("nvidia-smi", NO_DRIVER)
    os.utime(machine.folder / "pyproject.toml", (2e9, 2e9))
    _, output, _, asked = machine.setup()
    assert output.endswith("JAX's CUDA libraries: installed before\n")
    assert synced(asked) == ["requirements.lock", "requirements-jax-cuda.lock"]


def test_tensorflow_has_no_gpu_on_arm(machine):
    machine.program("python3.11", PYTHON.format(unfit=0))
    machine.program("uname", "echo Linux aarch64")
    machine.program("nvidia-smi", H100)
    code, _, error, asked = machine.setup()
    assert (code, asked) == (2, [])
    assert error.endswith("JAX has them here: make setup BACKEND=jax")
    assert synced(machine.setup("BACKEND=jax")[3])[1] == "requirements-jax-cuda.lock"
