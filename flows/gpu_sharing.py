"""How many fine-tunes share a GPU: `per_gpu: auto`, from the GPU's memory, the images' size and the
backbones.
"""

import csv
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.slots import CPU
from hemotune.errors import StudyError
from hemotune.gpus import run
from hemotune.progress import cores
from hemotune.settings.images import Images
from hemotune.settings.params import Params
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.training import Training

GB = 10**9
MIB = 2**20
# Seven fine-tunes keep an H100 busy all the time (docs/gpus.md): more would gain nothing.
MOST = 7
# What CUDA, its libraries and their workspaces take in every process.
PER_PROCESS = 0.8 * GB
# A larger array of images stays in the memory of the machine (hemotune/training/fit.py).
IMAGES = 4 << 30
# Weights, gradients and Adam's two averages, in float32.
PER_PARAMETER = 16
PER_VALUE = 2  # mixed_bfloat16
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
class Size:
    """What a backbone needs, a row of backbones.csv (`python -m benchmarks.backbone_memory`)."""

    parameters: int
    values_per_pixel: int  # that all layers put out for each pixel of an image


@dataclass(frozen=True)
class Need:
    """An estimate of the GPU memory of one fine-tune, in bytes."""

    images: float
    weights: float
    batch: float  # of the layers' outputs
    what: str  # a batch of what

    @property
    def total(self) -> float:
        return PER_PROCESS + self.images + self.weights + self.batch

    def __str__(self) -> str:
        return (
            f"{self.total / GB:.1f} GB (images up to {self.images / GB:.1f}, weights and Adam"
            f" {self.weights / GB:.1f}, {self.what} {self.batch / GB:.1f}, CUDA"
            f" {PER_PROCESS / GB:.1f})"
        )


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


def read_sizes() -> dict[str, Size]:
    """Return what each backbone of keras.applications needs, by its name."""
    with Path(__file__).with_name("backbones.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["backbone"]: Size(int(row["parameters"]), int(row["values_per_pixel"]))
            for row in csv.DictReader(file)
        }


def estimate(root: str | Path = ".") -> Need:
    """Return the largest need of the study's fine-tunes.

    Raises:
        StudyError: params.yaml or the profile cannot be read.
    """
    params: Params = read_params("", Params, root)
    size = read_profile("images", Images, root).size
    training: Training = read_profile("training", Training, root)
    batch = max(e.batch_size or training.batch_size for e in params.experiments.values())
    sizes = read_sizes()
    # A backbone that is not in the table counts as the largest that is.
    used = [sizes[name] for name in params.backbones if name in sizes]
    if len(used) < len(params.backbones):
        used = list(sizes.values())
    return Need(
        images=IMAGES,
        weights=max(backbone.parameters for backbone in used) * PER_PARAMETER,
        batch=max(b.values_per_pixel for b in used) * size**2 * batch * PER_VALUE,
        what=f"a batch of {batch} at {size} px",
    )


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
