"""Key `trainings` of params.yaml: under which protocols each experiment is trained, and how often.

An entry is PROTOCOL-REPEAT, such as random-1, held-out-2 or fold-3-1.
"""

import re
from collections.abc import Iterable
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AfterValidator, Field

from hemotune.errors import StudyError

Value = TypeVar("Value")
PATTERN = re.compile(r"(random|held-out|fold-([1-9][0-9]?))-([1-9][0-9]{0,2})")


class Training(NamedTuple):
    """What an entry names."""

    protocol: str  # random, held-out, fold-1, fold-2, ...
    fold: int | None
    repeat: int  # the first is 1


def no_value_twice(values: list[Value]) -> list[Value]:
    if len(set(values)) != len(values):
        raise ValueError("each value may be listed once")
    return values


def parse(entry: str) -> Training:
    """Return what an entry names.

    Raises:
        ValueError: it is not PROTOCOL-REPEAT.
    """
    found = PATTERN.fullmatch(entry)
    if not found:
        raise ValueError(
            "should be PROTOCOL-REPEAT, such as random-1, held-out-2 or fold-1-1 (folds up to 99,"
            " repeats up to 999)"
        )
    protocol, fold, repeat = found.groups()
    return Training(protocol, int(fold) if fold else None, int(repeat))


def require_folds(entries: Iterable[str], folds: int) -> None:
    """Check that the profile cuts as many folds as params.yaml lists.

    Raises:
        StudyError: it does not.
    """
    for entry in entries:
        if (parse(entry).fold or 1) > folds:
            raise StudyError(
                f"params.yaml: trainings: {entry}: the profile's split.folds is {folds}; remove"
                " this entry or raise split.folds"
            )


def require_repeats(entries: Iterable[str], cuts: int) -> None:
    """Check that every cut of the profile's `split.repeats` has a training.

    Raises:
        StudyError: it has not.
    """
    last = max(parse(entry).repeat for entry in entries)
    if last < cuts:
        raise StudyError(
            f"params.yaml: trainings: the profile's split.repeats is {cuts}, but no protocol has a"
            f" repeat {cuts}; add one, such as random-{cuts}, or lower split.repeats"
        )


def refuse_unknown(entry: str) -> str:
    parse(entry)
    return entry


Entry = Annotated[str, AfterValidator(refuse_unknown)]
Trainings = Annotated[list[Entry], Field(min_length=1), AfterValidator(no_value_twice)]
