"""Section `training` of a profile."""

from typing import Annotated, Literal

from pydantic import Field

from hemotune.settings.reading import BatchSize, Epochs, Section, Seed


class Training(Section):
    """How each experiment is fine-tuned; all layers are trained, with Adam."""

    epochs: Epochs
    batch_size: BatchSize = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    # What the first hidden layer sees: every value of the feature maps, or the average of each map
    head: Literal["flatten", "average"] = "flatten"
    # Multiplies every experiment's rate
    learning_rate_scale: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    # Which epoch is delivered: the last, or the one of the lowest validation loss
    keep: Literal["last", "best"] = "last"
    # BatchNormalization's averages in the delivered model and in validation: as the fit left them,
    # or the mean over 20 batches of training images
    averages: Literal["as_trained", "recomputed"] = "recomputed"
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1
