"""Section `training` of a profile."""

from typing import Annotated, Literal

from pydantic import Field

from hemotune.settings.reading import BatchSize, Epochs, Section, Seed

# What an experiment may set too.
Dropout = Annotated[float, Field(ge=0, lt=1)]
Head = Literal["flatten", "average"]
Freeze = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
BatchNorm = Literal["trained", "frozen"]
Augmentation = Literal["none", "flips", "turns"]
WarmUp = Annotated[float, Field(ge=0, le=10_000)]
Initialization = Literal["random", "centred"]
ClassWeights = Literal["none", "balanced"]
Keep = Literal["last", "best"]
Averages = Literal["as_trained", "recomputed"]


class Training(Section):
    """How each experiment is fine-tuned, with Adam; an experiment may set its own values."""

    epochs: Epochs
    batch_size: BatchSize = 32
    dropout: Dropout = 0.5
    # What the first hidden layer sees: every value of the feature maps, or the average of each map
    head: Head = "flatten"
    # Of the head. Centred: before training, every unit gets mean 0, variance 1 on training images
    initialization: Initialization = "random"
    # What keeps its initial weights: nothing (none), the backbone, or its layers up to a named one
    freeze: Freeze = "none"
    # Frozen: BatchNormalization uses its moving averages in training too, and keeps its weights
    batch_norm: BatchNorm = "trained"
    # Flips: training images are mirrored at random; turns: also rotated by multiples of 90 degrees
    augmentation: Augmentation = "none"
    warm_up: WarmUp = 0.0  # epochs in which the learning rate rises linearly from 0
    # Balanced: every class has the same weight in the loss, however many images it has
    class_weights: ClassWeights = "none"
    # Multiplies every experiment's learning rate
    learning_rate_scale: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    # Which epoch is delivered (saved as the model): the last, or that of lowest validation loss
    keep: Keep = "last"
    # BatchNormalization's averages in the delivered model and in validation: as the fit left them,
    # or the mean over 20 batches of training images
    averages: Averages = "recomputed"
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1
