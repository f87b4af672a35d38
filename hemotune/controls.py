"""The controls: majority class, nearest neighbours, and photographs that parts of a split share."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin

from hemotune.errors import StudyError
from hemotune.evaluation.leaks import NAMES, THUMBNAIL, Control, Controls, SharedPhotographs
from hemotune.paths import INVENTORY, PHOTOGRAPHS, PIXELS, SPLITS
from hemotune.progress import Progress
from hemotune.splits import ImageSplit

# Of more images than these a random sample is compared: seconds, not minutes
MOST_TRAIN, MOST_TEST = 12_000, 4_000
BINS = 8  # of the colour histogram, in each of R, G, B


def controls_of(
    splits: Sequence[ImageSplit],
    inventory: pd.DataFrame,
    images: NDArray[np.uint8],
    photographs: pd.DataFrame | None = None,
) -> dict[str, Controls]:
    """Return, for each protocol, every control's accuracy on the test given the training images.

    All folds are one protocol, e.g. `5 folds`.

    Args:
        inventory: row i describes image i: path, class.
        images: (N, size, size, 3), may be memory-mapped; each is read once, whatever the number of
            splits.
        photographs: path, photograph and method, or None where photographs are unknown.

    Raises:
        StudyError: a split is impossible, or the inputs belong to different data sets.
    """
    for split in splits:
        check_split(split, inventory, images)
    samples = [(sample(split.train, MOST_TRAIN), sample(split.test, MOST_TEST)) for split in splits]
    rows = np.unique(np.concatenate([part for pair in samples for part in pair]))
    features = features_of(images, rows)
    classes = inventory["class"].to_numpy(dtype=str)
    result: dict[str, list[Controls]] = {}
    for split, (train, test) in zip(splits, samples, strict=True):
        nearest = {}
        for name, vectors in features.items():
            queries, references = (vectors[np.searchsorted(rows, part)] for part in (test, train))
            found = train[pairwise_distances_argmin(queries, references)]
            nearest[name] = control(classes[found] == classes[test], len(train))
        names, counts = np.unique(classes[split.train], return_counts=True)
        majority = names[counts.argmax()]
        controls = Controls(
            majority_class=control(classes[test] == majority, len(split.train)),
            shared_photographs=shared_photographs(split, inventory, photographs),
            **nearest,
        )
        result.setdefault(split.pooled, []).append(controls)
    return {protocol: pool(parts) for protocol, parts in result.items()}


def pool(folds: Sequence[Controls]) -> Controls:
    """Return the controls over the test images of all folds together."""
    if len(folds) == 1:
        return folds[0]
    pooled = {}
    for name in NAMES:
        parts: list[Control] = [getattr(fold, name) for fold in folds]
        pooled[name] = Control(
            accuracy=mean_over_images(parts, "accuracy"),
            images=sum(part.images for part in parts),
            train_images=round(mean_over_images(parts, "train_images")),
        )
    shared = [fold.shared_photographs for fold in folds if fold.shared_photographs]
    photographs = None
    if shared:
        photographs = SharedPhotographs(
            share=mean_over_images(shared, "share"),
            images=sum(part.images for part in shared),
            not_found=sum(part.not_found for part in shared),
            validation_share=mean_over_images(shared, "validation_share"),
        )
    return Controls(**pooled, shared_photographs=photographs)


def mean_over_images(parts: Sequence[Control | SharedPhotographs], name: str) -> float:
    """Return the mean of a figure over all test images of `parts`."""
    values, images = ([getattr(part, key) for part in parts] for key in (name, "images"))
    return float(np.average(values, weights=images))


def control(correct: NDArray[np.bool_], train_images: int) -> Control:
    return Control(accuracy=float(correct.mean()), images=len(correct), train_images=train_images)


def check_split(split: ImageSplit, inventory: pd.DataFrame, images: NDArray[np.uint8]) -> None:
    """Check that a split's train and test have images, have none in common, and that they exist.

    Raises:
        StudyError: they do not, or the images are not those of the inventory.
    """
    name = SPLITS / f"{split.training}.json"
    if len(images) != len(inventory):
        raise StudyError(
            f"{PIXELS} has {len(images)} images, {INVENTORY} {len(inventory)}: rerun validate"
        )
    for part, rows in (("train", split.train), ("test", split.test)):
        if not rows:
            raise StudyError(
                f"{name}: {part} is empty, so nothing can be compared: rerun prepare with other"
                " fractions"
            )
        if min(rows) < 0 or max(rows) >= len(inventory):
            raise StudyError(
                f"{name}: {part} has rows outside 0..{len(inventory) - 1}: rerun prepare"
            )
    if both := sorted(set(split.train) & set(split.test)):
        raise StudyError(
            f"{name}: {len(both)} images are in both train and test, such as row {both[0]}: rerun"
            " prepare"
        )


def sample(rows: list[int], most: int) -> NDArray[np.int64]:
    """Return `rows`, or `most` of them drawn at random, sorted."""
    found = np.sort(np.asarray(rows))
    if len(found) > most:
        found = np.sort(np.random.default_rng(1).choice(found, most, replace=False))
    return found


def features_of(
    images: NDArray[np.uint8], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Return the features by which images are compared, for each control of nearest neighbours.

    nearest_histogram (rows, BINS ** 3): square roots of shares, whose Euclidean distance is
    Hellinger's. nearest_thumbnail (rows, THUMBNAIL ** 2 * 3). Images are read one by one, so that
    memory stays flat.
    """
    histograms = np.empty((len(rows), BINS**3), np.float32)
    thumbnails = np.empty((len(rows), THUMBNAIL * THUMBNAIL * 3), np.float32)
    progress = Progress("controls", len(rows), "images")
    for i, row in enumerate(rows):
        image = np.ascontiguousarray(images[row])
        histogram = cv2.calcHist([image], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
        histograms[i] = np.sqrt(histogram.ravel() / histogram.sum())
        thumbnail = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnails[i] = thumbnail.ravel()
        progress.update(i + 1)
    return {"nearest_histogram": histograms, "nearest_thumbnail": thumbnails}


def shared_photographs(
    split: ImageSplit, inventory: pd.DataFrame, photographs: pd.DataFrame | None
) -> SharedPhotographs | None:
    """Return how many test images come from a photograph that training images come from too.

    None if photographs are unknown.

    Raises:
        StudyError: `photographs` lacks an image of the split.
    """
    if photographs is None:
        return None
    known = photographs.set_index("path")
    used = inventory["path"].iloc[[*split.train, *split.validation, *split.test]]
    if missing := sorted(set(used) - set(known.index)):
        raise StudyError(
            f"{PHOTOGRAPHS} lacks {len(missing)} images, such as {missing[0]}: rerun group"
        )
    by_row = known.reindex(inventory["path"]).reset_index()
    in_train = by_row["photograph"].isin(by_row["photograph"][split.train])
    # Where the data names its photographs each image should be of one of them; elsewhere an image
    # that resembles no other is the only one of its photograph.
    lost = ["unknown", "alone"] if (known["method"] == "matched").any() else ["unknown"]
    return SharedPhotographs(
        share=float(in_train[split.test].mean()),
        images=len(split.test),
        not_found=int(by_row["method"][split.test].isin(lost).sum()),
        validation_share=float(in_train[split.validation].mean()) if split.validation else None,
    )
