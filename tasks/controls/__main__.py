"""Controls without training: what majority class and nearest neighbour score on each split, and
which photographs it shares.

A split in which looking up the nearest training image does as well as a trained network does not
test the network.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.evaluation.leaks import THUMBNAIL, Controls
from hemotune.files import read_json, write_json
from hemotune.progress import Progress

# More images than that are drawn from at random: seconds, not minutes
MOST = {"train": 12_000, "test": 4_000}
BINS = 8  # of the colour histogram, in each of R, G, B


def controls_of(splits, inventory, images, photographs=None):
    """Return for each split every control's accuracy on its test images, given its training images.

    Args:
        splits: list of dicts as in data/splits/PROTOCOL.json.
        inventory: DataFrame, row i describes image i: path, class.
        images: uint8 (N, size, size, 3), may be memory-mapped; each is read once, whatever the
            number of splits.
        photographs: DataFrame with path, photograph and method, or None where photographs are
            unknown.

    Returns:
        dict of protocol to dict: for each of NAMES accuracy (fraction), images (how many were
            tested), train_images (how many were
        looked among); and shared_photographs, see there.

    Raises:
        StudyError: a split is impossible, or the inputs are not of one data set.
    """
    for split in splits:
        check(split, inventory, images)
    looked = [
        tuple(drawn(split[part], MOST[part]) for part in ("train", "test")) for split in splits
    ]
    rows = np.unique(np.concatenate([part for pair in looked for part in pair]))
    features = features_of(images, rows)
    classes = inventory["class"].to_numpy()
    result = {}
    for split, (train, test) in zip(splits, looked, strict=True):
        names, frequency = np.unique(classes[split["train"]].astype(str), return_counts=True)
        right = {"majority_class": classes[test] == names[frequency.argmax()]}
        for control, vectors in features.items():
            found = nearest(
                vectors[np.searchsorted(rows, test)], vectors[np.searchsorted(rows, train)]
            )
            right[control] = classes[train[found]] == classes[test]
        entry = {
            c: {"accuracy": float(np.mean(x)), "images": len(test), "train_images": len(train)}
            for c, x in right.items()
        }
        entry["majority_class"]["train_images"] = len(split["train"])
        result[split["protocol"]] = entry | {
            "shared_photographs": shared_photographs(split, inventory, photographs)
        }
    return result


def check(split, inventory, images):
    """Raise StudyError unless the split's rows exist, none is in both train and test, and neither
    is empty.
    """
    name = f"data/splits/{split['protocol']}.json"
    if len(images) != len(inventory):
        raise StudyError(
            f"data/images.npy has {len(images)} images, data/inventory.parquet {len(inventory)}:"
            " run validate again"
        )
    for part in ("train", "test"):
        rows = np.asarray(split[part])
        if rows.size == 0:
            raise StudyError(
                f"{name}: {part} is empty: there is nothing to compare; run prepare with other"
                " fractions"
            )
        if rows.min() < 0 or rows.max() >= len(inventory):
            raise StudyError(
                f"{name}: {part} has rows outside 0..{len(inventory) - 1}: run prepare again"
            )
    both = np.intersect1d(split["train"], split["test"])
    if both.size:
        raise StudyError(
            f"{name}: {both.size} images are in both train and test, such as row {both[0]}: run"
            " prepare again"
        )


def drawn(rows, most, seed=1):
    """Return `rows`, or `most` of them drawn at random, in order."""
    rows = np.sort(np.asarray(rows))
    return (
        rows
        if len(rows) <= most
        else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    )


def features_of(images, rows):
    """Return nearest_histogram (rows, BINS ** 3) and nearest_thumbnail (rows, THUMBNAIL ** 2 * 3),
    float32.

    Histograms are square roots of shares: their Euclidean distance is Hellinger's. Images are read
    one by one; memory stays flat.
    """
    import cv2

    histograms = np.empty((len(rows), BINS**3), np.float32)
    thumbnails = np.empty((len(rows), THUMBNAIL * THUMBNAIL * 3), np.float32)
    progress = Progress("controls", len(rows), "images")
    for i, row in enumerate(rows):
        image = np.ascontiguousarray(images[row])
        histogram = cv2.calcHist([image], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
        histograms[i] = np.sqrt(histogram.ravel() / histogram.sum())
        thumbnails[i] = cv2.resize(
            image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA
        ).ravel()
        progress.update(i + 1)
    return {"nearest_histogram": histograms, "nearest_thumbnail": thumbnails}


def nearest(queries, references):
    """Return for each row of `queries` (M, D) the nearest row of `references` (N, D) by Euclidean
    distance, (M,); in blocks.
    """
    from sklearn.metrics import pairwise_distances_argmin

    return pairwise_distances_argmin(queries, references)


def shared_photographs(split, inventory, photographs):
    """Return how many test images come from a photograph that training images come from too, or
    None if photographs are unknown.

    Returns:
        dict: share (fraction), images (of the test), not_found (test images whose photograph was
            not found: among these a shared one
        would go unnoticed, so the share is a lower bound), validation_share (the same of the
        validation images; None if there are none).
    """
    if photographs is None:
        return None
    known = photographs.set_index("path")
    missing = sorted(
        set(inventory["path"].iloc[[*split["train"], *split["validation"], *split["test"]]])
        - set(known.index)
    )
    if missing:
        raise StudyError(
            f"data/photographs.parquet lacks {len(missing)} images, such as {missing[0]}: run group"
            " again"
        )
    of, method = (
        known[c].reindex(inventory["path"]).to_numpy(dtype=object) for c in ("photograph", "method")
    )
    share = {
        part: float(np.isin(of[split[part]].astype(str), of[split["train"]].astype(str)).mean())
        for part in parts(split)
    }
    # Where the data names its photographs each image should be of one of them; elsewhere an image
    # that resembles no other is the only one of its photograph.
    lost = ["unknown", "alone"] if (known["method"] == "matched").any() else ["unknown"]
    not_found = int(np.isin(method[split["test"]].astype(str), lost).sum())
    return {
        "share": share["test"],
        "images": len(split["test"]),
        "not_found": not_found,
        "validation_share": share.get("validation"),
    }


def parts(split):
    return [part for part in ("validation", "test") if len(split[part])]


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    splits = sorted(Path("data/splits").glob("*.json"))
    if not splits:
        raise StudyError("data/splits holds no split: run prepare first")
    for path in ("data/inventory.parquet", "data/images.npy"):
        if not Path(path).exists():
            raise StudyError(f"{path} is missing: run validate first")
    inventory = pd.read_parquet("data/inventory.parquet", columns=["path", "class"])
    images = np.load("data/images.npy", mmap_mode="r")
    grouped = Path("data/photographs.parquet")
    photographs = pd.read_parquet(grouped) if grouped.exists() else None
    result = controls_of([read_json(path) for path in splits], inventory, images, photographs)
    for protocol, found in result.items():
        shared = found["shared_photographs"]
        print(
            f"{protocol}: "
            + ", ".join(
                f"{c} {a:.2%}" for c, a in Controls.model_validate(found).accuracies().items()
            ),
            end="; ",
        )
        print(
            (
                f"{shared['share']:.1%} of test images share a photograph with train"
                if shared
                else "photographs unknown"
            ),
            flush=True,
        )
    write_json("data/controls.json", result)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
