"""What the images must be: the rules, as a Great Expectations suite, and the judging.

Great Expectations takes ten seconds to import, so that is done inside the functions.
"""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.validate.duplicates import nearly_same, same_bytes

OFFENDERS = 20  # kept of each rule
# Unaugmented copies of TEST: no protocol trains or tests on them, so their classes may be small.
UNUSED_SPLITS = {"TEST_SIMPLE"}
UNJUDGED = "this is an error in tasks/validate/expectations.py or in Great Expectations: report it"
# Columns of the inventory that have a value for every image, and for every readable one.
OF_ALL = ["path", "split", "class", "readable"]
OF_READABLE = ["width", "height", "format", "mode", "bytes", "sha256", "brightness", "phash"]


@dataclass(frozen=True)
class Rule:
    """One rule: every row of `table` must meet it in `column`.

    `expectation` is a class of great_expectations.expectations and `arguments` its own. What is
    wrong with an offender is said by the column `detail`, in the words of `says`.
    """

    name: str
    severity: str  # error, warning, off
    description: str
    expected: str
    fix: str
    # Images: every file; decoded: the readable ones; folders: a row for each class of each split
    table: str
    column: str
    expectation: str
    arguments: dict
    detail: str | None = None
    says: str = "{}"


def rules_for(settings, common_size):
    """Return the rules, with severities and bounds from `settings`, a
    settings.validation.Validation.

    Args:
        common_size: 'WIDTHxHEIGHT' of most images.
    """
    leave_out = "or leave them out with dataset.exclude in the profile"
    null, between, one_of = (
        "ExpectColumnValuesToBeNull",
        "ExpectColumnValuesToBeBetween",
        "ExpectColumnValuesToBeInSet",
    )
    modes = list(settings.allowed_modes)
    return [
        Rule(
            "unreadable",
            settings.unreadable,
            "Every file is an image that decodes to its last pixel.",
            "JPEG, PNG, WebP, TIFF or BMP, one still image a file",
            f"fetch these files again, {leave_out}",
            *("images", "readable", one_of, {"value_set": [True]}, "error"),
        ),
        Rule(
            "mode",
            settings.mode,
            "Every image has an allowed colour mode.",
            ", ".join(modes),
            "convert them, or add the mode to validation.allowed_modes in the profile: they are"
            " then converted to RGB, transparent pixels to white, 16-bit levels to their upper"
            " eight bits",
            *("decoded", "mode", one_of, {"value_set": modes}, "mode"),
        ),
        Rule(
            "size",
            settings.size,
            "Every image has the size that most have.",
            f"{common_size} pixels",
            f"look at them, {leave_out}; where sizes may differ set validation.size: off",
            *("decoded", "size", one_of, {"value_set": [common_size]}, "size"),
        ),
        Rule(
            "duplicate_across",
            settings.duplicate_across,
            "No file is in two splits or two classes.",
            "no other file with the same bytes in another split or class",
            "a copy in TEST is answered from memory, a copy in another class is labelled wrongly:"
            " keep one, with dataset.exclude in the profile",
            *("decoded", "same_bytes_across", null, {}, "same_bytes_across", "same bytes as {}"),
        ),
        Rule(
            "duplicate_within",
            settings.duplicate_within,
            "No file is twice in a class.",
            "no other file with the same bytes in the same split and class",
            "keep one of each, with dataset.exclude in the profile",
            *("decoded", "same_bytes_within", null, {}, "same_bytes_within", "same bytes as {}"),
        ),
        Rule(
            "near_duplicate_across",
            settings.near_duplicate_across,
            "No image is nearly the same as one of another split.",
            f"more than {settings.near_duplicate_bits} of 256 bits of the perceptual hash differ",
            "look at the pairs on the page; keep one of each, with dataset.exclude in the profile",
            *(
                "decoded",
                "near_duplicate_across",
                null,
                {},
                "near_duplicate_across",
                "looks like {}",
            ),
        ),
        Rule(
            "small_class",
            settings.small_class,
            "Every class has images enough in each split to be divided.",
            f"at least {settings.smallest_class} readable images of a class in a split",
            "add images, leave the class out with dataset.exclude, or make validation.small_class a"
            " warning in the profile",
            *(
                "folders",
                "images",
                between,
                {"min_value": settings.smallest_class},
                "images",
                "{} images",
            ),
        ),
        Rule(
            "imbalance",
            settings.imbalance,
            "No class is much larger than another of the same split.",
            f"the largest class at most {settings.largest_imbalance:g} times the smallest",
            "read the accuracy by class, not the mean; add images of the small class, or raise"
            " validation.largest_imbalance",
            *(
                "folders",
                "imbalance",
                between,
                {"max_value": settings.largest_imbalance},
                "imbalance",
                "1 to {}",
            ),
        ),
        Rule(
            "empty_class",
            "error",
            "Every class folder has images to train on or to test on.",
            "at least one readable image in each class folder, and one of each class outside "
            "TEST_SIMPLE",
            "add images, or leave the class out with dataset.exclude in the profile",
            *("folders", "empty", null, {}, "empty"),
        ),
        Rule(
            "classes",
            "error",
            "There is something to tell apart.",
            "at least two classes",
            "give the images of each class in a folder of their own: SPLIT/CLASS or CLASS",
            *("folders", "classes", between, {"min_value": 2}, None),
        ),
        # Every other rule passes where there is no value: Great Expectations skips nulls.
        Rule(
            "complete",
            "error",
            "The inventory knows everything of every image.",
            "no missing value",
            "this is a mistake in tasks/validate/inventory.py",
            *("images", "lacks", null, {}, "lacks", "lacks {}"),
        ),
    ]


def tables_of(inventory, folders, near_duplicate_bits):
    """Return the tables that rules are about: what each row must be judged by stands in a column.

    Args:
        inventory: DataFrame of inventory.SCHEMA.
        folders: the class folders that exist, SPLIT/CLASS.

    Returns:
        dict of DataFrames: images, decoded, folders.
    """
    images = inventory.copy(deep=False)
    images["lacks"] = lacking(inventory)
    # Only what can be decoded is trained on: every other rule counts that alone.
    # A selection copies every text
    decoded = images if images["readable"].all() else images[images["readable"]]
    decoded["size"] = (
        decoded["width"].astype("Int64").astype("string")
        + "x"
        + decoded["height"].astype("Int64").astype("string")
    )
    decoded["same_bytes_across"], decoded["same_bytes_within"] = same_bytes(decoded)
    decoded["near_duplicate_across"], decoded["near_duplicate_within"] = nearly_same(
        decoded, near_duplicate_bits
    )
    return {"images": images, "decoded": decoded, "folders": folder_table(images, decoded, folders)}


def folder_table(images: pd.DataFrame, decoded: pd.DataFrame, folders: list[str]) -> pd.DataFrame:
    """Return a row for each class of each split, and for each class folder that exists.

    Args:
        images, decoded: as tables_of returns; the column `images` counts the decoded ones.
        folders: the class folders that exist, SPLIT/CLASS.
    """
    files = Counter(zip(images["split"].tolist(), images["class"].tolist(), strict=True))
    counts = Counter(zip(decoded["split"].tolist(), decoded["class"].tolist(), strict=True))
    existing = {tuple(folder.split("/", 1)) for folder in folders}
    splits = {split for split, _ in existing} - UNUSED_SPLITS
    classes = {cell_class for _, cell_class in existing}
    usable = {cell_class for split, cell_class in counts if split in splits}
    broken = images.loc[images["error"].notna(), ["split", "class", "error"]]
    error_of = {(split, name): error for split, name, error in broken.itertuples(index=False)}

    def empty(place: tuple[str, str]) -> str | None:
        if place not in existing:
            return None
        return why_empty(files[place], counts[place], error_of.get(place), place[1] in usable)

    rows = [
        {
            "path": "/".join(place),
            "split": place[0],
            "class": place[1],
            "images": counts[place],
            "empty": empty(place),
            "classes": len(usable),
        }
        # A class that a split lacks is one of zero images.
        for place in sorted({(split, name) for split in splits for name in classes} | existing)
    ]
    places = pd.DataFrame(rows)
    used = ~places["split"].isin(UNUSED_SPLITS)
    largest = places.groupby("split")["images"].transform("max")
    places["imbalance"] = (largest / places["images"]).where(used & (places["images"] > 0)).round(2)
    # Only empty and lonely folders of an unused split are judged.
    places["images"] = places["images"].where(used).astype("Int64")
    return places


def why_empty(files: int, readable: int, error: str | None, used: bool) -> str | None:
    """Say why no model can be trained or tested on a class folder: None where one can.

    Args:
        files: how many files are in it; readable: how many of them are images.
        error: what is wrong with one of the others.
        used: whether a split that is trained or tested on has a readable image of its class.
    """
    if not files:
        return "no file"
    if not readable:
        return f"none of {files:,} files is readable: {error}"
    return None if used else "no readable image of this class outside TEST_SIMPLE"


def lacking(inventory):
    """Return the names of the columns in which each row lacks a value that it must have, with
    commas; None where it lacks none.
    """
    missing = inventory[OF_ALL + OF_READABLE].isna()
    missing.loc[~inventory["readable"], OF_READABLE] = False
    names = [None] * len(missing)
    for row in missing.to_numpy().any(axis=1).nonzero()[0]:
        names[row] = ", ".join(missing.columns[missing.iloc[row]])
    return names


def load_great_expectations():
    """Import Great Expectations, with its usage statistics off; it takes ten seconds."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def judge(tables, rules):
    """Judge the tables by the rules.

    Args:
        tables: as tables_of returns.
        rules: as rules_for returns.

    Returns:
        dict: verdict ('passed', 'warnings', 'failed'), rules (a dict each: rule, severity,
            description, expected, found, passed,
        count, offenders, details, fix) and great_expectations (statistics of each table's
        validation). The same data gives the same values.
    """
    gx = load_great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("pandas")
    outcomes, statistics = {}, {}
    for table in ("images", "decoded", "folders"):
        applied = [rule for rule in rules if rule.table == table and rule.severity != "off"]
        outcomes |= outcomes_of(context, source, table, tables[table], applied, statistics)
    judged = [judged_rule(rule, tables[rule.table], outcomes) for rule in rules]
    failed = {rule["severity"] for rule in judged if not rule["passed"]}
    verdict = "failed" if "error" in failed else "warnings" if "warning" in failed else "passed"
    return {"verdict": verdict, "rules": judged, "great_expectations": statistics}


@dataclass(frozen=True)
class Outcome:
    """What Great Expectations says of one rule.

    A rule that it could not judge did not succeed, and no row offends against it.
    """

    success: bool
    offending: list[int]  # row numbers
    problem: str | None  # why it could not be judged


def outcomes_of(
    context: Any,
    source: Any,
    name: str,
    table: pd.DataFrame,
    rules: list[Rule],
    statistics: dict[str, Any],
) -> dict[str, Outcome]:
    """Run Great Expectations on one table; return each rule's Outcome by the rule's name.

    Args:
        context, source: of Great Expectations: where the suite and the table are added.
        statistics: the table's are added to it, under `name`.
    """
    gx = load_great_expectations()
    asset = source.add_dataframe_asset(name)
    # The meta of an expectation comes back with its result. The suite is added whole: it is stored
    # anew for each one added to it later.
    wanted = [
        getattr(gx.expectations, rule.expectation)(
            column=rule.column,
            **rule.arguments,
            description=rule.description,
            meta={"rule": rule.name},
        )
        for rule in rules
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=wanted))
    definition = gx.ValidationDefinition(
        name=name, data=asset.add_batch_definition_whole_dataframe("all"), suite=suite
    )
    result = context.validation_definitions.add(definition).run(
        # The index finds an offender's row. Great Expectations copies the whole table for every
        # rule: it gets the judged columns alone.
        batch_parameters={
            "dataframe": (
                table[list(dict.fromkeys(rule.column for rule in rules))].reset_index(drop=True)
            )
        },
        result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
    )
    outcomes, expectations = {}, []
    for one in result.results:
        offending = sorted(one.result.get("unexpected_index_list") or [])
        problem = problem_of(one.exception_info) if not one.success and not offending else None
        rule = one.expectation_config.meta["rule"]
        outcomes[rule] = Outcome(bool(one.success), offending, problem)
        kept = {
            key: one.result[key]
            for key in ("element_count", "unexpected_count", "unexpected_percent")
            if key in one.result
        }
        kwargs = {
            key: value for key, value in one.expectation_config.kwargs.items() if key != "batch_id"
        }
        expectations.append(
            {"type": one.expectation_config.type, "kwargs": kwargs, "success": one.success, **kept}
        )
    keys = (
        "evaluated_expectations",
        "successful_expectations",
        "unsuccessful_expectations",
        "success_percent",
    )
    statistics[name] = {key: result.statistics[key] for key in keys} | {
        "version": gx.__version__,
        "expectations": expectations,
    }
    return outcomes


def problem_of(exception_info: dict[str, Any]) -> str:
    """Return why Great Expectations could not judge a rule: its messages, in one line.

    Args:
        exception_info: of one result: with exception_message, or a dict of such dicts by metric.
    """
    nested = "exception_message" not in exception_info
    parts = exception_info.values() if nested else [exception_info]
    messages = [str(part["exception_message"]) for part in parts if part.get("raised_exception")]
    return " ".join("; ".join(messages or ["it names no offender"]).split())


def judged_rule(rule: Rule, table: pd.DataFrame, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Return one rule's part of the result.

    It passes only if Great Expectations says so itself, or if it is turned off.
    """
    unjudged = Outcome(rule.severity == "off", [], "Great Expectations returned no result")
    outcome = outcomes.get(rule.name, unjudged)
    rows = table.iloc[outcome.offending]
    details = (
        [rule.says.format(value) for value in rows[rule.detail]]
        if rule.detail
        else [""] * len(rows)
    )
    things = "class folders" if rule.table == "folders" else "images"
    if rule.severity == "off":
        found = "not judged: turned off in the profile"
    elif not outcome.success and rows.empty:
        found = f"could not be judged: {outcome.problem}"
    elif rows.empty:
        found = f"all {len(table):,} {things}"
    else:
        found = f"{len(rows):,} of {len(table):,} {things}"
        if rule.name in ("unreadable", "mode", "size"):
            kinds = Counter(details).most_common(4)
            found += ": " + "; ".join(
                f"{kind} ({count:,})" if count > 1 else kind for kind, count in kinds
            )
    return {
        "rule": rule.name,
        "severity": rule.severity,
        "description": rule.description,
        "expected": rule.expected,
        "found": found,
        "passed": outcome.success,
        "count": len(rows),
        "offenders": rows["path"].tolist()[:OFFENDERS],
        "details": details[:OFFENDERS],
        "fix": UNJUDGED if not outcome.success and rows.empty else rule.fix,
    }
