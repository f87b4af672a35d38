"""Whole photographs chosen for a part of a split: no photograph is on two sides."""

import numpy as np
import pandas as pd

from hemotune.errors import StudyError

# Images of a class up to which the best of all choices is searched for
SEARCHED = 1000


def class_of_photographs(classes: pd.Series, photographs: pd.Series) -> pd.Series:
    """Return the class of each photograph, indexed and sorted by photograph.

    Where grouping joined photographs of two classes, it is the more frequent one.

    Args:
        classes: of each image.
        photographs: of each image, with the same index.
    """
    counts = pd.DataFrame({"photograph": photographs, "class": classes}).value_counts()
    ordered = counts.reset_index().sort_values(["count", "class"], ascending=[False, True])
    return ordered.drop_duplicates("photograph").set_index("photograph")["class"].sort_index()


def require_photographs(
    classes: pd.Series,
    photographs: pd.Series,
    least: int,
    protocol: str,
    where: str = "",
    fix: str = "",
) -> None:
    """Check that each class has photographs enough to be in every part.

    Args:
        classes: of each image.
        photographs: of each image, with the same index.
        where, fix: for the message, where photographs are counted and what else can be changed.

    Raises:
        StudyError: a class has fewer photographs than `least`.
    """
    counts = class_of_photographs(classes, photographs).value_counts()
    for name in sorted(classes.unique()):
        if (found := int(counts.get(name, 0))) < least:
            raise StudyError(
                f"params.yaml: trainings: {protocol} needs {least} groups in each class{where}"
                f", and class {name} has {found}. Add images, {fix}leave the class out with"
                f" dataset.exclude in the profile, or remove {protocol} from trainings"
            )


def choose_images(classes: pd.Series, photographs: pd.Series, share: float, seed: int) -> pd.Series:
    """Return which images belong to photographs chosen at random, `share` of each class's images.

    Whole photographs, counted by their images, come as near to that share as they can. Each class
    has photographs on both sides.

    Args:
        classes: of each image; every class has at least two photographs.
        photographs: of each image, with the same index.

    Returns:
        bool of each image.
    """
    random = np.random.default_rng(seed)
    sizes = photographs.value_counts()
    class_of = class_of_photographs(classes, photographs)
    chosen: set[str] = set()
    for _, members in class_of.groupby(class_of, sort=True):
        # From its end: photographs of equal size are cut as `cut` cuts, train first.
        order = random.permutation(members.index.to_numpy())[::-1]
        images = sizes[order].tolist()
        chosen.update(order[nearest_sum(images, share * sum(images))])
    return photographs.isin(chosen)


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
