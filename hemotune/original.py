"""The study that is reproduced: a folder in profiles/originals/ with its table and its source.

table.csv      a row for each experiment
siblings.csv   the same of studies with other backbones; may be missing
source.yaml    where it was published, and its settings as far as they are known
"""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from hemotune.errors import StudyError
from hemotune.paths import ORIGINALS
from hemotune.settings.experiment import Experiment
from hemotune.settings.reading import Section, read

Value = TypeVar("Value", int, float)

SPLITS = {"train": "train", "val": "validation", "test": "test"}  # in the tables' heads; our words
REQUIRED = ("backbone", "model", "hidden_layers", "units", "learning_rate", "test_acc")
UNKNOWN = "not stated"


@dataclass(frozen=True)
class Row:
    """An experiment of a published study.

    Loss and accuracy (fraction) are by the key of SPLITS, of those that the table has. A figure
    that is not given is NaN, and a text is empty.
    """

    backbone: str
    model: str
    layers: int
    units: int
    learning_rate: float
    loss: dict[str, float]
    accuracy: dict[str, float]
    seconds: float  # of learning, as learning_time says
    learning_time: str  # h:mm:ss.ffffff
    figure: str  # the link to it
    # The same again where the study repeats them, in its results table
    table_accuracy: str  # e.g. 99.48%
    table_learning_time_ms: int  # -1 where it is not given


class Reference(Section):
    """Something that was published."""

    title: str
    url: Annotated[str, Field(pattern=r"^https?://[^\s()<>]+$")]


class Settings(Section):
    """The settings of a published study, in words."""

    images: str = UNKNOWN
    sizes: str = UNKNOWN  # of train, validation and test
    image_size: str = UNKNOWN
    weights: str = UNKNOWN
    head: str = UNKNOWN
    initialization: str = UNKNOWN  # of the head
    freeze: str = UNKNOWN
    epochs: str = UNKNOWN
    batch_size: str = UNKNOWN
    dropout: str = UNKNOWN
    keep: str = UNKNOWN
    averages: str = UNKNOWN
    learning_rate: str = UNKNOWN
    trainings: str = UNKNOWN  # of a row, and the seed
    machine: str = UNKNOWN


class TestSize(Section):
    """A number of images that the test set may have had, and why."""

    images: Annotated[int, Field(ge=1)]
    of: str


class Source(Reference):
    """source.yaml: where a study was published, and what is known of it."""

    about: str = ""  # a clause on what it is
    data: Reference | None = None
    siblings: str = ""  # what the studies of siblings.csv are, a sentence without its full stop
    settings: Settings = Settings()
    test_sizes: list[TestSize] = []
    sizes_found: str = ""  # what the sizes that fit tell, a sentence


@dataclass(frozen=True)
class Original:
    """A study that is reproduced, and its siblings."""

    source: Source
    rows: list[Row]
    siblings: list[Row]


def read_original(name: str, root: Path = Path(".")) -> Original:
    """Return the original in the folder `name` of profiles/originals.

    Raises:
        StudyError: the folder or a file is missing, or a file does not hold what it should.
    """
    folder = root / ORIGINALS / name
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        raise StudyError(
            f"profile: study.original: there is no folder {ORIGINALS / name}; there is:"
            f" {', '.join(there) or 'none'}"
        )
    for needed in ("source.yaml", "table.csv"):
        if not (folder / needed).exists():
            raise StudyError(
                f"{ORIGINALS / name / needed} is missing: add it, or remove study.original from the"
                " profile"
            )
    siblings = folder / "siblings.csv"
    return Original(
        source=read(folder / "source.yaml", "", Source),
        rows=read_table(folder / "table.csv"),
        siblings=read_table(siblings) if siblings.exists() else [],
    )


def read_table(path: Path) -> list[Row]:
    """Return the rows of a table of experiments.

    Raises:
        StudyError: it is no CSV, lacks a column or a row, or a value is of the wrong type.
    """
    place = path.relative_to(path.parents[3])
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, restval="", strict=True)
            columns = list(table.fieldnames or [])
            if missing := [column for column in REQUIRED if column not in columns]:
                raise StudyError(
                    f"{place}: lacks the columns {', '.join(missing)}; it has"
                    f" {', '.join(columns) or 'none'}"
                )
            rows = [row_of(values, f"{place}, line {table.line_num}") for values in table]
    except (csv.Error, UnicodeDecodeError) as error:
        raise StudyError(f"{place}: is not a CSV in UTF-8 ({error}): save it as one") from None
    if not rows:
        raise StudyError(f"{place}: holds no experiment: add a row for each")
    return rows


def row_of(values: dict[str, str], place: str) -> Row:
    """Return one row of a table; `place` is for messages.

    Raises:
        StudyError: a value is of the wrong type.
    """

    def parsed(column: str, kind: Callable[[str], Value], like: str, default: Value) -> Value:
        text = values.get(column, "").strip()
        if not text and column not in REQUIRED:
            return default
        try:
            return kind(text)
        except ValueError:
            raise StudyError(f"{place}: {column} is '{text}': write it like {like}") from None

    def figures(of: str) -> dict[str, float]:
        columns = {split: f"{split}_{of}" for split in SPLITS}
        return {
            split: parsed(column, float, "0.95", math.nan)
            for split, column in columns.items()
            if column in values
        }

    return Row(
        backbone=values["backbone"],
        model=values["model"],
        layers=parsed("hidden_layers", int, "1", 0),
        units=parsed("units", int, "8", 0),
        learning_rate=parsed("learning_rate", float, "1e-5", math.nan),
        loss=figures("loss"),
        accuracy=figures("acc"),
        seconds=parsed("learning_time", seconds_of, "1:00:08.099976", math.nan),
        learning_time=values.get("learning_time", ""),
        figure=values.get("figure", ""),
        table_accuracy=values.get("table_accuracy", ""),
        table_learning_time_ms=parsed("table_learning_time_ms", int, "3608099", -1),
    )


def seconds_of(text: str) -> float:
    """Return the seconds of a duration `h:mm:ss.ffffff`.

    Raises:
        ValueError: it is none.
    """
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def require_rows(original: Original, name: str, experiments: Mapping[str, Experiment]) -> None:
    """Check that the original has an experiment of params.yaml, by name or by settings.

    Raises:
        StudyError: it has none, so that nothing could be set beside it.
    """

    def settings(one: Row | Experiment) -> tuple[int, int, float]:
        return one.layers, one.units, one.learning_rate

    ours = {settings(experiment) for experiment in experiments.values()}
    rows = [*original.rows, *original.siblings]
    if not any(row.model in experiments or settings(row) in ours for row in rows):
        names = [row.model for row in original.rows]
        raise StudyError(
            f"{ORIGINALS / name}/table.csv: none of its experiments ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}) is one of params.yaml, by name or by layers,"
            " units and learning rate: correct it, or remove study.original from the profile"
        )
