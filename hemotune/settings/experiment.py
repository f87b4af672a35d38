"""Section `experiments.NAME` of params.yaml: one row of the study."""

from typing import Annotated

from pydantic import Field

from hemotune.settings.reading import Rate, Section


class Experiment(Section):
    """Hidden layers of the head, units in each, learning rate of Adam."""

    layers: Annotated[int, Field(ge=1, le=32)]
    units: Annotated[int, Field(ge=1, le=4096)]
    learning_rate: Rate


# How a head's first layer gets the feature maps, in the original's words where it has one.
HEADS = {"flatten": "F", "average": "A"}


def architecture(backbone: str, layers: int, units: int, head: str = "flatten") -> str:
    """Return e.g. `ResNet50 - F - D(8) - D(8)`: backbone, flatten, hidden dense layers.

    `A` in place of `F` stands for the average over each feature map.
    """
    return " - ".join([backbone, HEADS[head], *[f"D({units})"] * layers])
