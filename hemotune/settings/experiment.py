"""Section `experiments.NAME` of params.yaml: one row of the study."""

from typing import Annotated

from pydantic import Field

from hemotune.errors import StudyError
from hemotune.settings.reading import BatchSize, Epochs, Rate, Section
from hemotune.settings.training import (
    Augmentation,
    Averages,
    BatchNorm,
    ClassWeights,
    Dropout,
    Freeze,
    Head,
    Initialization,
    Keep,
    Training,
    WarmUp,
)


class Experiment(Section):
    """Hidden layers of the head, units in each, learning rate of Adam, and settings of its own.

    A setting that is left out is taken from the profile's section `training`.
    """

    layers: Annotated[int, Field(ge=1, le=32)]
    units: Annotated[int, Field(ge=1, le=4096)]
    learning_rate: Rate
    epochs: Epochs | None = None
    batch_size: BatchSize | None = None
    dropout: Dropout | None = None
    head: Head | None = None
    initialization: Initialization | None = None
    freeze: Freeze | None = None
    batch_norm: BatchNorm | None = None
    augmentation: Augmentation | None = None
    warm_up: WarmUp | None = None
    class_weights: ClassWeights | None = None
    keep: Keep | None = None
    averages: Averages | None = None

    def own(self) -> dict[str, object]:
        """Return what this experiment sets of a profile's section `training`, by name."""
        return self.model_dump(include=set(Training.model_fields), exclude_none=True)


def training_of(name: str, experiment: Experiment, profile: Training) -> Training:
    """Return how an experiment is fine-tuned: its own settings, else the profile's.

    Raises:
        StudyError: a setting of the experiment has no effect beside the others.
    """
    training = profile.model_copy(update=experiment.own())
    place = f"params.yaml: experiments.{name}"
    if training.warm_up > training.epochs:
        raise StudyError(
            f"{place}: warm_up is {training.warm_up:g} of {training.epochs} epochs, so that the"
            " learning rate is never reached: lower warm_up or raise epochs"
        )
    if experiment.batch_norm and training.freeze == "backbone":
        raise StudyError(
            f"{place}.batch_norm: with freeze: backbone nothing is left for it to change: remove"
            " one of the two"
        )
    if experiment.keep == "best" and training.epochs == 1:
        raise StudyError(f"{place}.keep: of 1 epoch the best is the last: remove it")
    return training


# How a head's first layer gets the feature maps, in the original's words where it has one.
HEADS = {"flatten": "F", "average": "A"}


def architecture(backbone: str, layers: int, units: int, head: str = "flatten") -> str:
    """Return e.g. `ResNet50 - F - D(8) - D(8)`: backbone, flatten, hidden dense layers.

    `A` in place of `F` stands for the average over each feature map.
    """
    return " - ".join([backbone, HEADS[head], *[f"D({units})"] * layers])
