"""Several fine-tunes on one GPU, with made-up GPUs, a made-up nvidia-smi and a made-up
multi-process service.
"""

import logging
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

from flows import gpu_sharing, mps
from flows.gpu_sharing import Gpu, read_gpus, share
from hemotune import gpu_memory
from hemotune.gpu_memory import GB
from hemotune.gpus import HELD_AT_MOST
from tests.conftest import ROOT, make_nvidia_smi
from tests.flows.toy import Toy, wait_for

MIB = 2**20
H100 = Gpu("0", "GPU-5a", "NVIDIA H100 80GB HBM3", 81559 * MIB, 4 * MIB)
T4 = Gpu("1", "GPU-7c", "Tesla T4", 15360 * MIB, 3 * MIB)
LINES = 'echo "0, GPU-5a, NVIDIA H100 80GB HBM3, 81559, 4"; echo "1, GPU-7c, Tesla T4, 15360, 3"'
# Notes what it is asked, and answers as the service does.
CONTROL = """\
if [ "$1" = -d ]; then asked=-d; else read -r asked; fi
echo "$asked $CUDA_MPS_PIPE_DIRECTORY ${{CUDA_VISIBLE_DEVICES-all}}" >> "{notes}"
case "$asked" in
-d) {start} ;;
get_server_list) {servers} ;;
esac
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with the project's settings, whose profile is `kaggle`; 16 cores."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("profile: sample", "profile: kaggle"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_sharing, "cores", lambda: 16)
    return tmp_path / "params.yaml"


def test_the_drivers_tool_says_what_gpus_have(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", make_nvidia_smi(tmp_path, LINES))
    assert read_gpus() == [H100, T4]
    monkeypatch.setenv(
        "PATH", make_nvidia_smi(tmp_path, 'echo "0, GPU-9e, NVIDIA GB10, [N/A], [N/A]"')
    )
    assert read_gpus() == [Gpu("0", "GPU-9e", "NVIDIA GB10", 0, 0)]
    monkeypatch.setenv("PATH", make_nvidia_smi(tmp_path, "echo no driver; exit 9"))
    warned = []
    assert read_gpus(warned.append) == []
    assert warned == ["nvidia-smi fails: exit status 9, no driver"]


def test_a_large_gpu_is_shared_as_far_as_its_memory_goes(study, monkeypatch):
    """Seven at 224 px took 34 GB of an H100, with 1.9 GB of images each (docs/gpus.md)."""
    need = gpu_memory.estimate()
    assert 34 / 7 * GB < need.total - (HELD_AT_MOST - 1.9 * GB) < 1.3 * 34 / 7 * GB
    sharing = share(["0"], [H100, T4])
    assert sharing.per_device == 7
    assert sharing.why.startswith(
        "NVIDIA H100 80GB HBM3 has 77 GB to share, one fine-tune takes 7."
    )
    assert "a batch of 32 at 224 px" in sharing.why
    assert share(["GPU-5a"], [H100, T4]).per_device == 7
    assert share(["1"], [H100, T4]).per_device == 1
    assert share(["0", "1"], [H100, T4]).per_device == 1  # the same number for all
    assert share(["0"], [Gpu("0", "", "H100", H100.memory, 60 * GB)]).per_device == 2
    monkeypatch.setattr(gpu_sharing, "cores", lambda: 2)
    assert share(["0"], [H100]).per_device == 2

    monkeypatch.setattr(gpu_sharing, "cores", lambda: 16)
    settings = study.read_text()
    study.write_text(settings.replace("[ResNet50]", "[ResNet50, EfficientNetV2L]"))
    larger = gpu_memory.estimate()
    assert larger.weights > 4 * need.weights and larger.batch > 2 * need.batch
    study.write_text(settings.replace("[ResNet50]", "[MyNet]"))
    assert gpu_memory.estimate().total > larger.total
    study.write_text(settings.replace("1.0e-4}", "1.0e-4, batch_size: 64}"))
    assert gpu_memory.estimate().batch == pytest.approx(2 * need.batch)


@pytest.mark.parametrize(
    ("devices", "gpus"),
    [
        (["MIG-1f"], [H100]),
        (["0", "0"], [H100]),
        (["0"], []),
        (["0"], [Gpu("0", "", "GB10", 0, 0)]),
    ],
)
def test_a_gpu_of_unknown_memory_is_not_shared(study, devices, gpus):
    assert share(devices, gpus).per_device == 1


def test_a_given_number_is_taken_and_processors_are_not_shared(study, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", make_nvidia_smi(tmp_path, LINES))
    said = []
    assert gpu_sharing.per_device(3, ["0"], said.append) == 3
    assert gpu_sharing.per_device("auto", ["cpu", "cpu"], said.append) == 1
    assert said == []
    assert gpu_sharing.per_device("auto", ["0"], said.append) == 7
    assert said[0].startswith("per_gpu: auto takes 7: NVIDIA H100")


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Puts a made-up nvidia-cuda-mps-control first on the PATH; returns where it notes what it was
    asked.
    """
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    def put(start="true", servers="echo 4242"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        path, notes = tmp_path / "bin" / mps.CONTROL, tmp_path / "asked"
        path.write_text(f"#!/bin/sh\n{CONTROL.format(notes=notes, start=start, servers=servers)}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", make_nvidia_smi(path.parent, LINES))
        return notes

    return put


def commands(notes):
    return [line.split()[0] for line in notes.read_text().splitlines()]


def test_the_service_runs_as_long_as_a_gpu_is_shared(control, caplog):
    caplog.set_level(logging.INFO)
    notes, log = control(), logging.getLogger("test")
    with mps.running(["0", "1", "cpu#1", "cpu#2"], log) as variables:
        assert variables == {} and not notes.exists()
    with mps.running(["0#1", "0#2"], log) as variables:
        folder = variables["CUDA_MPS_PIPE_DIRECTORY"]
        assert commands(notes) == ["-d", "start_server", "get_server_list"]
    assert commands(notes)[-1] == "quit"
    assert {tuple(line.split()[-2:]) for line in notes.read_text().splitlines()} == {
        (folder, "all")
    }
    assert "Multi-Process Service runs until the end" in caplog.text


def test_a_service_that_runs_is_used_and_what_a_killed_one_left_is_not(
    control, caplog, tmp_path, monkeypatch
):
    caplog.set_level(logging.INFO)
    notes, log = control(), logging.getLogger("test")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as service:
        service.bind(str(tmp_path / "control"))
        service.listen()
        with mps.running(["0#1", "0#2"], log) as variables:
            assert variables == {} and not notes.exists()
    assert f"the Multi-Process Service of {tmp_path} is used" in caplog.text

    caplog.clear()
    assert (tmp_path / "control").is_socket()
    with mps.running(["0#1", "0#2"], log) as variables:
        assert variables["CUDA_MPS_PIPE_DIRECTORY"] != str(tmp_path)
        assert commands(notes) == ["-d", "start_server", "get_server_list"]
    assert commands(notes)[-1] == "quit"
    assert "Multi-Process Service runs until the end" in caplog.text


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"start": "echo not supported; exit 1"}, "not supported"),
        ({"servers": "echo Failed to start"}, "servers: Failed to start"),
        ({"servers": "true"}, "servers:"),
    ],
)
def test_where_the_service_is_not_allowed_stages_take_turns(
    control, caplog, answers, reason, tmp_path, monkeypatch
):
    control(**answers)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with mps.running(["0#1", "0#2"], logging.getLogger("test")) as variables:
        assert variables == {}
    assert f"does not start ({reason}); stages take turns" in caplog.text
    assert not list(tmp_path.glob("mps-*"))


def test_the_service_ends_with_a_killed_run(control):
    notes = control()
    program = (
        "import logging, os, signal; from flows import mps\n"
        "with mps.running(['0#1', '0#2'], logging.getLogger()):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT)
    wait_for(lambda: commands(notes)[-1] == "quit")


@pytest.mark.slow
def test_stages_that_share_a_gpu_find_the_service(control, tmp_path):
    notes = control()
    toy = Toy(tmp_path / "toy", names="ab", seconds=0.2)
    command = [sys.executable, "-m", "flows.cli", "run", "--slots", "0", "--per-gpu", "2"]
    done = toy.run(*command)
    assert done.returncode == 0, done.stdout
    assert "Multi-Process Service runs until the end of this run" in done.stdout
    assert commands(notes)[0] == "-d" and commands(notes)[-1] == "quit"
    folder = notes.read_text().split()[1]
    events = [event for name in "ab" for event in toy.events(name)]
    assert {event["mps"] for event in events} == {folder}
