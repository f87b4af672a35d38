"""The two files that `hemotune init` writes, with a comment at each value."""

import json
import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from hemotune.settings.dataset import Groups
from hemotune.starting.choices import BACKBONE, EXPERIMENTS, Choices
from hemotune.starting.survey import NameGroups, Survey

# What YAML takes for a string without quotes, in every version of it
PLAIN = re.compile(r"[A-Za-z_./~][A-Za-z0-9_./~-]*( [A-Za-z0-9_./~-]+)*")
WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".", ".nan", ".inf"}
COMMENTS_AT = 33  # the column where comments begin, where the value leaves room

RULES = [
    ("unreadable", "error", "a file that cannot be decoded"),
    ("mode", "error", "an image of another colour mode than those below"),
    ("size", "error", "an image of another size than most"),
    ("duplicate_across", "error", "the same bytes in two splits or two classes"),
    ("duplicate_within", "warning", "the same bytes twice in a class"),
    ("near_duplicate_across", "warning", "nearly the same image in two splits"),
    ("group_across", "error", "a group that is given, in two splits of the source"),
    ("small_class", "error", "a class with few images in a split"),
    ("imbalance", "warning", "a class that is much larger than another"),
]
FITS = {
    "squeeze": "the images are nearly squares; pad keeps proportions, crop cuts",
    "pad": "longer sides fit and the rest is white; squeeze changes proportions, crop cuts",
}
WEIGHTS = {
    "random": "nothing is downloaded; imagenet, or a .weights.h5 or .keras file, learns faster",
    "imagenet": "Keras downloads them once",
}


def profile_text(
    survey: Survey, choices: Choices, groups: Groups, suggested: NameGroups | None
) -> str:
    """Return the text of profiles/NAME.yaml.

    Args:
        groups: as the user gave them, or as the folders of the source give them.
    """
    modes = survey.modes()
    return rendered(
        "profile.yaml.j2",
        survey=survey,
        choices=choices,
        groups=groups,
        groups_comment=groups_comment(survey, suggested),
        sizes=sizes_text(survey),
        fits=FITS,
        rules=RULES,
        severities=choices.severities,
        modes=list(modes),
        modes_comment=", ".join(f"{mode}: {count:,} images" for mode, count in modes.items()),
        weights_comment=WEIGHTS.get(choices.weights, f"a file with weights of {BACKBONE}"),
    )


def params_text(choices: Choices) -> str:
    """Return the text of params.yaml."""
    return rendered("params.yaml.j2", choices=choices, backbone=BACKBONE, experiments=EXPERIMENTS)


def groups_comment(survey: Survey, suggested: NameGroups | None) -> str:
    if survey.groups:
        return f"{len(set(survey.groups.values())):,} groups: each is in one part of a split only"
    lines = ["No groups are given: copies of one picture are looked for and kept together."]
    if suggested:
        lines += [
            f"The file names have {suggested.groups:,} beginnings such as {suggested.example}. If"
            " each is a patient,",
            f"a slide or the like: groups: {{pattern: {in_yaml(suggested.pattern)}}}",
        ]
    else:
        lines.append("Where you know more: groups: {pattern: '{group}_*'} or {file: TABLE.csv}")
    return "\n".join(lines)


def sizes_text(survey: Survey) -> str:
    """Return e.g. `8 x 8`, or `3 sizes from 96 x 96 to 160 x 120`."""
    sizes = sorted(survey.sizes(), key=lambda size: (size[0] * size[1], size))
    first, last = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    return first if len(sizes) == 1 else f"{len(sizes):,} sizes from {first} to {last}"


def rendered(template: str, **values: object) -> str:
    """Return a template's text, with comments in one column."""
    environment = Environment(
        loader=PackageLoader("hemotune.starting", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": in_yaml, "thousands": "{:,}".format}
    lines = environment.get_template(template).render(**values).splitlines()
    return "".join(f"{aligned(line)}\n" for line in lines)


def aligned(line: str) -> str:
    """Return a line whose comment begins in the common column."""
    value, mark, comment = line.rpartition("  # ")
    if not mark or not value.strip():
        return line.rstrip()
    return f"{value.rstrip().ljust(COMMENTS_AT - 2)}  # {comment}"


def in_yaml(value: object) -> str:
    """Return a string or a list of strings as YAML, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(in_yaml, value))}]"
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
