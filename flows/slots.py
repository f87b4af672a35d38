"""Slots: the places where one stage that trains can run, each a device id. A stage sees its own
slot's device and no other.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from hemotune.errors import StudyError
from hemotune.gpus import GPU_ID, usable_gpus
from hemotune.progress import cores

CPU = "cpu"
WORKER = "worker"  # of a cluster, whose own environment says which device is its
DEVICE = rf"(?:{CPU}|{GPU_ID})"
# Types of the flow's parameters. Prefect's form shows what they allow; the server refuses all else.
Slots = Annotated[
    str, Field(pattern=rf"^(auto|{DEVICE}( *, *{DEVICE})*)$", examples=["auto", "0,1", "cpu,cpu"])
]
PerGpu = Annotated[int, Field(ge=1)]


def find_devices(slots: str, warn: Callable[[str], None] = print) -> list[str]:
    """Return the ids of the devices that stages may use.

    Args:
        slots: device ids separated by commas, `cpu` for the processor; or "auto" for all GPUs that
            may be used, or, if there are none, twice the processor: one fine-tune then imports
            while the other trains, which saves a third of the time of one after the other.
        warn: called with one line if the driver's tool fails.

    Raises:
        StudyError: something in `slots` is no device id.
    """
    if slots == "auto":
        return usable_gpus(warn) or [CPU, CPU]
    devices = re.split(" *, *", slots)
    for device in devices:
        if not re.fullmatch(DEVICE, device):
            raise StudyError(
                f"slots: {device!r} is no device: give auto, or ids such as 0,1 or cpu,cpu"
            )
    return devices


def name_slots(devices: list[str], per_gpu: int = 1) -> list[str]:
    """Return the names of the slots, `per_gpu` on each device.

    A slot is called by its device's id, with `#1`, `#2` ... where several share the device.
    """
    total, seen, names = Counter(devices * per_gpu), Counter(), []
    for device in devices * per_gpu:
        seen[device] += 1
        names.append(f"{device}#{seen[device]}" if total[device] > 1 else device)
    return names


def environment(slot, slots):
    """Variables for a stage that runs on `slot`, one of `slots`; without a slot (None) it sees no
    GPU.

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
