"""Slots: the places where one stage that trains can run, each on a device.

A stage sees its own slot's device and no other.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from hemotune.errors import StudyError
from hemotune.gpus import GPU_ID, ON_DEMAND, usable_gpus
from hemotune.progress import cores

CPU = "cpu"
DEVICE = rf"(?:{CPU}|{GPU_ID})"
# Types of the flow's parameters. Prefect's form shows what they allow, and its server refuses the
# rest.
Slots = Annotated[
    str, Field(pattern=rf"^(auto|{DEVICE}( *, *{DEVICE})*)$", examples=["auto", "0,1", "cpu,cpu"])
]
PerGpu = Annotated[int, Field(ge=1)] | Literal["auto"]


def find_devices(slots: str, warn: Callable[[str], None] = print) -> list[str]:
    """Return the ids of the devices that stages may use.

    Args:
        slots: device ids separated by commas, `cpu` for the CPU; or "auto" for all usable GPUs, or
            the CPU twice if there are none.
        warn: called with one line if the driver's tool fails.

    Raises:
        StudyError: `slots` names something that is not a device.
    """
    if slots == "auto":
        return default_devices(usable_gpus(warn))
    devices = re.split(" *, *", slots)
    for device in devices:
        if not re.fullmatch(DEVICE, device):
            raise StudyError(
                f"slots: {device!r} is no device: give auto, or ids such as 0,1 or cpu,cpu"
            )
    return devices


def default_devices(gpus: list[str]) -> list[str]:
    """Return all usable `gpus`, or the CPU twice: one fine-tune then imports while the other
    trains, which takes a third less time than one after the other.
    """
    return gpus or [CPU, CPU]


def name_slots(devices: list[str], per_gpu: int = 1) -> list[str]:
    """Return the names of the slots, `per_gpu` on each device.

    A slot's name is its device's id, with `#1`, `#2` ... if several share the device.
    """
    total, seen, names = Counter(devices * per_gpu), Counter[str](), []
    for device in devices * per_gpu:
        seen[device] += 1
        names.append(f"{device}#{seen[device]}" if total[device] > 1 else device)
    return names


def variables(slot: str | None, slots: list[str]) -> dict[str, str]:
    """Return environment variables for a stage that runs on `slot`, one of `slots`; without a slot
    (None) it sees no GPU.

    Slots on the CPU share its cores evenly, so that two runs do not compete for them.
    """
    device = device_of(slot) if slot else CPU
    if device != CPU:
        return {
            "CUDA_VISIBLE_DEVICES": device,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            **ON_DEMAND,
        }
    sharing = sum(device_of(other) == CPU for other in slots)
    if not slot or sharing < 2:
        return {"CUDA_VISIBLE_DEVICES": "-1"}
    threads = str(max(1, cores() // sharing))
    names = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
    return {"CUDA_VISIBLE_DEVICES": "-1", **dict.fromkeys(names, threads)}


def device_of(slot: str) -> str:
    return slot.partition("#")[0]
