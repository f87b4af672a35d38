"""The protocols: which images are trained on, validated on and tested on."""

import numpy as np
import pandas as pd

from hemotune.errors import StudyError
from hemotune.settings.split import Split

USES = {"train": "to train on", "validation": "to validate on", "test": "to test on"}
SEARCHED = 1000  # images of a class: so many of a cut are chosen as well as any choice could be


def split_at_random(inventory, photographs, split):
    """Protocol random: merge all splits but TEST_SIMPLE, then cut at random, stratified by class.

    TEST_SIMPLE is left out: its images are the originals of TEST's copies.

    Args:
        inventory: DataFrame with `split` and `class`, a row an image.
        photographs: not looked at: copies of one photograph fall on both sides, which is what this
            protocol is known for.
        split: settings.split.Split: fractions and seed.

    Returns:
        dict of 'train', 'validation', 'test' to sorted row numbers.
    """
    rows = inventory[inventory["split"] != "TEST_SIMPLE"]
    return cut(
        rows["class"],
        {"train": split.train, "validation": split.validation, "test": split.test},
        split.seed,
    )


def split_held_out(inventory, photographs, split):
    """Protocol held-out: TRAIN gives train and validation in the profile's ratio, TEST is the
    test.

    All copies of a photograph fall on the same side of the cut between train and validation.

    Args:
        photographs: Series of photograph names, a row an image, in the inventory's order.

    Raises:
        StudyError: the data set has no TRAIN or no TEST.
    """
    present = sorted(inventory["split"].unique())
    if not {"TRAIN", "TEST"} <= set(present):
        raise StudyError(
            "params.yaml: protocols: held-out needs a data set with TRAIN and TEST; this one has"
            f" {', '.join(present)}. Remove held-out from protocols, or give the images in train/"
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
    sizes, share = groups.value_counts(), validation_share(split)
    chosen = groups.isin(cut_photographs(class_of, sizes, share, split.seed))
    rows = {"train": train.index[~chosen], "validation": train.index[chosen]}
    rows["test"] = inventory.index[inventory["split"] == "TEST"]
    return {part: index.tolist() for part, index in rows.items()}


def cut_photographs(class_of: pd.Series, sizes: pd.Series, share: float, seed: int) -> set[str]:
    """Choose photographs at random, so that each class has `share` of its images in them.

    As nearly as whole photographs allow: they are counted by their images.

    Args:
        class_of: class names, indexed by photograph.
        sizes: numbers of images, indexed by photograph.

    Raises:
        StudyError: a class has too few photographs to be on both sides.
    """
    random, chosen = np.random.default_rng(seed), set()
    for cell_class, members in class_of.groupby(class_of, sort=True):
        if len(members) < 2:
            raise StudyError(
                f"class {cell_class} has {len(members)} photographs to cut; 2 parts (train, "
                "validation) need at least one each. Add images, leave the class out with "
                "dataset.exclude in the profile, or remove held-out from protocols in params.yaml"
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
    """Return places of some of `numbers` whose sum is as near to `wanted` as any's.

    They are never none and never all. The first numbers are taken as far as may be, so that a
    random order gives a random choice. More than SEARCHED below `wanted` they are taken as they
    come, so that a million of them cost no more than seconds.

    Args:
        numbers: at least two, each 1 or more.
    """
    whole = sum(numbers)
    wanted = min(max(wanted, 1), whole - 1)
    taken, start = 0, 0
    while start + numbers[taken] <= wanted - SEARCHED:
        start += numbers[taken]
        taken += 1
    reached = {start: None}  # each sum: the place that was added last, and the sum before
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


def cut(classes, fractions, seed):
    """Cut images at random, each class in the same fractions.

    Args:
        classes: Series of class names, indexed by row number.
        fractions: dict of part name to fraction; they sum to one.

    Returns:
        dict of part name to sorted row numbers. Every class is in every part.

    Raises:
        StudyError: a class has too few to be in every part.
    """
    random = np.random.default_rng(seed)
    parts = {name: [] for name in fractions}
    for cell_class, members in classes.groupby(classes, sort=True):
        if len(members) < len(fractions):
            raise StudyError(
                f"class {cell_class} has {len(members)} images to cut; {len(fractions)} parts"
                f" ({', '.join(fractions)}) need at least one each. Add images, or leave the class"
                " out with dataset.exclude in the profile"
            )
        order = random.permutation(members.index.to_numpy())
        # Rounded ends, pushed apart so that a small class is in every part.
        ends = np.round(np.cumsum(list(fractions.values())) * len(order)).astype(int)
        ends = np.maximum(ends, np.arange(1, len(ends) + 1))
        ends = np.minimum(ends, len(order) - np.arange(len(ends) - 1, -1, -1))
        for name, start, end in zip(fractions, [0, *ends], ends, strict=False):
            parts[name].extend(order[start:end].tolist())
    return {name: sorted(chosen) for name, chosen in parts.items()}


PROTOCOLS = {"random": split_at_random, "held-out": split_held_out}


def parts_of(
    protocol: str, inventory: pd.DataFrame, photographs: pd.Series, split: Split
) -> dict[str, list[int]]:
    """Return the protocol's parts, with each class in each of them.

    Raises:
        StudyError: this data set cannot be split so.
    """
    parts = PROTOCOLS[protocol](inventory, photographs, split)
    for part, rows in parts.items():
        if missing := sorted(set(inventory["class"]) - set(inventory["class"].loc[rows])):
            raise StudyError(
                f"params.yaml: protocols: {protocol} has no readable image {USES[part]} of class "
                f"{', '.join(missing)}. Add some, leave the class out with dataset.exclude in the "
                f"profile, or remove {protocol} from protocols"
            )
    return parts


def counted(parts: dict[str, list[int]]) -> str:
    return ", ".join(f"{len(rows)} {name}" for name, rows in parts.items())


def what_came_out(parts: dict[str, list[int]], classes: pd.Series, asked: float) -> str:
    """Say which share of TRAIN is validated on: of all images, and of the class furthest off.

    Args:
        classes: class names, indexed by row number.
        asked: the share that was asked for.
    """
    validation, train = (classes[parts[name]].value_counts() for name in ("validation", "train"))
    shares = validation / (validation + train)
    furthest = (shares - asked).abs().idxmax()
    whole = validation.sum() / (validation.sum() + train.sum())
    furthest_off = f"furthest off is class {furthest} with {shares[furthest]:.1%}"
    return f"validation has {whole:.1%} of TRAIN's images, asked were {asked:.1%}; {furthest_off}"
