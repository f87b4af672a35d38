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
    # Of the head. Centred: every unit is scaled and shifted to training images before the training
    initialization: Initialization = "random"
    # What keeps its initial weights: none, the backbone, or its layers up to one by name
    freeze: Freeze = "none"
    # Frozen: it normalizes by its averages in training too, and keeps its weights
    batch_norm: BatchNorm = "trained"
    # Training images are mirrored at random, or laid in one of all eight ways
    augmentation: Augmentation = "none"
    warm_up: WarmUp = 0.0  # epochs in which the rate rises from nothing, linearly
    # Balanced: every class weighs the same in the loss, however many images it has
    class_weights: ClassWeights = "none"
    # Multiplies every experiment's rate
    learning_rate_scale: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    # Which epoch is delivered: the last, or the one of the lowest validation loss
    keep: Keep = "last"
    # BatchNormalization's averages in the delivered model and in validation: as the fit left them,
    # or the mean over 20 batches of training images
    averages: Averages = "recomputed"
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1
