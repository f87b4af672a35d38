"""Files that a stage made, shown on the page of its task: Markdown with its figures embedded, CSV
and JSON files as tables.
"""

import base64
import csv
import json
import mimetypes
import re
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

LARGEST = 4_000_000  # characters of one artifact: the page of a run must still open
ROWS = 500
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def publish(path: Path, stage: str) -> None:
    """Publish a file, .md, .csv or .json; log a warning if it cannot be shown."""
    publishers = {".md": publish_markdown, ".csv": publish_csv, ".json": publish_json}
    try:
        publishers[path.suffix](path, key(path.stem, path.suffix[1:]), f"{path} of {stage}")
    except Exception as error:  # noqa: BLE001 - a missing table is no reason to fail a study
        get_run_logger().warning("%s could not be shown: %s: %s", path, type(error).__name__, error)


def key(*parts: str) -> str:
    """Return an artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def publish_markdown(path: Path, name: str, description: str) -> None:
    text = embed_images(path.read_text(encoding="utf-8"), path.parent)
    create_markdown_artifact(text, key=name, description=description)


def embed_images(text: str, folder: Path, largest: int = LARGEST) -> str:
    """Replace the images below `folder` that Markdown names with data URIs: the page cannot read
    files.

    An image that is missing, or that would make the text longer than `largest` characters, is
    replaced by its name.
    """
    room = largest - len(text)

    def embed(found: re.Match[str]) -> str:
        nonlocal room
        title, source = found.groups()
        if source.startswith(("http:", "https:", "data:")):
            return found[0]
        image = folder / source
        kind = mimetypes.guess_type(image.name)[0]
        if not image.is_file() or not kind or image.stat().st_size * 4 // 3 > room:
            return f"*{title or 'figure'}: see {source}*"
        data = base64.b64encode(image.read_bytes()).decode()
        room -= len(data)
        return f"![{title}](data:{kind};base64,{data})"

    return IMAGE.sub(embed, text)


def publish_csv(path: Path, name: str, description: str) -> None:
    with open(path, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))[:ROWS]  # Any: Prefect's signature
    create_table_artifact(rows, key=name, description=description)


def publish_json(path: Path, name: str, description: str) -> None:
    """Publish a JSON object: its first list of objects as the table, its plain values as the
    description.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    plain = ", ".join(
        f"{name}: {item}" for name, item in value.items() if isinstance(item, str | int | float)
    )
    tables = (
        item
        for item in value.values()
        if isinstance(item, list) and item and isinstance(item[0], dict)
    )
    rows = [{column: cell(item) for column, item in row.items()} for row in next(tables, [])[:ROWS]]
    create_table_artifact(
        rows, key=name, description=f"{description}: {plain}" if plain else description
    )


def cell(value: Any) -> str | int | float | None:  # Any: whatever JSON holds
    if isinstance(value, str | int | float | None):
        return value
    return ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
