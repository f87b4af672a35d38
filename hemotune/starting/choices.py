"""The settings that suit a user's images and machine.

The constants were measured with MobileNet from random weights on two data sets: docs/own-images.md.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hemotune.errors import StudyError
from hemotune.starting.machine import Machine
from hemotune.starting.survey import FEWEST_GROUPS, SMALLEST_CLASS, Survey

SIZES = (32, 48, 64, 96, 128, 160, 224)  # px
BACKBONE = "MobileNet"
# Rows of the study: name, settings, and what the row is for
EXPERIMENTS = [
    ("base", "{layers: 1, units: 64, learning_rate: 1.0e-3}", "the others differ from it"),
    (
        "turned",
        "{layers: 1, units: 64, learning_rate: 1.0e-3, augmentation: turns}",
        "do images laid in all eight ways help?",
    ),
    ("deeper", "{layers: 2, units: 64, learning_rate: 1.0e-3}", "does one more layer help?"),
]
# Steps after which a training from random weights is well above chance, and one from other weights
STEPS, FEWER_STEPS = 300, 150
EPOCHS = (5, 60)  # fewest and most
# Few images are laid in smaller batches: more steps of the same cost
BATCH, SMALL_BATCH, FEW_IMAGES = 32, 16, 1000
BUDGET = 400.0  # seconds for all trainings, beyond which images are made smaller
LEAST_STRETCH = 1.2  # longer side / shorter side from which images are padded, not squeezed
IMBALANCE = 3.0


@dataclass(frozen=True)
class Choices:
    """What is written into both files, beyond what was found."""

    name: str
    weights: str
    size: int
    fit: str
    epochs: int
    batch_size: int
    minutes: int  # that all trainings take, roughly
    machine: str
    training: str  # the entry of `trainings`
    why_training: str
    class_weights: str
    severities: dict[str, tuple[str, str]]  # of rules that are broken: severity and comment


def choose(survey: Survey, machine: Machine, name: str, weights: str) -> Choices:
    """Return settings with which the study runs as it is."""
    images = train_images(survey)
    batch = BATCH if images >= FEW_IMAGES else SMALL_BATCH
    steps = STEPS if weights == "random" else FEWER_STEPS
    epochs = min(max(math.ceil(steps * batch / images), EPOCHS[0]), EPOCHS[1])
    size = largest_size(survey, machine, images * epochs * len(EXPERIMENTS))
    training, why = protocol(survey)
    counts = survey.classes.values()
    return Choices(
        name=name,
        weights=weights,
        size=size,
        fit="pad" if stretch(survey) >= LEAST_STRETCH else "squeeze",
        epochs=epochs,
        batch_size=batch,
        minutes=max(1, round(images * epochs * len(EXPERIMENTS) / machine.rate_at(size) / 60)),
        machine=machine.name,
        training=training,
        why_training=why,
        class_weights="balanced" if max(counts) > IMBALANCE * min(counts) else "none",
        severities=severities(survey),
    )


def train_images(survey: Survey) -> int:
    """Return about how many images are trained on."""
    given = survey.splits.get("TRAIN")
    return given if given else max(1, round(0.64 * sum(survey.splits.values())))


def largest_size(survey: Survey, machine: Machine, shown: int) -> int:
    """Return the largest size up to that of the images at which `shown` images, each as often as it
    is trained on, take no longer than the budget; the smallest that there is where none does.
    """
    sides = sorted(min(size) for size in survey.sizes().elements())
    side = sides[len(sides) // 2]
    fitting = [size for size in SIZES if size <= side and shown / machine.rate_at(size) <= BUDGET]
    return max(fitting, default=SIZES[0])


def stretch(survey: Survey) -> float:
    """Return the longest side / the shortest of the image furthest from a square."""
    return max(max(size) / min(size) for size in survey.sizes())


def protocol(survey: Survey) -> tuple[str, str]:
    """Return the entry of `trainings`, and what it means."""
    own_test = {"TRAIN", "TEST"} <= set(survey.splits)
    if own_test:
        return "held-out-1", "tested on the images of the test folder"
    if survey.groups and min(survey.groups_of_classes().values()) < FEWEST_GROUPS:
        return (
            "random-1",
            f"a class has fewer than {FEWEST_GROUPS} groups, so that the test cannot have groups of"
            " its own: train and test share groups",
        )
    return "held-out-1", "tested on groups that no training has seen"


def severities(survey: Survey) -> dict[str, tuple[str, str]]:
    """Return, for each rule that the images break, a severity with which the study still runs, and
    what was found.
    """
    found: dict[str, tuple[str, str]] = {}
    broken = survey.inventory[~survey.inventory["readable"]]
    if len(broken):
        first = broken.iloc[0]
        found["unreadable"] = (
            "warning",
            f"{len(broken):,} cannot be read and are left out; the first is {first['name']}:"
            f" {first['error']}",
        )
    if len(survey.sizes()) > 1:
        found["size"] = ("off", f"they have {len(survey.sizes()):,} sizes")
    if copies := survey.copies_across():
        found["duplicate_across"] = (
            "warning",
            f"{len(copies):,} are also in another split or class, such as {copies[0]}",
        )
    if shared := survey.split_groups():
        found["group_across"] = (
            "warning",
            f"{len(shared):,} groups are in two splits, such as {shared[0]}: the test is no test of"
            " new groups",
        )
    counts = Counter(zip(survey.readable["split"], survey.readable["class"], strict=True))
    places = [(split, name) for split in survey.splits for name in survey.classes]
    split, name = min(places, key=lambda place: counts[place])
    if counts[split, name] < SMALLEST_CLASS:
        found["small_class"] = ("warning", f"{name} has {counts[split, name]} images in {split}")
    return {rule: (severity, " ".join(why.split())) for rule, (severity, why) in found.items()}


def name_of(path: str) -> str:
    """Return a profile's name made of the name of a folder or a zip.

    Raises:
        StudyError: nothing is left of it.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).expanduser().resolve().stem).strip("-")
    if not name:
        raise StudyError(f"{path}: no profile can have this name; give one with --name")
    return name
