"""Key `protocols` of params.yaml: how the images are split."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

Value = TypeVar("Value")


def no_value_twice(values: list[Value]) -> list[Value]:
    if len(set(values)) != len(values):
        raise ValueError("each value may be listed once")
    return values


def refuse_former_name(protocol: object) -> object:
    if protocol == "published":
        raise ValueError("the protocol 'published' is now named 'random'")
    return protocol


Protocol = Annotated[Literal["random", "held-out"], BeforeValidator(refuse_former_name)]
Protocols = Annotated[list[Protocol], Field(min_length=1), AfterValidator(no_value_twice)]
