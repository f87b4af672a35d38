"""What an audit prints. The first line is the verdict."""

from collections.abc import Iterator, Sequence

import pandas as pd

from hemotune.audit.audit import ODD, Audit, variety
from hemotune.audit.groups import KINDS, Pair
from hemotune.evaluation.leaks import NAMES

SPLITS = ("ALL", "TRAIN", "VALIDATION", "TEST", "TEST_SIMPLE")
SHOWN = 5  # files or pairs of each kind
WAYS = {"given": "given split", "random": "random split", "by group": "split by group"}


def lines_of(audit: Audit) -> Iterator[str]:
    """Yield the lines of the text."""
    readable = audit.readable
    yield audit.verdict
    yield ""
    yield (
        f"{audit.path}: {len(readable):,} images of {readable['class'].nunique()} classes,"
        f" {audit.groups['group'].nunique():,} groups of images that show the same"
    )
    if audit.blind:
        yield (
            f"{audit.blind:.1%} of the images are too small or flat to be compared: only copies"
            " that were not turned, cropped or sheared are found among them"
        )
    for what, found in variety(audit).items():
        yield f"{what}: {found}"
    if audit.top:
        yield f"names below: in {audit.top}"
    for kind, count in audit.ignored.most_common():
        yield f"not looked at: {count:,} {kind}"
    yield ""
    yield from measure_lines(audit)
    yield ""
    yield from class_lines(audit)
    yield from pair_lines("copies of training images among the test images", audit, audit.leaks)
    yield from pair_lines(
        "copies of training images among the validation images", audit, audit.validation_leaks
    )
    yield from pair_lines("copies in two classes", audit, audit.two_classes)
    yield from pair_lines("copies within a split", audit, audit.within)
    yield from file_lines(audit)


def measure_lines(audit: Audit) -> Iterator[str]:
    """Yield what each split measures."""
    for measure in audit.measures:
        if not measure.controls:
            yield f"{WAYS[measure.way]}: {measure.why_not}"
            continue
        yield f"{WAYS[measure.way]}: measures {measure.meaning}"
        yield (
            f"  {measure.train:,} training and {measure.test:,} test images, {measure.shared:.1%}"
            " of these with a copy in training"
        )
        yield "  without training:"
        for name, accuracy in measure.controls.accuracies().items():
            yield f"  {accuracy:6.1%} right by {NAMES[name]}"


def class_lines(audit: Audit) -> Iterator[str]:
    """Yield the table of classes and their balance."""
    table = class_table(audit)
    yield from table.map("{:,}".format).to_string().splitlines()
    images = table.drop(columns="groups").sum(axis=1)
    largest, smallest = images.max(), images.min()
    yield (
        f"largest class / smallest class: {largest / smallest:.2f}"
        if smallest
        else f"class {images.idxmin()} has no readable image"
    )


def class_table(audit: Audit) -> pd.DataFrame:
    """Return the number of readable images of each class (index) in each split, and of groups."""
    readable = audit.readable
    classes = sorted(audit.inventory["class"].unique())
    table = pd.crosstab(readable["class"], readable["split"]).reindex(classes, fill_value=0)
    table = table[sorted(table.columns, key=SPLITS.index)]
    table["groups"] = audit.groups["group"].groupby(readable["class"]).nunique()
    table["groups"] = table["groups"].fillna(0).astype(int)
    return table.rename(columns={"ALL": "images"}).rename_axis(index=None, columns=None)


def file_lines(audit: Audit) -> Iterator[str]:
    """Yield odd files, by kind."""
    for odd in audit.odd:
        yield ""
        yield f"{ODD[odd.kind]}: {len(odd.files):,}"
        yield from (f"  {name}: {what}" for name, what in odd.files[:SHOWN])
        if len(odd.files) > SHOWN:
            yield f"  and {len(odd.files) - SHOWN:,} more"


def pair_lines(title: str, audit: Audit, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield pairs of one kind of copies."""
    if not pairs:
        return
    names = audit.inventory["name"]
    yield ""
    yield f"{title}: {len(pairs):,}"
    for pair in pairs[:SHOWN]:
        yield f"  {names[pair.row]} = {names[pair.other]} ({KINDS[pair.kind]})"
    if len(pairs) > SHOWN:
        yield f"  and {len(pairs) - SHOWN:,} more"
