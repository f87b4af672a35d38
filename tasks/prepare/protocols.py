"""The protocols: which images are trained on, validated on and tested on."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd

from hemotune.errors import StudyError
from hemotune.settings.split import Split

Part = Literal["train", "validation", "test"]
Rows = dict[Part, list[int]]  # sorted row numbers of the inventory

USES: dict[Part, str] = {"train": "train on", "validation": "validate on", "test": "test on"}
# Images of a class up to which the best of all choices is searched for
SEARCHED = 1000


def split_at_random(inventory: pd.DataFrame, photographs: pd.Series, split: Split) -> Rows:
    """Protocol random: merge all splits but TEST_SIMPLE, then cut at random, stratified by class.

    TEST_SIMPLE is left out: its images are the originals of TEST's copies.

    Args:
        inventory: a row an image, with `split` and `class`.
        photographs: ignored: copies of one photograph fall on both sides, for which this protocol
            is known.
    """
    rows = inventory[inventory["split"] != "TEST_SIMPLE"]
    fractions: dict[Part, float] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    return cut(rows["class"], fractions, split.seed)


def split_held_out(inventory: pd.DataFrame, photographs: pd.Series, split: Split) -> Rows:
    """Protocol held-out: TEST is the test, TRAIN is cut in the ratio of train and validation.

    All copies of a photograph fall on the same side of the cut between train and validation.

    Args:
        inventory: a row an image, with `split` and `class`.
        photographs: each image's photograph, indexed as the inventory.

    Raises:
        StudyError: the data set has no TRAIN or no TEST, or a class has too few photographs.
    """
    present = sorted(inventory["split"].unique())
    if not {"TRAIN", "TEST"} <= set(present):
        raise StudyError(
            "params.yaml: trainings: held-out needs a data set with TRAIN and TEST; this one has"
            f" {', '.join(present)}. Remove held-out from trainings, or give the images in train/"
            " and test/ folders"
        )
    train = inventory[inventory["split"] == "TRAIN"]
    groups = photographs[train.index]
    # A photograph has one class; where grouping joined two, it counts for the more frequent one.
    counts = (
        pd.DataFrame({"photograph": groups, "class": train["class"]}).value_counts().reset_index()
    )
    counts = counts.sort_values(["count", "class"], ascending=[False, True])
    class_of = counts.drop_duplicates("photograph").set_index("photograph")["class"].sort_index()
    chosen = choose_photographs(
        class_of, groups.value_counts(), validation_share(split), split.seed
    )
    validated = groups.isin(chosen)
    return {
        "train": train.index[~validated].tolist(),
        "validation": train.index[validated].tolist(),
        "test": inventory.index[inventory["split"] == "TEST"].tolist(),
    }


def choose_photographs(class_of: pd.Series, sizes: pd.Series, share: float, seed: int) -> set[str]:
    """Choose photographs at random, so that each class has `share` of its images in them.

    Whole photographs, counted by their images, come as near to that share as they can.

    Args:
        class_of: class names, indexed by photograph.
        sizes: numbers of images, indexed by photograph.

    Raises:
        StudyError: a class has too few photographs to be on both sides.
    """
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for cell_class, members in class_of.groupby(class_of, sort=True):
        if len(members) < 2:
            raise StudyError(
                f"class {cell_class} has too few photographs ({len(members)}): train and validation"
                " need at least one each. Add images, leave the class out with dataset.exclude in"
                " the profile, or remove held-out from trainings in params.yaml"
            )
        # From its end: photographs of equal size are cut as `cut` cuts, train first.
        order = random.permutation(members.index.to_numpy())[::-1]
        images = sizes[order].tolist()
        chosen.update(order[nearest_sum(images, share * sum(images))])
    return chosen


def validation_share(split: Split) -> float:
    """Return the fraction of TRAIN's images that held-out validates on."""
    return split.validation / (split.train + split.validation)


def nearest_sum(numbers: list[int], wanted: float) -> list[int]:
    """Return places of some of `numbers`, sorted, whose sum is as near to `wanted` as possible.

    Never none and never all of them. The first numbers are preferred, so that a random order gives
    a random choice. Numbers are taken in their order until the sum is within SEARCHED of `wanted`;
    only the rest is searched, so that a million numbers take no more than seconds.

    Args:
        numbers: at least two, each 1 or more.
    """
    whole = sum(numbers)
    wanted = min(max(wanted, 1), whole - 1)
    taken, start = 0, 0
    while start + numbers[taken] <= wanted - SEARCHED:
        start += numbers[taken]
        taken += 1
    reached = {start: (-1, start)}  # each sum: the place that was added last, and the sum before
    for place in range(taken, len(numbers)):
        if round(wanted) in reached:
            break
        for before in [total for total in reached if total < wanted]:
            if (after := before + numbers[place]) < whole:
                reached.setdefault(after, (place, before))
    total = min(filter(None, reached), key=lambda total: (abs(total - wanted), total))
    places = list(range(taken))
    while total != start:
        place, total = reached[total]
        places.append(place)
    return sorted(places)


def cut(classes: pd.Series, fractions: dict[Part, float], seed: int) -> Rows:
    """Cut images at random, each class in the same fractions; every class is in every part.

    Args:
        classes: class names, indexed by row number.
        fractions: of each part; they sum to one.

    Raises:
        StudyError: a class has too few images to be in every part.
    """
    random = np.random.default_rng(seed)
    rows: Rows = {part: [] for part in fractions}
    for cell_class, members in classes.groupby(classes, sort=True):
        if len(members) < len(fractions):
            raise StudyError(
                f"class {cell_class} has too few images ({len(members)}): {', '.join(fractions)}"
                " need at least one each. Add images, or leave the class out with dataset.exclude"
                " in the profile"
            )
        order = random.permutation(members.index.to_numpy())
        # Rounded ends, pushed apart so that a small class is in every part.
        ends = np.round(np.cumsum(list(fractions.values())) * len(order)).astype(int)
        ends = np.maximum(ends, np.arange(1, len(ends) + 1))
        ends = np.minimum(ends, len(order) - np.arange(len(ends) - 1, -1, -1))
        for part, start, end in zip(fractions, [0, *ends], ends, strict=False):
            rows[part].extend(order[start:end].tolist())
    return {part: sorted(chosen) for part, chosen in rows.items()}


PROTOCOLS: dict[str, Callable[[pd.DataFrame, pd.Series, Split], Rows]] = {
    "random": split_at_random,
    "held-out": split_held_out,
}


def rows_of(protocol: str, inventory: pd.DataFrame, photographs: pd.Series, split: Split) -> Rows:
    """Return the rows of each part under a protocol; every class is in every part.

    Raises:
        StudyError: this data set cannot be split in this way.
    """
    rows = PROTOCOLS[protocol](inventory, photographs, split)
    for part, chosen in rows.items():
        if missing := sorted(set(inventory["class"]) - set(inventory["class"].loc[chosen])):
            raise StudyError(
                f"params.yaml: trainings: {protocol} has no readable image to {USES[part]} of class"
                f" {', '.join(missing)}. Add some, leave the class out with dataset.exclude in the"
                f" profile, or remove {protocol} from trainings"
            )
    return rows


def describe_validation(rows: Rows, classes: pd.Series, requested: float) -> str:
    """Return the share of TRAIN that is validated on: of all images, and of the class furthest off.

    Args:
        classes: class names, indexed by row number.
        requested: the share that the profile requests.
    """
    validation, train = (classes[rows[part]].value_counts() for part in ("validation", "train"))
    shares = validation / (validation + train)
    furthest, share = max(shares.items(), key=lambda item: abs(item[1] - requested))
    whole = validation.sum() / (validation.sum() + train.sum())
    return (
        f"validation has {whole:.1%} of TRAIN's images ({requested:.1%} requested); furthest off is"
        f" class {furthest} with {share:.1%}"
    )
