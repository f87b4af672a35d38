"""The wording of numbers and tables: the report, the model card and the terminal say them in the
same way.
"""

import html
import re

from hemotune.markup import escaped


def duration(seconds):
    """Return seconds as h:mm:ss.ffffff, e.g. 1:00:08.099976."""
    minutes, micro = divmod(round(seconds * 1_000_000), 60_000_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{micro // 1_000_000:02}.{micro % 1_000_000:06}"


def seconds_of(text):
    """Return the seconds that `h:mm:ss.ffffff` stands for."""
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def milliseconds(seconds):
    """Return whole milliseconds, cut off and not rounded: the published table does so
    (1:00:08.099976 is 3608099).
    """
    return round(seconds * 1_000_000) // 1000


def rate(value):
    """Return a learning rate as the study writes it: 1e-5, 3e-4, 0.01."""
    if value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(share):
    return f"{100 * share:.2f}%"


def points(difference):
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def listed(words):
    """Join words for a sentence: `a`, `a and b`, `a, b and c`."""
    words = [str(word) for word in words]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def names_of(rows: list[dict]) -> str:
    """Return the names of rows that tie, or how many they are."""
    names = [escaped(row["experiment"]) for row in rows]
    return listed(names) if len(names) <= 3 else f"{len(names)} rows tie"


def origin(photograph: str | None) -> str:
    """Return what an image was made of, in words; groups that the stage group found bear no
    photograph's name.
    """
    if photograph is None:
        return "photograph unknown"
    if found := re.fullmatch(r"(group|single)-0*(\d+)", photograph):
        return f"group {found[2]} of like images" if found[1] == "group" else "like no other image"
    return f"photograph {photograph}"


def counted(number, thing):
    """Return e.g. `1 repeat`, `2 repeats`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def between(interval):
    """Return an accuracy with its interval, e.g. `94.79% [92.10, 97.05]`; what
    hemotune/evaluation/statistics.py returns, shares.
    """
    if interval["low"] is None:
        return percent(interval["value"])
    return (
        f"{percent(interval['value'])} [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"
    )


def points_between(change):
    """Return a difference of accuracies in percentage points with its interval, e.g. `+0.24 [-0.31,
    +0.80]`.
    """
    if change["low"] is None:
        return points(change["value"])
    return f"{points(change['value'])} [{points(change['low'])}, {points(change['high'])}]"


def bullets(sentences):
    return "\n".join(f"- {sentence}" for sentence in sentences)


def bold(text):
    return f"**{escaped(text)}**" if str(text) else ""


def image(alt, path):
    return f"![{escaped(alt)}]({path})"


def plain(text: str) -> str:
    """Return Markdown as a terminal shows it: names as they are, nothing bold."""
    return html.unescape(text.replace("**", ""))


def cell(value):
    """Text that cannot break out of its table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(head, rows, left=1):
    """Return a Markdown table; the first `left` columns are aligned to the left, the others
    centred. An empty row separates groups.
    """
    lines = [head, [":--" if column < left else ":-:" for column in range(len(head))]]
    lines += [row or [""] * len(head) for row in rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def plain_table(head, rows):
    """Return the same table in columns for a terminal, without marks."""
    lines = [[plain(str(value)) for value in row or [""] * len(head)] for row in [head, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
