"""Slots: the places where one stage that trains can run, each a device id. A stage sees its own slot's device and no other."""

import os
import subprocess
from collections import Counter

from tasks.errors import StudyError
from tasks.progress import cores

CPU = "cpu"
WORKER = "worker"  # of a cluster, whose own environment says which device is its


def parse(text):
    """Return what `find` takes, from a command line's "auto" or device ids with commas."""
    return text if text == "auto" else text.split(",")


def find(slots="auto", per_gpu=1):
    """List the slots.

    Args:
        slots: "auto" finds the GPUs, and takes the processor as one slot if there are none; or a list of device ids, "cpu" for a slot on
            the processor. A device listed twice is shared by two.
        per_gpu: how many stages share each device.

    Returns:
        Names: the device's id, with `#1`, `#2` ... where it is shared.

    Raises:
        StudyError: no device is named, or `per_gpu` is less than 1.
    """
    devices = [str(device).strip() for device in (visible_gpus() or [CPU] if slots == "auto" else slots)]
    if not devices or not all(devices):
        raise StudyError(f"slots: {slots!r} names no device: give 'auto', or ids such as ['0', '1'], or ['cpu']")
    if per_gpu < 1:
        raise StudyError(f"per_gpu: must be 1 or more, not {per_gpu}")
    total, seen, names = Counter(devices * per_gpu), Counter(), []
    for device in devices * per_gpu:
        seen[device] += 1
        names.append(f"{device}#{seen[device]}" if total[device] > 1 else device)
    return names


def visible_gpus():
    """Ids of the GPUs that this process may use; asks the driver's tool, for loading TensorFlow takes ten seconds and memory on each."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device.strip() for device in visible.split(",") if device.strip()]
        return devices[: devices.index("-1")] if "-1" in devices else devices  # CUDA ignores what follows an id that is not there
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.split()


def environment(slot, slots):
    """Variables for a stage that runs on `slot`, one of `slots`; without a slot (None) it sees no GPU.

    Slots on the processor share its cores evenly, so that two runs do not fight for them.
    """
    if slot == WORKER:
        return {}
    device = slot.partition("#")[0] if slot else CPU
    if device != CPU:
        # Neither backend takes all of the GPU's memory at its start.
        growth = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        return {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **growth}
    variables = {"CUDA_VISIBLE_DEVICES": "-1"}
    sharing = sum(other.partition("#")[0] == CPU for other in slots)
    if slot and sharing > 1:
        threads = str(max(1, cores() // sharing))
        for name in ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]:
            variables[name] = threads
    return variables
