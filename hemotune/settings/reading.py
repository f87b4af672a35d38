"""Read params.yaml (what is run) and the profile that it names (how), key by key, checked against
declared types.

A stage reads the keys that it needs and no others; dvc.yaml names the same keys as its parameters.
Both files are read with ruamel.yaml in YAML 1.2, as DVC reads them; in YAML 1.1 `1e-5` is a string.
"""

from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hemotune.errors import StudyError

# Every number has two bounds, beyond which no machine has the memory or the time: a slip is refused
# by name.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=8192)]
# Names become parts of stage names, file names and command lines.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
ProfileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


# What a schema is, and a value that has it, is known to the caller alone: it may be any type that
# pydantic knows, not only a class.
Schema = Any
Value = Any
Problem = Any  # ErrorDetails of pydantic_core, which is no dependency of ours


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read_params(key: str, schema: Schema, root: str | Path = ".") -> Value:
    """Return the value of `key` in params.yaml, see `read`."""
    return read(Path(root) / "params.yaml", key, schema)


def read_profile(key: str, schema: Schema, root: str | Path = ".") -> Value:
    """Return the value of `key` in the profile that params.yaml names, see `read`."""
    name = read_params("profile", ProfileName, root)
    path = Path(root) / "profiles" / f"{name}.yaml"
    if not path.exists():
        shipped = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise StudyError(
            f"params.yaml: profile: there is no profiles/{name}.yaml; there is: {shipped}"
        )
    return read(path, key, schema)


def read(path: Path, key: str, schema: Schema) -> Value:
    """Return the value of `key` in the YAML file `path` as the type `schema`, a Section class or
    another type.

    Args:
        key: such as `training` or `experiments.mn_resultset1`; empty for the whole file.

    Raises:
        StudyError: the file is missing or does not parse, the key is missing, a key below it is
            unknown, or a value is of the wrong type or impossible.
    """
    values, above = parse(path), []
    for part in key.split(".") if key else []:
        above.append(part)
        if not isinstance(values, dict) or part not in values:
            whole = ".".join(above)
            fix = default_of(schema, key) if whole == key else ""
            raise StudyError(f"{path.name}: {whole}: missing{fix}")
        values = values[part]
    try:
        return TypeAdapter(schema).validate_python(values, strict=True)
    except ValidationError as error:
        lines = [describe(problem, schema, above) for problem in error.errors()]
        raise StudyError(f"{path.name}: " + f"\n       {path.name}: ".join(lines)) from None


def parse(path: Path) -> Value:
    """Return what the YAML file `path` holds.

    Raises:
        StudyError: it is missing or does not parse.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path.name} is missing: run from the repository's top folder") from None
    # ValueError: not UTF-8, or a number or a date that Python cannot hold.
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError(
            f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from None


def describe(problem: Problem, schema: Schema, above: list[str]) -> str:
    """Return one line for one problem that pydantic found: the key, what is wrong, what is allowed.

    Args:
        above: the parts of the key of the value that was checked.
    """
    # Where one of several types is allowed, pydantic names the type as a part of the place.
    parts = map(str, problem["loc"])
    key = ".".join([*above, *(p for p in parts if not p.startswith(("constrained-", "literal[")))])
    if problem["type"] == "extra_forbidden":
        return (
            f"{key}: unknown key; allowed here:"
            f" {', '.join(section_at(schema, problem['loc'][:-1]).model_fields)}"
        )
    if problem["type"] == "missing":
        return f"{key}: missing{default_of(section_at(schema, problem['loc']), key)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict) else f" (given: {problem['input']!r})"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


def default_of(schema: Schema, key: str) -> str:
    """Return what to write for a missing key, a clause; empty where there is no default."""
    fields = getattr(schema, "model_fields", None)
    if fields is None or any(field.is_required() for field in fields.values()):
        return ""
    return f"; add `{key.split('.')[-1]}: {{}}`, which takes the defaults"


def section_at(schema: Schema, location: tuple[int | str, ...]) -> Schema:
    """Return the Section class, or another type, at `location` below `schema`: through fields of
    sections, items of lists and values of dictionaries.
    """
    for part in location:
        fields = getattr(schema, "model_fields", None)
        schema = fields[part].annotation if fields else get_args(schema)[-1]
        if NoneType in get_args(schema):  # a section that may be missing
            schema = get_args(schema)[0]
    return schema
