"""The rules that images must meet. Add new rules here, and their settings to Validation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hemotune.settings.validation import Severity, Validation

LEAVE_OUT = "or leave them out with dataset.exclude in the profile"


@dataclass(frozen=True)
class Expectation:
    """What each value of a column must be. A missing value meets all expectations."""

    type: str  # a class of great_expectations.expectations
    arguments: dict[str, object]


@dataclass(frozen=True)
class Rule:
    """Every row of a table must meet an expectation in one column."""

    name: str
    severity: Severity
    description: str  # what must hold, in one sentence
    expected: str
    fix: str
    table: Literal["images", "decoded", "folders"]  # of tables.Tables
    column: str
    expectation: Expectation
    detail: str | None  # the column that shows what is wrong in an offending row
    detail_format: str = "{}"


def one_of(values: Iterable[str | bool]) -> Expectation:
    return Expectation("ExpectColumnValuesToBeInSet", {"value_set": list(values)})


def at_least(bound: int) -> Expectation:
    return Expectation("ExpectColumnValuesToBeBetween", {"min_value": bound})


def at_most(bound: float) -> Expectation:
    return Expectation("ExpectColumnValuesToBeBetween", {"max_value": bound})


MISSING = Expectation("ExpectColumnValuesToBeNull", {})

# The rules that profiles cannot change
FIXED = (
    Rule(
        name="empty_class",
        severity="error",
        description="Every class folder contains images for training or testing.",
        expected="at least one readable image in each class folder, and one of each class "
        "in a split that is used",
        fix="add images, or leave the class out with dataset.exclude in the profile",
        table="folders",
        column="empty",
        expectation=MISSING,
        detail="empty",
    ),
    Rule(
        name="classes",
        severity="error",
        description="There is more than one class.",
        expected="at least two classes",
        fix="put the images of each class in a folder of its own: SPLIT/CLASS or CLASS",
        table="folders",
        column="classes",
        expectation=at_least(2),
        detail=None,
    ),
    # All other rules pass where a value is missing: Great Expectations skips nulls.
    Rule(
        name="complete",
        severity="error",
        description="The inventory is complete.",
        expected="no missing value",
        fix="this is a bug in hemotune/inventory.py: report it",
        table="images",
        column="lacks",
        expectation=MISSING,
        detail="lacks",
        detail_format="lacks {}",
    ),
)


def rules_for(settings: Validation, common_size: str) -> list[Rule]:
    """Return the rules, with severities and bounds from `settings`.

    Args:
        common_size: WIDTHxHEIGHT of most images.
    """
    return [
        *file_rules(settings, common_size),
        *duplicate_rules(settings),
        group_rule(settings),
        *folder_rules(settings),
        *FIXED,
    ]


def file_rules(settings: Validation, common_size: str) -> list[Rule]:
    """Return the rules about single files."""
    return [
        Rule(
            name="unreadable",
            severity=settings.unreadable,
            description="Every file is an image that can be decoded completely.",
            expected="JPEG, PNG, WebP, TIFF or BMP, with one still image",
            fix=f"replace these files with valid ones, {LEAVE_OUT}",
            table="images",
            column="readable",
            expectation=one_of([True]),
            detail="error",
        ),
        Rule(
            name="mode",
            severity=settings.mode,
            description="Every image has an allowed colour mode.",
            expected=", ".join(settings.allowed_modes),
            fix="convert them, or add the mode to validation.allowed_modes in the profile; they "
            "then become RGB, with transparent pixels white and the upper eight bits of 16-bit "
            "levels",
            table="decoded",
            column="mode",
            expectation=one_of(settings.allowed_modes),
            detail="mode",
        ),
        Rule(
            name="size",
            severity=settings.size,
            description="All images have the same size.",
            expected=f"{common_size} pixels",
            fix=f"check them, {LEAVE_OUT}; if sizes may differ, set validation.size: off",
            table="decoded",
            column="size",
            expectation=one_of([common_size]),
            detail="size",
        ),
    ]


def duplicate_rules(settings: Validation) -> list[Rule]:
    """Return the rules about duplicate images."""
    return [
        Rule(
            name="duplicate_across",
            severity=settings.duplicate_across,
            description="No file occurs in two splits or two classes.",
            expected="no other file with the same bytes in another split or class",
            fix="a copy in the test set can be memorized during training, and a file in two "
            "classes has a wrong label: keep one copy, with dataset.exclude in the profile",
            table="decoded",
            column="same_bytes_across",
            expectation=MISSING,
            detail="same_bytes_across",
            detail_format="same bytes as {}",
        ),
        Rule(
            name="duplicate_within",
            severity=settings.duplicate_within,
            description="No file occurs twice in a class.",
            expected="no other file with the same bytes in the same split and class",
            fix="keep one copy of each, with dataset.exclude in the profile",
            table="decoded",
            column="same_bytes_within",
            expectation=MISSING,
            detail="same_bytes_within",
            detail_format="same bytes as {}",
        ),
        Rule(
            name="near_duplicate_across",
            severity=settings.near_duplicate_across,
            description="No image is nearly the same as an image of another split.",
            expected=f"hashes that differ in more than {settings.near_duplicate_bits} of 256 bits",
            fix="look at the pairs on the page; keep one of each, with dataset.exclude in the "
            "profile",
            table="decoded",
            column="near_duplicate_across",
            expectation=MISSING,
            detail="near_duplicate_across",
            detail_format="looks like {}",
        ),
    ]


def group_rule(settings: Validation) -> Rule:
    """Return the rule about groups that are given."""
    return Rule(
        name="group_across",
        severity=settings.group_across,
        description="No group that is given is in two splits.",
        expected="no other image of the same group in another split",
        fix="a model knows such a test image's group from training: keep each group in one "
        "split, with dataset.exclude in the profile, or train under fold-1 and so on, which "
        "cut the splits anew, and set validation.group_across: warning",
        table="decoded",
        column="group_across",
        expectation=MISSING,
        detail="group_across",
        detail_format="same group as {}",
    )


def folder_rules(settings: Validation) -> list[Rule]:
    """Return the rules about each class of each split."""
    return [
        Rule(
            name="small_class",
            severity=settings.small_class,
            description="Every class has enough images in each split.",
            expected=f"at least {settings.smallest_class} readable images of a class in a split",
            fix="add images, leave the class out with dataset.exclude, or set "
            "validation.small_class: warning in the profile",
            table="folders",
            column="images",
            expectation=at_least(settings.smallest_class),
            detail="images",
            detail_format="{} images",
        ),
        Rule(
            name="imbalance",
            severity=settings.imbalance,
            description="No class is much larger than another of the same split.",
            expected=f"the largest class at most {settings.largest_imbalance:g} times as large as "
            "the smallest",
            fix="read the accuracy by class, not the mean; add images of the small class, or raise "
            "validation.largest_imbalance",
            table="folders",
            column="imbalance",
            expectation=at_most(settings.largest_imbalance),
            detail="imbalance",
            detail_format="1 to {}",
        ),
    ]
