"""What prepare prints of a split: how near its parts come to what the profile requests."""

import pandas as pd

from hemotune.protocols import validation_share
from hemotune.settings.split import Split
from hemotune.splits import ImageSplit
from hemotune.whole_photographs import class_of_photographs

NEAR = 0.05  # a class's share of a fold may be off by this part of an equal share


def describe(
    found: ImageSplit, classes: pd.Series, photographs: pd.Series, requested: Split
) -> list[str]:
    """Return lines on a split.

    Args:
        classes: class names, indexed by row number.
        photographs: indexed by row number.
    """
    numbers = [f"{len(getattr(found, part))} {part}" for part in ("train", "validation", "test")]
    lines = [f"{', '.join(numbers)} images of {len(found.classes)} classes"]
    rest, tested = classes[found.train + found.validation], classes[found.test]
    if found.folds:
        lines.append(describe_fold(found, classes, photographs))
    elif found.protocol == "held-out":
        if not found.own_test:
            share = describe_share(tested, pd.concat([rest, tested]), requested.test)
            lines.append(f"test has {share}")
        if not found.own_validation:
            share = describe_share(classes[found.validation], rest, validation_share(requested))
            lines.append(f"validation, of the images that are not tested, has {share}")
    return lines


def describe_share(chosen: pd.Series, of: pd.Series, requested: float) -> str:
    """Return the share that was chosen: of all images, and of the class furthest off.

    Args:
        chosen: classes of the chosen images.
        of: classes of the images among which they were chosen.
    """
    shares = chosen.value_counts() / of.value_counts()
    furthest, share = max(shares.items(), key=lambda item: abs(item[1] - requested))
    return (
        f"{len(chosen) / len(of):.1%} ({requested:.1%} requested); furthest off is class {furthest}"
        f" with {share:.1%}"
    )


def describe_fold(found: ImageSplit, classes: pd.Series, photographs: pd.Series) -> str:
    """Return each class's share of images, and number of photographs, that a fold tests."""
    assert found.folds  # the caller's
    used = found.train + found.validation + found.test
    images, tested = (classes[rows].value_counts() for rows in (used, found.test))
    all_photographs, tested_photographs = (
        class_of_photographs(classes[rows], photographs[rows]).value_counts()
        for rows in (used, found.test)
    )
    texts = [
        f"{name} {tested[name] / images[name]:.1%} ({tested_photographs.get(name, 0)} of"
        f" {all_photographs.get(name, 0)} groups)"
        for name in found.classes
    ]
    equal = 1 / found.folds
    far = [name for name in found.classes if abs(tested[name] / images[name] / equal - 1) > NEAR]
    remark = f"; more than {NEAR:.0%} off an equal share: {', '.join(far)}" if far else ""
    return f"test has {', '.join(texts)}{remark}"
