"""How many fine-tunes share a GPU: `per_gpu: auto`, from its memory and what a fine-tune takes."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.slots import CPU
from hemotune.errors import StudyError
from hemotune.gpu_memory import GB, estimate
from hemotune.gpus import run
from hemotune.progress import cores

MIB = 2**20
# Seven fine-tunes keep an H100 busy all the time (docs/gpus.md): more would gain nothing.
MOST = 7
# Kept free, since the estimate is rough.
SPARE = 0.1


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi describes it."""

    index: str
    uuid: str
    name: str
    memory: int  # bytes; 0 if the driver does not say
    used: int  # bytes, by any process


@dataclass(frozen=True)
class Sharing:
    """How many stages run on each device at a time, and why."""

    per_device: int
    why: str


def read_gpus(warn: Callable[[str], object] = print) -> list[Gpu]:
    """Return the GPUs that nvidia-smi describes; none where there is no nvidia-smi or it fails.

    Args:
        warn: called with one line if nvidia-smi fails.
    """
    query = "--query-gpu=index,uuid,name,memory.total,memory.used"
    try:
        status, output = run(["nvidia-smi", query, "--format=csv,noheader,nounits"], timeout=30)
    except FileNotFoundError:
        return []
    except (OSError, subprocess.TimeoutExpired) as error:
        warn(f"nvidia-smi fails: {error}")
        return []
    if status:
        warn(f"nvidia-smi fails: exit status {status}, {' '.join(output.split()) or 'no output'}")
        return []
    rows = [[field.strip() for field in line.split(",")] for line in output.splitlines()]
    return [
        Gpu(index, uuid, name, bytes_of(memory), bytes_of(used))
        for index, uuid, name, memory, used in (row for row in rows if len(row) == 5)
    ]


def bytes_of(mebibytes: str) -> int:
    """Return a memory of nvidia-smi in bytes; 0 for `[N/A]`, of one that the processor shares."""
    return int(mebibytes) * MIB if mebibytes.isdecimal() else 0


def per_device(
    per_gpu: int | Literal["auto"], devices: Sequence[str], log: Callable[[str], object]
) -> int:
    """Return how many stages each of the `devices` takes at a time.

    Args:
        per_gpu: the number, or `auto`, which `log` is told the reason of.
        devices: as in `find_devices`.
    """
    if per_gpu != "auto":
        return per_gpu
    if CPU in devices:
        return 1
    sharing = share(devices, read_gpus(log))
    log(f"per_gpu: auto takes {sharing.per_device}: {sharing.why}")
    return sharing.per_device


def share(devices: Sequence[str], gpus: Sequence[Gpu]) -> Sharing:
    """Return how many stages each of the `devices` takes at a time, the same number for all.

    Args:
        devices: as in `find_devices`.
        gpus: as nvidia-smi describes them.
    """
    found = [next((g for g in gpus if device in (g.index, g.uuid)), None) for device in devices]
    known = [gpu for gpu in found if gpu and gpu.memory]
    if len(known) < len(devices) or len(set(devices)) < len(devices):
        return Sharing(1, "nvidia-smi does not say how much memory each of them has")
    try:
        need = estimate()
    except StudyError as error:
        return Sharing(1, str(error))
    smallest = min(known, key=lambda gpu: gpu.memory - gpu.used)
    free = (smallest.memory - smallest.used) * (1 - SPARE)
    by_cores = cores() // len(devices)
    return Sharing(
        max(1, min(MOST, by_cores, int(free / need.total))),
        f"{smallest.name} has {free / GB:.0f} GB to share, one fine-tune takes {need}; at most"
        f" {MOST}, and one per core ({cores()})",
    )
