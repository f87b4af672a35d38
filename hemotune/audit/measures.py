"""What each way to split the images measures: how many test images have a copy in training, and
what the controls score without training.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hemotune.audit.groups import Pixels
from hemotune.controls import controls_of
from hemotune.evaluation.leaks import MOST_SHARED, Controls
from hemotune.protocols import Rows, rows_by_protocol
from hemotune.settings.split import Split
from hemotune.settings.trainings import parse
from hemotune.splits import ImageSplit
from hemotune.whole_photographs import class_of_photographs

Way = Literal["given", "random", "by group"]
MOSTLY = 0.5  # of the test images have a copy in training
LEAST = 3  # images, or groups, of each class: one to train on, to validate on and to test on
# Splits of a source that are no test and that a network learns or is chosen from
LEARNT_FROM = ("TRAIN", "VALIDATION")


@dataclass(frozen=True)
class Measure:
    """One way to split the images.

    Attributes:
        train, test: numbers of images.
        controls: None where the images cannot be split in this way, for the reason in `why_not`.
    """

    way: Way
    train: int = 0
    test: int = 0
    controls: Controls | None = None
    why_not: str = ""

    @property
    def shared(self) -> float:
        """The share of test images that have a copy in training."""
        found = self.controls.shared_photographs if self.controls else None
        return found.share if found else 0.0

    @property
    def unseen(self) -> float:
        """The share of test images that cannot be compared."""
        found = self.controls.shared_photographs if self.controls else None
        return found.not_found / found.images if found else 0.0

    @property
    def meaning(self) -> str:
        """What an accuracy on this split measures."""
        if not self.controls:
            return self.why_not
        doubt = ""
        if self.unseen > MOST_SHARED:
            doubt = f", as far as is seen: {self.unseen:.0%} of the test images cannot be compared"
        if self.shared > MOSTLY:
            return f"memory: how well copies of training images are recognised{doubt}"
        if self.shared > MOST_SHARED:
            return f"a mixture of memory and how well new images are recognised{doubt}"
        if self.shared:
            return f"how well new images are recognised, to within {self.shared:.1%}{doubt}"
        return f"how well new images are recognised{doubt}"


def measures_of(inventory: pd.DataFrame, pixels: Pixels, groups: pd.DataFrame) -> list[Measure]:
    """Return what the given split, where there is one, a random one and one by group measure.

    Args:
        inventory: row i describes image i of `pixels`.
        groups: of `groups.group_images`, a row for each readable image.
    """
    photographs = pd.DataFrame(
        {
            "path": groups["path"],
            "photograph": groups["group"].astype(str),
            "method": groups["comparable"].map({True: "clustered", False: "unknown"}),
        }
    )
    readable = inventory.loc[groups.index]
    ways: dict[Way, Rows | str] = {}
    if given := given_rows(readable):
        ways["given"] = given
    # Whatever the given split, but for TEST_SIMPLE, which repeats TEST
    merged = readable[readable["split"] != "TEST_SIMPLE"].assign(split="ALL")
    ways["random"] = cut(merged, photographs["photograph"], "random")
    ways["by group"] = cut(merged, photographs["photograph"], "held-out")
    return [
        Measure(way, why_not=rows)
        if isinstance(rows, str)
        else measure(way, rows, inventory, pixels, photographs)
        for way, rows in ways.items()
    ]


def given_rows(readable: pd.DataFrame) -> Rows | None:
    """Return the rows of the split that the source has, None where it has no test or no training
    images.
    """
    rows: Rows = {
        "train": readable.index[readable["split"].isin(LEARNT_FROM)].tolist(),
        "validation": [],
        "test": readable.index[readable["split"] == "TEST"].tolist(),
    }
    return rows if rows["train"] and rows["test"] else None


def cut(merged: pd.DataFrame, photographs: pd.Series, protocol: str) -> Rows | str:
    """Return the rows of each part under a protocol of the studies, or why there are none.

    Args:
        merged: the images, all of one split.
        photographs: the group of each image, by its row.
    """
    classes = merged["class"]
    if protocol == "held-out":
        units = class_of_photographs(classes, photographs[merged.index])
    else:
        units = classes
    counts = units.value_counts().reindex(sorted(classes.unique()), fill_value=0)
    if too_few := counts.index[counts < LEAST].tolist():
        what = "groups" if protocol == "held-out" else "images"
        return (
            f"cannot be cut: class {too_few[0]} has {counts[too_few[0]]} {what}, and training,"
            " validation and test need one each"
        )
    found = rows_by_protocol([parse(f"{protocol}-1")], merged, photographs, Split())
    return found[protocol]


def measure(
    way: Way, rows: Rows, inventory: pd.DataFrame, pixels: Pixels, photographs: pd.DataFrame
) -> Measure:
    """Return what the split into `rows` measures; validation images count as training images."""
    train = sorted(rows["train"] + rows["validation"])
    split = ImageSplit(
        protocol=way,
        repeat=1,
        seed=Split().seed,
        classes=sorted(inventory["class"].unique()),
        train=train,
        validation=[],
        test=rows["test"],
    )
    controls = controls_of([split], inventory, pixels, photographs)[way]
    return Measure(way, len(train), len(split.test), controls)
