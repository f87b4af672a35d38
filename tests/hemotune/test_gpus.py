"""The devices that a study runs on: those of nvidia-smi, the command line and the watch page."""

import pytest

from flows import slots
from flows.dag import Meta, Stage
from flows.study import has_rivals
from hemotune import gpus
from hemotune.errors import StudyError
from tests.conftest import make_nvidia_smi

DRIVER_IS_GONE = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Puts a made-up nvidia-smi, a shell script, first on the PATH."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda script: monkeypatch.setenv("PATH", make_nvidia_smi(tmp_path, script))


def test_slots_are_devices(monkeypatch):
    assert slots.name_slots(["0", "1"]) == ["0", "1"]
    assert slots.name_slots(["0", "1"], per_gpu=2) == ["0#1", "1#1", "0#2", "1#2"]
    assert slots.variables("1#2", ["1#1", "1#2"])["CUDA_VISIBLE_DEVICES"] == "1"
    assert slots.variables("1", ["1"])["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert slots.variables("1", ["1"])["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert slots.variables(None, ["1"]) == {"CUDA_VISIBLE_DEVICES": "-1"}
    monkeypatch.setattr(slots, "cores", lambda: 8)
    two = slots.name_slots(slots.find_devices("cpu,cpu"))
    assert slots.variables("cpu#1", two)["OMP_NUM_THREADS"] == "4"


def test_only_a_stage_that_nothing_can_run_beside_has_all_cores():
    def stage(name, upstream=(), gpu=True):
        return Stage(name, list(upstream), changed=[], forced=False, meta=Meta(gpu=gpu))

    tunes = [stage(f"finetune@{row}", ["prepare", "backbone@ResNet50"]) for row in (1, 2)]
    stages = [stage("prepare", gpu=False), stage("backbone@ResNet50"), *tunes]
    assert [stage.name for stage in stages[1:] if not has_rivals(stage, stages)] == [
        "backbone@ResNet50"
    ]
    assert has_rivals(stages[1], [*stages, stage("backbone@MobileNet")])


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        ("3,GPU-5a,-1,2", ["3", "GPU-5a"]),
        ("MIG-1f-2/1/0", ["MIG-1f-2/1/0"]),
        ("", ["cpu", "cpu"]),
        ("-1", ["cpu", "cpu"]),
        ("NoDevFiles", ["cpu", "cpu"]),
    ],
)
def test_what_cuda_hides_is_no_slot(nvidia_smi, monkeypatch, visible, devices):
    nvidia_smi("echo 0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.find_devices("auto") == devices


@pytest.mark.parametrize(
    ("script", "devices", "warnings"),
    [
        ("echo 0; echo 1", ["0", "1"], []),
        (f'echo "{DRIVER_IS_GONE}"; exit 9', ["cpu", "cpu"], [f"exit status 9, {DRIVER_IS_GONE}"]),
        ("echo No devices were found", ["cpu", "cpu"], ["exit status 0, No devices were found"]),
        ("echo 0; echo GPU is lost; exit 15", ["0"], ["exit status 15, GPU is lost"]),
    ],
)
def test_gpus_are_found_through_the_drivers_tool(nvidia_smi, script, devices, warnings):
    nvidia_smi(script)
    warned = []
    assert slots.find_devices("auto", warned.append) == devices
    assert warned == [
        f"nvidia-smi fails: {text}; GPUs that it does not list are not used" for text in warnings
    ]


def test_an_id_that_the_driver_does_not_list_is_named(nvidia_smi, monkeypatch):
    nvidia_smi("echo 0; echo 1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    assert gpus.explain_unseen(["0", "7"], gpus.BACKENDS["tensorflow"]).startswith(
        "CUDA_VISIBLE_DEVICES=0,7: there is no GPU 7; nvidia-smi lists 0, 1: name some of these"
    )


@pytest.mark.parametrize(
    "text", ["cpu;cpu", "c,p,u", "0,,1", "", "-1", "auto,0", "ten", "0, ", "GPU"]
)
def test_what_is_no_device_is_refused(text):
    with pytest.raises(StudyError, match="slots: '.*' is no device: give auto, or ids such as 0,1"):
        slots.find_devices(text)


@pytest.mark.parametrize(
    "text", ["10", "0,1", "0 , cpu", "cpu,cpu", "GPU-8932f937-d72c", "MIG-1f-2/1/0"]
)
def test_what_the_form_allows_are_devices(text):
    assert ",".join(slots.find_devices(text)) == text.replace(" ", "")
