"""What is run (params.yaml) and how (profiles/NAME.yaml), checked against declared types before anything runs.

    python -m tasks.settings    check both files

Both files are read with ruamel.yaml in YAML 1.2, as DVC reads them; in YAML 1.1 `1e-5` is a string.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import StudyError, entry_point

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, lt=1)]
# Names become parts of stage names, file names and command lines.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
Protocol = Literal["published", "held-out"]
Severity = Literal["error", "warning", "off"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Experiment(Section):
    """One row of the study: hidden layers of the head, units in each, learning rate of Adam."""

    layers: Positive
    units: Positive
    learning_rate: Rate


def architecture(backbone, layers, units):
    """Return e.g. `ResNet50 - F - D(8) - D(8)`: backbone, flatten, hidden dense layers."""
    return " - ".join([backbone, "F", *[f"D({units})"] * layers])


class Params(Section):
    """params.yaml: the profile's name and the axes of the fine-tune matrix."""

    profile: Name | Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    backbones: Annotated[list[Name], Field(min_length=1)]
    protocols: Annotated[list[Protocol], Field(min_length=1)]
    repeats: Annotated[list[Positive], Field(min_length=1)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]

    @field_validator("backbones", "protocols", "repeats")
    @classmethod
    def no_value_twice(cls, values):
        if len(set(values)) != len(values):
            raise ValueError("each value may be listed once")
        return values


class Sample(Section):
    """Drawn smears with the structure of the real data: photographs, and augmented copies of each."""

    photographs: Annotated[int, Field(ge=4)] = 30  # per class, in TRAIN and TEST together
    copies: Positive = 8  # augmented images made of one photograph
    width: Annotated[int, Field(ge=16, le=2048)] = 160
    height: Annotated[int, Field(ge=16, le=2048)] = 120
    magnification: Annotated[float, Field(ge=0.5, le=2)] = 1.0  # 1: cells as large in the picture as in the real data
    seed: Seed = 1


class Dataset(Section):
    """Where the images come from."""

    source: Literal["sample", "archive", "folder", "kaggle"]
    path: str | None = None  # archive: the zip; folder: the folder
    handle: Annotated[str, Field(pattern=r"^\w[\w-]*/\w[\w-]*$")] | None = None  # kaggle: owner/name
    version: Positive | Literal["latest"] | None = None  # kaggle; what "latest" was is recorded in data/raw/source.json
    include: list[str] = []  # patterns of paths inside the source, `*` also crosses folders; empty: all
    exclude: list[str] = []
    sample: Sample = Sample()

    @model_validator(mode="after")
    def source_has_what_it_needs(self):
        needs = {"archive": ["path"], "folder": ["path"], "kaggle": ["handle", "version"]}.get(self.source, [])
        for key in needs:
            if getattr(self, key) is None:
                raise ValueError(f"source '{self.source}' needs '{key}'")
        return self


class Images(Section):
    """Every image is decoded once to a square of `size` x `size` pixels, RGB."""

    size: Annotated[int, Field(ge=32, le=1024)]


class Validation(Section):
    """Severity of each rule, and the bounds it judges by."""

    unreadable: Severity = "error"
    mode: Severity = "error"
    size: Severity = "error"  # images of another size than most have
    duplicate_across: Severity = "error"  # the same bytes in two splits or two classes
    duplicate_within: Severity = "warning"
    near_duplicate_across: Severity = "warning"
    small_class: Severity = "error"
    imbalance: Severity = "warning"
    allowed_modes: Annotated[list[Literal["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]], Field(min_length=1)] = [
        "RGB"
    ]
    smallest_class: Annotated[int, Field(ge=5)] = 10  # images per class in a split
    largest_imbalance: Annotated[float, Field(gt=1)] = 3.0  # largest class / smallest class
    near_duplicate_bits: Annotated[int, Field(ge=0, le=12)] = 10  # of the perceptual hash's 256 that may differ


class Split(Section):
    """The published protocol's fractions of TRAIN and TEST together; held-out cuts validation off TRAIN in the same ratio."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.64
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.16
    test: Annotated[float, Field(gt=0, lt=1)] = 0.20
    seed: Seed = 1

    @model_validator(mode="after")
    def fractions_sum_to_one(self):
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {total:.0%}; it must be 100%")
        return self


class Pretrain(Section):
    """Pre-training on freshly drawn cells, where ImageNet's weights are out of reach."""

    images: Positive = 4000
    magnification: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    epochs: Positive = 1
    batch_size: Positive = 32
    learning_rate: Rate = 1e-3
    seed: Seed = 1001


class Backbone(Section):
    """Initial weights of every backbone of the study."""

    weights: Literal["imagenet", "pretrain", "random"]
    file: str | None = None  # imagenet: a local weights file in place of the download
    seed: Seed = 1
    pretrain: Pretrain = Pretrain()


class Training(Section):
    """How each experiment is fine-tuned; all layers are trained, with Adam."""

    epochs: Positive
    batch_size: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    learning_rate_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0  # multiplies every experiment's rate
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Seed = 1


class Profile(Section):
    """profiles/NAME.yaml: how the study is run."""

    dataset: Dataset
    images: Images
    validation: Validation
    split: Split
    backbone: Backbone
    training: Training


class Study(Section):
    """Everything that was configured: `params` says what is run, `profile` how."""

    params: Params
    profile: Profile


def load(root="."):
    """Read and check params.yaml and the profile it names, below the folder `root`.

    Raises:
        StudyError: a file is missing or does not parse, a key is unknown, a value is of the wrong type or impossible.
    """
    root = Path(root)
    params = read_section(root / "params.yaml", Params)
    path = root / "profiles" / f"{params.profile}.yaml"
    if not path.exists():
        shipped = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise StudyError(f"params.yaml: profile: there is no {path.relative_to(root)}; there is: {shipped}")
    return Study(params=params, profile=read_section(path, Profile))


def read_section(path, model):
    """Parse the YAML file `path` and check it against `model`, a Section class."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path.name} is missing: run from the repository's top folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError(f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [describe(problem, model) for problem in error.errors()]
        raise StudyError(f"{path.name}: " + f"\n       {path.name}: ".join(lines)) from None


def describe(problem, model):
    """One line for one problem that pydantic found: the key, what is wrong, what is allowed."""
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("constrained-", "function-")))
    if problem["type"] == "extra_forbidden":
        section = model
        for part in problem["loc"][:-1]:
            annotation = section.model_fields[part].annotation if part in getattr(section, "model_fields", {}) else Experiment
            section = annotation if hasattr(annotation, "model_fields") else Experiment
        return f"{key}: unknown key; allowed here: {', '.join(section.model_fields)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict) else f" (given: {problem['input']!r})"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


@entry_point
def main():
    load()


if __name__ == "__main__":
    sys.exit(main())
