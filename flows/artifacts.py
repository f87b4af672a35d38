"""What a run shows on its page: files that a stage made, Markdown with its figures embedded and CSV
as tables.
"""

import base64
import csv
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from hemotune.markup import escaped

LARGEST = 4_000_000  # characters of one artifact: the page of a run must still open
ROWS = 500
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def publish(title: str, path: Path) -> None:
    """Publish a file, .md or .csv, under a title; log a warning if it cannot be shown."""
    publishers = {".md": publish_markdown, ".csv": publish_csv}
    try:
        publishers[path.suffix](path, key(title), f"{title}: {path}")
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
        publish_table(list(csv.DictReader(file))[:ROWS], name, description)


def publish_table(rows: Sequence[Mapping[str, str]], name: str, description: str) -> None:
    """Publish rows, which have the same columns, as a table of Markdown: its cells wrap, while
    Prefect's own tables are cut off at the page's edge.
    """
    columns = list(rows[0]) if rows else []
    lines = [columns, ["---"] * len(columns)]
    lines += [[escaped(row[column]) for column in columns] for row in rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else "none"
    create_markdown_artifact(text, key=name, description=description)
