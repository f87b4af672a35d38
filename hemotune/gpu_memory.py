"""How much GPU memory a fine-tune takes: estimated from the size of images and the backbone."""

import csv
from dataclasses import dataclass
from pathlib import Path

from hemotune.gpus import HELD_AT_MOST
from hemotune.settings.images import Images
from hemotune.settings.params import Params
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.training import Training

GB = 10**9
# What CUDA, its libraries and their workspaces take in every process.
PER_PROCESS = 0.8 * GB
# Weights, gradients and Adam's two averages, in float32.
PER_PARAMETER = 16
PER_VALUE = 2  # mixed_bfloat16


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
        images=HELD_AT_MOST,
        weights=max(backbone.parameters for backbone in used) * PER_PARAMETER,
        batch=max(b.values_per_pixel for b in used) * size**2 * batch * PER_VALUE,
        what=f"a batch of {batch} at {size} px",
    )
