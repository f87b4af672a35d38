"""Section `backbone` of a profile."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hemotune.settings.reading import BatchSize, Epochs, Rate, Section, Seed

KINDS = ("imagenet", "pretrain", "random")
SUFFIXES = (".weights.h5", ".keras")


def refuse_unknown_weights(weights: str) -> str:
    if weights not in KINDS and not weights.endswith(SUFFIXES):
        raise ValueError(
            f"should be {', '.join(KINDS)}, or the path of a file that ends in"
            f" {' or '.join(SUFFIXES)}"
        )
    return weights


class Pretrain(Section):
    """Pre-training on synthetic cells, if ImageNet's weights are not available."""

    # All are held in memory, and a tenth is kept from training.
    images: Annotated[int, Field(ge=32, le=100_000)] = 4000
    magnification: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    epochs: Epochs = 1
    batch_size: BatchSize = 32
    learning_rate: Rate = 1e-3
    # Independent of the fine-tunes' precision: a change there does not change the initial weights.
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1001


class Backbone(Section):
    """Initial weights of every backbone of the study."""

    # imagenet, pretrain (see below), random, or your own file with weights of the same backbone. If
    # its content changes, give it another name: a change under the same name is not noticed.
    weights: Annotated[str, AfterValidator(refuse_unknown_weights)]
    file: str | None = None  # imagenet: a local weights file in place of the download
    seed: Seed = 1
    pretrain: Pretrain = Pretrain()
