"""Files that a stage made, shown on the page of its task: Markdown with its figures inside, tables
of CSV and JSON files.
"""

import base64
import csv
import json
import mimetypes
import re

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

LARGEST = 4_000_000  # characters of one artifact: the page of a run must still open
ROWS = 500
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def publish(path, stage):
    """Publish the file `path`; the kind follows from its suffix: .md, .csv or .json. What cannot be
    shown is said in the log.
    """
    publishers = {".md": publish_markdown, ".csv": publish_csv, ".json": publish_json}
    try:
        publishers[path.suffix](path, key(path.stem, path.suffix[1:]), f"{path} of {stage}")
    except Exception as error:  # noqa: BLE001 - a page that lacks a table is no reason to fail a study
        get_run_logger().warning("%s could not be shown: %s: %s", path, type(error).__name__, error)


def key(*parts):
    """An artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def publish_markdown(path, name, description):
    create_markdown_artifact(
        embed_images(path.read_text(encoding="utf-8"), path.parent),
        key=name,
        description=description,
    )


def embed_images(text, folder, largest=LARGEST):
    """Put the images that Markdown `text` names, below `folder`, into it as data URIs, for the page
    cannot reach files.

    An image that is missing or that would make the text longer than `largest` characters is
    replaced by its name.
    """
    room = largest - len(text)

    def embed(found):
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


def publish_csv(path, name, description):
    with open(path, encoding="utf-8", newline="") as file:
        create_table_artifact(list(csv.DictReader(file))[:ROWS], key=name, description=description)


def publish_json(path, name, description):
    """A JSON object: its first list of objects becomes the table, its plain values the
    description.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    plain = ", ".join(
        f"{name}: {item}" for name, item in value.items() if isinstance(item, str | int | float)
    )
    rows = next(
        (
            item
            for item in value.values()
            if isinstance(item, list) and item and isinstance(item[0], dict)
        ),
        [],
    )
    table = [{column: cell(item) for column, item in row.items()} for row in rows[:ROWS]]
    create_table_artifact(
        table, key=name, description=f"{description}: {plain}" if plain else description
    )


def cell(value):
    return (
        value
        if isinstance(value, str | int | float | None)
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else json.dumps(value)
    )
