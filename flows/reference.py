"""Write docs/reference.md from the code: the settings from their schema, the stages from dvc.yaml.

python -m flows.reference
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.dag import Meta
from hemotune.settings.experiment import Experiment
from hemotune.settings.params import Params
from hemotune.settings.profile import Profile
from hemotune.settings.reading import parse

Part = dict[str, Any]  # of a JSON schema or of dvc.yaml; Any: whatever is there

REFERENCE = Path("docs/reference.md")
HEAD = """\
# Reference

Generated from the code by `make reference` (`python -m flows.reference`); a test compares them.
An empty default means: not set.
"""
SETTINGS = """
Every key that is not here is refused, and so is a value of another type. `hemotune run` checks both
files before anything runs.
"""
STAGES = """
From `dvc.yaml`. A stage runs again if its settings, its code or a file that it reads has changed.
"""
BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
}


def comments(schema: type) -> dict[str, str]:
    """Return the comment above or behind each field in the source of a class and its bases."""
    found: dict[str, str] = {}
    for one in reversed(schema.__mro__[:-1]):
        if one.__module__.startswith(("pydantic", "typing")):
            continue
        above: list[str] = []
        for line in inspect.getsource(one).splitlines():
            if match := re.match(r" {4}# ?(.*)", line):
                above.append(match[1])
                continue
            if match := re.match(r" {4}(\w+): [^#]*(?:# ?(.*))?", line):
                found[match[1]] = " ".join([*above, match[2] or ""]).strip()
            above = []
    return found


def describe(part: Part, definitions: Part) -> str:
    """Return in words what a part of a JSON schema allows."""
    if "$ref" in part:
        return describe(definitions[part["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in part:
        kinds = [describe(kind, definitions) for kind in part["anyOf"]]
        return " or ".join(kind for kind in kinds if kind != "null")
    if "const" in part or "enum" in part:
        return ", ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
    if part.get("type") == "array":
        items = part.get("items") or part.get("prefixItems", [{}])[0]
        return f"list of: {describe(items, definitions)}"
    if part.get("type") == "object" and isinstance(
        values := part.get("additionalProperties"), dict
    ):
        return f"by name: {describe(values, definitions)}"
    kind = {"object": "section, see below", "string": "text"}.get(part["type"], str(part["type"]))
    bounds = [text.format(f"{part[key]:,}") for key, text in BOUNDS.items() if key in part]
    if "pattern" in part:
        bounds.append(f"matching `{part['pattern']}`".replace("|", "\\|"))
    return " ".join([kind, *bounds])


def default_of(part: Part, required: bool) -> str:
    if required:
        return "required"
    value = part.get("default")
    if value is None:
        return ""
    return "see below" if isinstance(value, dict) and value else f"`{value}`"


def sections(name: str, schema: type[BaseModel], level: int = 3) -> Iterator[str]:
    """Return the heading and the table of a section, and of those within it."""
    json, notes = schema.model_json_schema(), comments(schema)
    required, definitions = json.get("required", []), json.get("$defs", {})
    yield f"\n{'#' * level} {name}\n"
    yield f"{' '.join((inspect.getdoc(schema) or '').split())}\n"
    yield "| key | value | default | |\n|---|---|---|---|"
    for key, part in json["properties"].items():
        note = notes.get(key, "").replace("|", "\\|")
        default = default_of(part, key in required)
        yield f"| {key} | {describe(part, definitions)} | {default} | {note} |"
    for key, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from sections(f"{name}.{key}" if level > 3 else key, inner, level + 1)


def stage_lines(name: str, stage: Part) -> Iterator[str]:
    """Return what dvc.yaml says of a stage, as lines of a list."""
    code = ("tasks/", "hemotune/", "flows/")
    yield f"\n### {name}\n\n    {stage['cmd']}\n"
    if matrix := stage.get("matrix"):
        yield f"- once for each: {', '.join(matrix)}"
    settings: list[str] = []
    for entry in stage.get("params", []):
        files = entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]
        settings += [
            f"`{key or 'all'}` of `{file}`" for file, keys in files for key in keys or [""]
        ]
    reads = [f"`{path}`" for path in stage.get("deps", []) if not path.startswith(code)]
    made = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    writes = [f"`{next(iter(path)) if isinstance(path, dict) else path}`" for path in made]
    lists = {"settings": settings, "reads": reads, "writes": writes}
    yield from (f"- {what}: {', '.join(names)}" for what, names in lists.items() if names)
    if meta := stage.get("meta"):
        yield f"- meta: {', '.join(f'`{key}: {value}`' for key, value in meta.items())}"


def write(root: Path = Path(".")) -> str:
    """Return the text of docs/reference.md for the checkout `root`."""
    lines = [HEAD, "## params.yaml", SETTINGS, *list(sections("params.yaml", Params))[2:]]
    lines += sections("experiments.NAME", Experiment)
    lines += ["\n## profiles/NAME.yaml", "", *list(sections("profile", Profile))[1:]]
    lines += ["\n## Stages", STAGES]
    lines += ["| in `meta` | default | |\n|---|---|---|"]
    notes = comments(Meta)
    for key in dataclasses.fields(Meta):
        lines.append(f"| {key.name} | {key.default or ''} | {notes[key.name]} |")
    for name, stage in parse(root / "dvc.yaml")["stages"].items():
        lines += stage_lines(name, stage)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(write(), encoding="utf-8")
