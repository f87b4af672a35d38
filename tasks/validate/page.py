"""The validation as one HTML file: no script, nothing fetched, light or dark as the reader's system
is.
"""

import base64
import io
import platform
from importlib.metadata import version
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image

from hemotune.markup import escaped

IMAGES = "../../data/raw/images/"  # as seen from reports/validation/
THUMBNAILS = 12  # of a class, fewer where there are many classes
PAIRS = 8  # shown of each kind of duplicates
THUMBNAIL_SIDE = 96  # pixels
TOOLS = ("great_expectations", "pillow", "numpy", "scipy", "pandas", "pyarrow")

VERDICTS = {
    "passed": ("✓", "Passed", "Every rule holds."),
    "warnings": (
        "!",
        "Passed with warnings",
        "Nothing stops the study; read what is marked before you trust its figures.",
    ),
    "failed": (
        "✕",
        "Failed",
        "The study stops here. Mend what is marked as an error, then run it again.",
    ),
}
DUPLICATES = {
    "same_bytes_across": "The same bytes in two splits or classes",
    "same_bytes_within": "The same bytes within a split and class",
    "near_duplicate_across": "Nearly the same picture in two splits",
    "near_duplicate_within": "Nearly the same picture within a split",
}

# Blue, orange and vermilion of Okabe and Ito, told apart by colour-blind readers; each state has a
# sign and a word as well.
STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --soft: #5c6670; --line: #d9dee3; --ground: #ffffff; --panel: #f6f8f9;
  --passed: #0072b2; --warnings: #b26a00; --failed: #c24a00; --bar: #4c8fbd; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8eb; --soft: #9ba6b0; --line: #363e46; --ground: #14181c; --panel: #1c2228;
  --passed: #56b4e9; --warnings: #e69f00; --failed: #ff8c55; --bar: #4b8ab5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem; font: 16px/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--ground); }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { margin: .25rem 0; } a { color: inherit; text-decoration-color: var(--soft); overflow-wrap: anywhere; }
.soft { color: var(--soft); font-weight: 400; }
.verdict { display: flex; gap: 1rem; align-items: center; padding: 1rem 1.25rem; border-left: .4rem solid; background: var(--panel); }
.verdict b { font-size: 1.35rem; line-height: 1.2; } .sign { font-weight: 700; font-size: 1.6rem; }
.verdict.passed { border-color: var(--passed); } .verdict.warnings { border-color: var(--warnings); }
.verdict.failed { border-color: var(--failed); }
.passed .sign, .state.passed { color: var(--passed); } .warnings .sign, .state.warnings { color: var(--warnings); }
.failed .sign, .state.failed { color: var(--failed); } .state { font-weight: 600; white-space: nowrap; } .state.off { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .875rem; }
th, td { padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td p:first-child { margin-top: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .875em; }
ul { margin: .25rem 0; padding-left: 1.1rem; font-size: .875rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem 3rem; }
svg { width: 100%; height: auto; display: block; overflow: visible; } svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .axis { fill: var(--soft); } svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
.sheet, .pairs { display: flex; flex-wrap: wrap; gap: .375rem; }
.sheet img, .pair img { width: 72px; height: 72px; display: block; }
.pairs { gap: 1rem 1.5rem; } .pair { font-size: .8125rem; max-width: 20rem; }
.pair div { display: flex; gap: .25rem; margin-bottom: .25rem; }
"""


def write_page(path, result, tables, pixels):
    """Write the page.

    Args:
        result: as expectations.judge returns.
        tables: as expectations.tables_of returns.
        pixels: uint8 (N, size, size, 3), row i for row i of tables['images'].
    """
    images, decoded, folders = tables["images"], tables["decoded"], tables["folders"]
    sign, title, meaning = VERDICTS[result["verdict"]]
    broken = [rule["rule"] for rule in result["rules"] if not rule["passed"]]
    off = [rule["rule"] for rule in result["rules"] if rule["severity"] == "off"]
    unreadable = len(images) - len(decoded)
    facts = f"{len(images):,} images, {images['class'].nunique()} classes, splits {', '.join(sorted(images['split'].unique()))}"
    parts = [
        "<h1>Validation of the images</h1>",
        f'<div class="verdict {result["verdict"]}"><span class="sign">{sign}</span><div><b>{title}</b><p>{meaning}</p>',
        f'<p class="soft">{escaped(facts)}{f", {unreadable:,} unreadable" if unreadable else ""}. ',
        f"{len(broken)} of {len(result['rules'])} rules broken{': ' + ', '.join(broken) if broken else ''}.",
        f" Turned off in the profile: {', '.join(off)}." if off else "",
        "</p></div></div>",
        "<h2>Rules</h2>",
        rules_table(result["rules"]),
        "<h2>What is in it</h2>",
        '<div class="plots">',
        figure("Readable images of each class", bars(class_counts(folders, decoded))),
        figure("Image sizes, pixels", bars(size_counts(decoded))),
        figure(
            "Brightness, mean grey level of an image (0 black, 255 white)",
            histogram(decoded["brightness"], 0, 255),
        ),
        figure("File sizes, kB", histogram(images["bytes"].dropna() / 1000)),
        "</div>",
        "<h2>Some images of each class</h2>",
        *sheets(decoded, pixels),
        "<h2>Duplicates</h2>",
        *duplicates(decoded, pixels),
        "<h2>Made with</h2>",
        f"<p>Python {platform.python_version()}, "
        + ", ".join(f"{tool} {version(tool)}" for tool in TOOLS)
        + ".</p>",
        '<p class="soft">Great Expectations judged; its statistics and this table for machines: <a href="result.json">result.json</a>. '
        "Nearly the same: the perceptual hash (imagehash.phash, 256 bits) differs in few bits, as after re-encoding or scaling; "
        "turned or shifted copies are not found by it.</p>",
        '<p class="soft">All images become RGB: transparent pixels are white, of 16-bit levels the '
        "upper eight bits are kept.</p>",
    ]
    head = f"<title>Validation: {title}</title><style>{STYLE}</style>"
    meta = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    body = "\n".join(parts)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head>{meta}{head}</head>\n<body>\n{body}\n</body></html>\n',
        encoding="utf-8",
    )


def rules_table(rules):
    """Return the table of rules: broken errors first, then warnings, then what holds, then what is
    off.
    """
    order = ("failed", "warnings", "passed", "off")
    rows = [row for state in order for row in rules if state_of(row) == state]
    cells = "".join(rule_row(rule) for rule in rows)
    return (
        '<div class="scroll"><table><thead><tr><th>Result</th><th>Rule</th><th>Expected</th><th>Found</th>'
        f'<th class="number">Count</th></tr></thead><tbody>{cells}</tbody></table></div>'
    )


def state_of(rule):
    if rule["severity"] == "off":
        return "off"
    return (
        "passed" if rule["passed"] else {"error": "failed", "warning": "warnings"}[rule["severity"]]
    )


def rule_row(rule):
    state = state_of(rule)
    label = {"failed": "✕ error", "warnings": "! warning", "passed": "✓ holds", "off": "– off"}[
        state
    ]
    found = f"<p>{escaped(rule['found'])}</p>"
    if rule["offenders"]:
        pairs = zip(rule["offenders"], rule["details"], strict=True)
        items = "".join(
            f"<li>{link(path)}{f': {escaped(detail)}' if detail else ''}</li>"
            for path, detail in pairs
        )
        more = rule["count"] - len(rule["offenders"])
        found += f"<ul>{items}{f'<li>and {more:,} more</li>' if more else ''}</ul>"
    if not rule["passed"]:
        found += f"<p>Fix: {escaped(rule['fix'])}.</p>"
    broken = (
        f'<br><span class="soft">{rule["severity"]} if broken</span>' if state == "passed" else ""
    )
    return (
        f'<tr><td class="state {state}">{label}{broken}</td><td>{escaped(rule["description"])}<br><code>{rule["rule"]}</code></td>'
        f'<td>{escaped(rule["expected"])}</td><td>{found}</td><td class="number">{rule["count"]:,}</td></tr>'
    )


def link(path, text=None):
    """Return a link to an image or class folder of data/raw/images."""
    return f'<a href="{IMAGES}{quote(path)}">{text or escaped(path)}</a>'


def figure(title, drawing):
    return f"<div><h3>{escaped(title)}</h3>{drawing}</div>"


def class_counts(folders, decoded):
    """Return pairs of 'SPLIT CLASS' and the number of its readable images."""
    counts = decoded.groupby(["split", "class"]).size()
    return [
        (f"{row['split']} {row['class']}", int(counts.get((row["split"], row["class"]), 0)))
        for _, row in folders.iterrows()
    ]


def size_counts(decoded, most=8):
    """Return pairs of 'WIDTHxHEIGHT' and the number of images, the most frequent first; the rest in
    one.
    """
    counts = decoded.groupby("size").size().sort_values(ascending=False, kind="stable")
    rest = (
        [(f"{len(counts) - most} other sizes", int(counts[most:].sum()))]
        if len(counts) > most
        else []
    )
    return [(str(size), int(count)) for size, count in counts[:most].items()] + rest


def bars(pairs):
    """Draw labelled horizontal bars as SVG."""
    height, left, width = 22, 190, 460
    largest = max((value for _, value in pairs), default=0) or 1
    drawn = []
    for number, (label, value) in enumerate(pairs):
        y, length = number * height, (width - left - 60) * value / largest
        label = label if len(label) <= 28 else label[:27] + "…"
        drawn.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escaped(label)}</text>')
        drawn.append(f'<rect x="{left}" y="{y + 4}" width="{max(length, 1):.1f}" height="14"/>')
        drawn.append(
            f'<text class="axis" x="{left + length + 6:.1f}" y="{y + 15}">{value:,}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height * max(len(pairs), 1)}" role="img">{"".join(drawn)}</svg>'


def histogram(values, low=None, high=None, bins=32):
    """Draw the distribution of `values` as SVG; the median is named."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return '<p class="soft">no values</p>'
    low, high = (values.min() if low is None else low), (values.max() if high is None else high)
    high = high if high > low else low + 1
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    width, height = 460, 120
    step = width / bins
    tallest = counts.max() or 1
    drawn = [
        f'<rect x="{number * step + 1:.1f}" y="{height - height * count / tallest:.1f}" width="{step - 2:.1f}" '
        f'height="{height * count / tallest:.1f}"/>'
        for number, count in enumerate(counts)
        if count
    ]
    drawn.append(f'<line x1="0" x2="{width}" y1="{height}" y2="{height}"/>')
    for x, anchor, text in (
        (0, "start", low),
        (width / 2, "middle", (low + high) / 2),
        (width, "end", high),
    ):
        drawn.append(
            f'<text class="axis" x="{x}" y="{height + 18}" text-anchor="{anchor}">{text:.4g}</text>'
        )
    caption = f"Median {np.median(values):.4g}, from {values.min():.4g} to {values.max():.4g}; the tallest bar is {tallest:,} images."
    return f'<svg viewBox="0 0 {width} {height + 24}" role="img">{"".join(drawn)}</svg><p class="soft">{caption}</p>'


def sheets(decoded, pixels):
    """Yield a sheet of thumbnails for each class, spread over its images."""
    classes = decoded.groupby("class").indices
    each = max(4, min(THUMBNAILS, 240 // max(len(classes), 1)))
    for name in sorted(classes):
        rows = decoded.index[classes[name]]
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, each).astype(int))]
        shown = "".join(
            link(decoded.at[row, "path"], thumbnail(pixels[row], decoded.at[row, "path"]))
            for row in chosen
        )
        yield f'<h3>{escaped(name)} <span class="soft">{len(rows):,} readable</span></h3><div class="sheet">{shown}</div>'


def thumbnail(pixels, title):
    """Return uint8 (size, size, 3) as an <img> that holds its own JPEG."""
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    source = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{source}" title="{escaped(title)}" alt="{escaped(title)}">'


def duplicates(decoded, pixels):
    """Yield a paragraph and some pairs for each kind of duplicates."""
    row_of = pd.Series(decoded.index, index=decoded["path"])
    for column, title in DUPLICATES.items():
        found = decoded[decoded[column].notna()]
        pairs = sorted(
            {tuple(sorted(pair)) for pair in zip(found["path"], found[column], strict=True)}
        )
        count = f"{len(found):,} images" if len(found) else "none"
        yield f'<h3>{title}: <span class="soft">{count}</span></h3>'
        if pairs:
            shown = [
                pair_of(decoded, pixels, [row_of[path] for path in pair]) for pair in pairs[:PAIRS]
            ]
            yield f'<div class="pairs">{"".join(shown)}</div>'
            if len(pairs) > PAIRS:
                yield f'<p class="soft">and {len(pairs) - PAIRS:,} more pairs</p>'


def pair_of(decoded, pixels, rows):
    """Return two images side by side, their paths below."""
    paths = [decoded.at[row, "path"] for row in rows]
    pictures = [
        link(path, thumbnail(pixels[row], path)) for row, path in zip(rows, paths, strict=True)
    ]
    return f'<div class="pair"><div>{"".join(pictures)}</div>{"<br>".join(link(path) for path in paths)}</div>'
