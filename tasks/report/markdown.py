"""The format of numbers, tables and templates: the same in the report, the model card and the
terminal.
"""

import functools
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2

from hemotune.evaluation.statistics import Estimate
from hemotune.markup import code, escaped
from hemotune.settings.study import Words

Row = Sequence[object]  # the cells of a table row; an empty row separates groups


@functools.cache
def templates() -> jinja2.Environment:
    """Return the templates beside this file; their filters are functions of this module.

    Templates escape with the filters `escaped` and `code`: jinja2's own escaping is for HTML and
    leaves Markdown's marks.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    filters = (
        *(bold, bullets, code, duration, escaped, format_interval, listed, percent, rate),
        *(sentence, thousands),
    )
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals.update(counted=counted, image=image)
    return environment


def render(template: str, **values: object) -> str:
    """Return the Markdown of a template, with one empty line between blocks."""
    text = templates().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss.ffffff, e.g. 1:00:08.099976."""
    minutes, micro = divmod(round(seconds * 1_000_000), 60_000_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{micro // 1_000_000:02}.{micro % 1_000_000:06}"


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, truncated and not rounded, as in the original's table
    (1:00:08.099976 is 3608099).
    """
    return round(seconds * 1_000_000) // 1000


def rate(value: float) -> str:
    """Return a learning rate as the study writes it: 1e-5, 3e-4, 0.01."""
    if value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def listed(words: Iterable[object]) -> str:
    """Join words for a sentence: `a`, `a and b`, `a, b and c`."""
    texts = [str(word) for word in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def names_of(tied: Sequence[str]) -> str:
    """Return the names of tied experiments, or their number if there are more than three."""
    return listed(map(escaped, tied)) if len(tied) <= 3 else f"{len(tied)} rows tie"


def origin(photograph: str | None, words: Words) -> str:
    """Return the photograph of an image as text, also if the stage `group` found it and it has no
    name.
    """
    if photograph is None:
        return f"{words.unit} unknown"
    if found := re.fullmatch(r"(group|single)-(\d{5,})", photograph):
        return (
            f"group {int(found[2])} of similar images"
            if found[1] == "group"
            else "similar to no other image"
        )
    return f"{words.unit} {photograph}"


def counted(number: int, thing: str) -> str:
    """Return e.g. `1 repeat`, `2 repeats`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def thousands(number: int) -> str:
    """Return e.g. `12,500`."""
    return f"{number:,}"


def sentence(text: str) -> str:
    """Return `text` with a capital first letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def format_interval(estimate: Estimate) -> str:
    """Return an accuracy with its interval, e.g. `94.79% [92.10, 97.05]`."""
    return " ".join(filter(None, (percent(estimate.value), format_bounds(estimate))))


def format_bounds(estimate: Estimate) -> str:
    """Return the interval alone, e.g. `[92.10, 97.05]`; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"


def format_difference(change: Estimate) -> str:
    """Return a difference of accuracies in percentage points with its interval, e.g. `+0.24 [-0.31,
    +0.80]`.
    """
    if change.low is None or change.high is None:
        return points(change.value)
    return f"{points(change.value)} [{points(change.low)}, {points(change.high)}]"


def bullets(sentences: Iterable[object]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def bold(text: object) -> str:
    return f"**{escaped(text)}**" if str(text) else ""


def image(alt: object, path: str) -> str:
    return f"![{escaped(alt)}]({path})"


def plain(text: str) -> str:
    """Return Markdown as plain text for a terminal, without escapes and bold marks."""
    return html.unescape(text.replace("**", ""))


def cell(value: object) -> str:
    """Return text that cannot break out of its table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(head: Row, rows: Iterable[Row], left: int = 1) -> str:
    """Return a Markdown table; the first `left` columns are aligned to the left, the others
    centred. An empty row separates groups.
    """
    blank = [""] * len(head)
    lines = [head, [":--" if column < left else ":-:" for column in range(len(head))]]
    lines += [row or blank for row in rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def plain_table(head: Row, rows: Iterable[Row]) -> str:
    """Return the same table in columns for a terminal, without marks."""
    blank = [""] * len(head)
    lines = [[plain(str(value)) for value in row or blank] for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
