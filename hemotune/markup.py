"""Names from data and settings, escaped for Markdown and HTML: the report and the model card."""

import re
from html import escape

# What Markdown reads as a mark anywhere in a line. An underscore within a word is none.
MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: object) -> str:
    """Return `text` as one line that Markdown and HTML show unchanged, whatever it holds.

    Marks become HTML entities, which both understand, in a table's cell too.
    """
    line = escape(" ".join(str(text).split()), quote=False)  # text, never an attribute
    return MARKS.sub(lambda mark: f"&#{ord(mark[0])};", line)


def code(text: object) -> str:
    """Return `text` in a code span of Markdown, on one line, or as HTML where a span cannot hold
    it.
    """
    line = " ".join(str(text).split())
    if not re.search(r"[`|\[]", line):  # [: flows/artifacts.py looks for images in spans too
        return f"`{line}`"
    return f"<code>{escaped(line)}</code>"
