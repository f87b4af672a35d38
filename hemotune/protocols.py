"""The protocols: which images are trained on, validated on and tested on."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from hemotune.errors import StudyError
from hemotune.settings.split import Split
from hemotune.settings.trainings import Training
from hemotune.whole_photographs import choose_images, require_photographs

Part = Literal["train", "validation", "test"]
Rows = dict[Part, list[int]]  # sorted row numbers of the inventory

USES: dict[Part, str] = {"train": "train on", "validation": "validate on", "test": "test on"}


def rows_by_protocol(
    trainings: Iterable[Training], inventory: pd.DataFrame, photographs: pd.Series, split: Split
) -> dict[str, Rows]:
    """Return the rows of each part under each protocol of `trainings`; every class is in every
    part.

    TEST_SIMPLE is left out of all: its images are the originals of TEST's copies.

    Args:
        inventory: a row an image, with `split` and `class`.
        photographs: each image's photograph, indexed as the inventory.

    Raises:
        StudyError: this data set cannot be split in this way.
    """
    used = inventory[inventory["split"] != "TEST_SIMPLE"]
    if missing := sorted(set(inventory["class"]) - set(used["class"])):
        raise StudyError(
            f"class {', '.join(missing)} has readable images in TEST_SIMPLE alone, which no"
            " protocol uses. Add some, or leave the class out with dataset.exclude in the profile"
        )
    protocols = dict.fromkeys(training.protocol for training in trainings)
    folds = {training.protocol: training.fold for training in trainings if training.fold}
    tested = fold_of_images(used, photographs, split, next(iter(folds))) if folds else None
    found = {}
    for protocol in protocols:
        if tested is not None and protocol in folds:
            rows = cut_validation(used, photographs, tested == folds[protocol], split)
        elif protocol == "held-out":
            rows = split_held_out(used, photographs, split)
        else:
            rows = split_at_random(used, split)
        require_every_class(rows, inventory, protocol)
        found[protocol] = rows
    return found


def split_at_random(used: pd.DataFrame, split: Split) -> Rows:
    """Protocol random: merge TRAIN and TEST, then cut at random, stratified by class.

    Copies of one photograph fall on both sides, for which this protocol is known.
    """
    fractions: dict[Part, float] = {
        "train": split.train,
        "validation": split.validation,
        "test": split.test,
    }
    return cut(used["class"], fractions, split.seed)


def has_own_test(inventory: pd.DataFrame) -> bool:
    """Return whether the data set has a TEST of its own, apart from TRAIN."""
    return {"TRAIN", "TEST"} <= set(inventory["split"])


def has_own_validation(inventory: pd.DataFrame) -> bool:
    """Return whether the data set has a VALIDATION of its own, apart from TRAIN."""
    return {"TRAIN", "VALIDATION"} <= set(inventory["split"])


def split_held_out(used: pd.DataFrame, photographs: pd.Series, split: Split) -> Rows:
    """Protocol held-out: test on TEST, or where there is none on photographs cut off by
    `split.test`; validate on VALIDATION, or cut the rest into train and validation.

    No photograph is in two parts, unless TEST or VALIDATION shares some with TRAIN.

    Raises:
        StudyError: a class has too few photographs.
    """
    own_test, own_validation = has_own_test(used), has_own_validation(used)
    tested = (used["split"] == "TEST") & own_test
    validated = (used["split"] == "VALIDATION") & own_validation
    rest = used[~tested & ~validated]
    groups = photographs[rest.index]
    # One photograph of each class for each part that is cut off, and one to train on
    least = 1 + (not own_test) + (not own_validation)
    where = " of the training images" if own_test or own_validation else ""
    require_photographs(rest["class"], groups, least, "held-out", where)
    if not own_test:
        chosen = choose_images(rest["class"], groups, split.test, split.seed)
        tested = chosen.reindex(used.index, fill_value=False)
    if not own_validation:
        return cut_validation(used, photographs, tested, split)
    return {
        "train": used.index[~tested & ~validated].tolist(),
        "validation": used.index[validated].tolist(),
        "test": used.index[tested].tolist(),
    }


def fold_of_images(
    used: pd.DataFrame, photographs: pd.Series, split: Split, protocol: str
) -> pd.Series:
    """Return the number of the fold that tests each image, from 1 to `split.folds`.

    All images of a photograph are in one fold; classes are balanced by images as far as whole
    photographs allow (scikit-learn's StratifiedGroupKFold).

    Args:
        protocol: the first fold that params.yaml lists, for the message.

    Raises:
        StudyError: a class has fewer photographs than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # a second, which few studies need

    classes, groups = used["class"], photographs[used.index]
    # One for each fold; of two, one would be left for train and validation.
    least, where = max(split.folds, 3), f" (split.folds is {split.folds})"
    require_photographs(classes, groups, least, protocol, where, "lower split.folds, ")
    cutter = StratifiedGroupKFold(split.folds, shuffle=True, random_state=split.seed)
    numbers = pd.Series(0, index=used.index)
    for number, (_, places) in enumerate(cutter.split(used, classes, groups), start=1):
        numbers.iloc[places] = number
    return numbers


def cut_validation(
    used: pd.DataFrame, photographs: pd.Series, tested: pd.Series, split: Split
) -> Rows:
    """Return the tested images, and the rest cut into train and validation by photograph.

    Args:
        tested: bool of each image.
    """
    rest = used[~tested]
    validated = choose_images(
        rest["class"], photographs[rest.index], validation_share(split), split.seed
    )
    return {
        "train": rest.index[~validated].tolist(),
        "validation": rest.index[validated].tolist(),
        "test": used.index[tested].tolist(),
    }


def validation_share(split: Split) -> float:
    """Return the share that is validated on, of the images that are not tested by photograph."""
    return split.validation / (split.train + split.validation)


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


def require_every_class(rows: Rows, inventory: pd.DataFrame, protocol: str) -> None:
    """Check that every class is in every part.

    Raises:
        StudyError: it is not.
    """
    for part, chosen in rows.items():
        if missing := sorted(set(inventory["class"]) - set(inventory["class"].loc[chosen])):
            raise StudyError(
                f"params.yaml: trainings: {protocol} has no readable image to {USES[part]} of class"
                f" {', '.join(missing)}. Add some, leave the class out with dataset.exclude in the"
                f" profile, or remove {protocol} from trainings"
            )
