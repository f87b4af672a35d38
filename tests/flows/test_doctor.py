"""`hemotune doctor` with made-up GPUs, a made-up nvidia-smi and a made-up backend."""

import json
import shutil

import pytest

from flows import doctor
from hemotune import hardware
from tests.conftest import ROOT, make_nvidia_smi, python

H100 = 'echo "0, GPU-5a, NVIDIA H100 80GB HBM3, 81559, 4"'
INDEX = '[ "$1" = --query-gpu=index ] && echo 0'
KERAS = """\
import contextlib, os
class backend:
    backend = staticmethod(lambda: "jax")
class ops:
    ones = staticmethod(lambda shape: shape)
    matmul = staticmethod(lambda one, other: eval(os.environ["MATMUL"]))
    sum = staticmethod(lambda values: values)
device = contextlib.nullcontext
"""
JAX = """\
import os, types
config = types.SimpleNamespace(jax_platforms=None)
def devices():
    kind = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    return [kind] if os.environ["SEEN"] else []
"""
SECRET = "kaggle-secret-5a7c"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A checkout's settings, a made-up backend, and no nvidia-smi of the machine's own."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name, code in {"keras": KERAS, "jax": JAX}.items():
        (tmp_path / "backend" / name).mkdir(parents=True)
        (tmp_path / "backend" / name / "__init__.py").write_text(code)
    for name in ("CUDA_VISIBLE_DEVICES", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'backend'}:{ROOT}")
    monkeypatch.setenv("SEEN", "yes")
    monkeypatch.setenv("MATMUL", "256**3")
    monkeypatch.setenv("PATH", make_nvidia_smi(tmp_path, f"{INDEX} && exit\n{H100}"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examined(folder, monkeypatch, capsys):
    """Run the doctor in this process; return its exit status, what it found, and what is wrong."""
    code = doctor.examine()
    found, wrong, name = {}, {}, ""
    for line in capsys.readouterr().out.splitlines():
        if line.strip().startswith("wrong: "):
            wrong.setdefault(name, []).append(line.strip().removeprefix("wrong: "))
        elif name := line[:12].strip():
            found[name] = line[13:]
    return code, found, wrong


def test_the_doctor_of_a_machine_with_a_gpu_that_works(machine):
    (machine / ".kaggle").mkdir()
    token = machine / ".kaggle" / "kaggle.json"
    token.write_text(json.dumps({"username": "me", "key": SECRET}))
    token.chmod(0o644)
    variables = {"CUDA_VISIBLE_DEVICES": None, "HOME": str(machine), "KERAS_BACKEND": "jax"}
    variables |= {"SEEN": "yes", "MATMUL": "256**3"}
    calls = machine / "calls"
    variables["PATH"] = make_nvidia_smi(machine, f"echo >> {calls}\n{INDEX} && exit\n{H100}")
    variables["PYTHONPATH"] = f"{machine / 'backend'}:{ROOT}"
    done = python("flows.cli", "doctor", cwd=machine, **variables)
    assert SECRET not in done.stdout + done.stderr and done.stderr == ""
    lines = {line[:12].strip(): line[13:] for line in done.stdout.splitlines()}
    assert lines["Python"].startswith("3.")
    assert lines["GPUs"] == "0: NVIDIA H100 80GB HBM3, 86 GB, 0 used"
    assert lines["precision"].startswith("mixed_bfloat16 (the profile says auto); ")
    assert lines["slots"].startswith("0#1, 0#2") and "per_gpu: auto takes" in lines["slots"]
    assert lines["check"] == "jax sees NVIDIA H100 80GB HBM3: computes"
    assert f"wrong: other users can read it: chmod 600 {token}" in done.stdout
    assert done.returncode == 1 and done.stdout.endswith("\n1 problem\n")
    assert len(calls.read_text().splitlines()) == 3  # to describe, to list, and for the check


def test_the_doctor_names_what_is_wrong(machine, monkeypatch, capsys):
    # Libraries that no package of the lock files brought: the GPU computes, so nothing is wrong.
    assert examined(machine, monkeypatch, capsys)[::2] == (0, {})

    monkeypatch.setenv("SEEN", "")
    code, found, wrong = examined(machine, monkeypatch, capsys)
    assert code == 1 and list(wrong) == ["check"]
    assert wrong["check"][0].startswith("JAX sees none of the GPUs that it may use (0). It reports")
    assert "make setup BACKEND=jax" in wrong["check"][0]

    monkeypatch.setenv("SEEN", "yes")
    monkeypatch.setenv("MATMUL", "1 / 0")
    _, _, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["check"] == [
        "NVIDIA H100 80GB HBM3 (GPU 0) is seen but does not compute: division by zero; look at"
        " `nvidia-smi`, and update the driver or free its memory"
    ]
    monkeypatch.setenv("MATMUL", "os.abort()")
    _, _, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["check"][0].startswith("its process ended by SIGABRT: ")
    monkeypatch.setenv("MATMUL", "7")
    _, _, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["check"] == ["NVIDIA H100 80GB HBM3 (GPU 0) multiplies wrongly: 7 for 16777216"]

    monkeypatch.setenv("PATH", make_nvidia_smi(machine, f"{INDEX} && echo 1 && exit\n{H100}"))
    _, found, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["check"][0].startswith("jax sees 1 of the 2 GPUs that it may use (0, 1): NVIDIA")


def test_the_backend_is_the_one_with_cuda_libraries(machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "find_view", lambda: doctor.Finding(""))
    monkeypatch.setattr(hardware.sys, "prefix", str(machine))
    (machine / "cuda").write_text("jax\n")  # as setup.sh does
    monkeypatch.delenv("KERAS_BACKEND")
    _, found, _ = examined(machine, monkeypatch, capsys)
    assert found["backend"].startswith("jax ")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    _, found, _ = examined(machine, monkeypatch, capsys)
    assert found["backend"].startswith("tensorflow ")


def test_the_doctor_sees_a_failing_driver_and_wrong_settings(machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "find_view", lambda: doctor.Finding(""))
    monkeypatch.setenv("PATH", make_nvidia_smi(machine, "echo no driver; exit 9"))
    code, found, wrong = examined(machine, monkeypatch, capsys)
    assert code == 1 and wrong["GPUs"][0] == "nvidia-smi fails: exit status 9, no driver"
    assert found["slots"] == "cpu#1, cpu#2"

    monkeypatch.setenv("PATH", make_nvidia_smi(machine, f"{INDEX} && exit\n{H100}"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    (machine / "params.yaml").write_text("profile: nowhere\n")
    (machine / ".dvc").mkdir()
    (machine / ".dvc" / "config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = https://me:secret@host.invalid/a\n"
    )
    code, found, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["GPUs"][0].startswith("CUDA_VISIBLE_DEVICES=3: there is no GPU 3: name one of")
    assert wrong["backend"] == ["it is not supported: set it to tensorflow or jax"]
    assert wrong["precision"][0].startswith("params.yaml: profile: there is no profiles/nowhere")
    (machine / "params.yaml").write_text("profile: sample\n")
    profile = machine / "profiles/sample.yaml"
    profile.write_text(profile.read_text().replace("  dropout: 0.5\n", "  dropout: 2\n  drop: 1\n"))
    assert len(examined(machine, monkeypatch, capsys)[2]["precision"]) == 2  # a line each
    assert found["DVC remote"] == "store: https://host.invalid/a"
    (machine / ".dvc" / "config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = /not/mounted\n"
    )
    _, found, wrong = examined(machine, monkeypatch, capsys)
    assert wrong["DVC remote"] == ["there is no folder /not/mounted: create it, or mount its disk"]


@pytest.mark.parametrize(
    "place",
    ["access_token", "access_token.txt", "kaggle.json", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", ""],
)
def test_a_token_is_found_where_the_download_finds_it(machine, monkeypatch, place):
    from tasks.download.kaggle_client import find_credentials

    folder = machine / ".kaggle"
    folder.mkdir()
    if "." in place or place == "access_token":
        text = json.dumps({"username": "me", "key": SECRET}) if "json" in place else SECRET
        (folder / place).write_text(text)
        (folder / place).chmod(0o600)
    elif place:
        monkeypatch.setenv(place, SECRET)
        monkeypatch.setenv("KAGGLE_KEY", SECRET)
    finding = doctor.find_kaggle_token()
    assert bool(find_credentials()) == bool(place) == finding.value.startswith("a token in ")
    assert place in finding.value and SECRET not in finding.value and not finding.problems
