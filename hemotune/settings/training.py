"""Section `training` of a profile."""

from typing import Annotated, Literal

from pydantic import Field

from hemotune.settings.reading import BatchSize, Epochs, Section, Seed


class Training(Section):
    """How each experiment is fine-tuned; all layers are trained, with Adam."""

    epochs: Epochs
    batch_size: BatchSize = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    # Multiplies every experiment's rate
    learning_rate_scale: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1
