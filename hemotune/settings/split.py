"""Section `split` of a profile."""

from typing import Annotated

from pydantic import Field, model_validator

from hemotune.settings.reading import Section, Seed


class Split(Section):
    """How images are split.

    Fractions of all images in protocol random; held-out and folds divide training and validation
    images in the same ratio.
    """

    train: Annotated[float, Field(gt=0, lt=1)] = 0.64
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.16
    test: Annotated[float, Field(gt=0, lt=1)] = 0.20
    folds: Annotated[int, Field(ge=2, le=99)] = 5  # fold-1, fold-2, ...
    repeats: Annotated[int, Field(ge=1, le=99)] = 1  # different splits of the images
    seed: Seed = 1

    @model_validator(mode="after")
    def fractions_sum_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {total:.0%}; it must be 100%")
        return self

    def cut(self, repeat: int) -> int:
        """Return the number of a repeat's cut: 1 to `repeats`, in turn."""
        return (repeat - 1) % self.repeats + 1

    def seed_of(self, cut: int) -> int:
        return self.seed + cut - 1
