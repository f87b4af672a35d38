"""Key `protocols` of params.yaml: how the images are split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field


def no_value_twice(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("each value may be listed once")
    return values


Protocol = Literal["published", "held-out"]
Protocols = Annotated[list[Protocol], Field(min_length=1), AfterValidator(no_value_twice)]
