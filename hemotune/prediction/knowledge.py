"""What is known of a trained model besides its weights: how sure its answers are, and which images
it has been trained on. Loads no Keras.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from hemotune.errors import StudyError
from hemotune.evaluation.calibration import Calibration, calibrate
from hemotune.evaluation.predictions import judge
from hemotune.files import read_json, write_json
from hemotune.paths import INVENTORY, MODELS, PHOTOGRAPHS, RESULTS, SPLITS
from hemotune.settings.study import Words
from hemotune.splits import ImageSplit, read_split
from hemotune.training.records import Metrics

Floats = NDArray[np.float32]

# Of the validation images, the share that is nearer to a training image than what is called far
NEAR = 0.99
NEIGHBOURS = 3  # nearest training images that are named
# Names in the folder of a model
MODEL, RECIPE, FEATURES = "model.keras", "model.json", "features.npy"
USE, TRAINING_IMAGES = "use.json", "training_images.csv"


class Range(BaseModel):
    model_config = ConfigDict(frozen=True)

    low: float
    high: float


class Use(BaseModel):
    """What use.json holds beside a model."""

    model_config = ConfigDict(frozen=True)

    key: str  # EXPERIMENT-BACKBONE-TRAINING
    protocol: str
    unit: str  # the word for what images of one source have in common: photograph, patient
    units: str
    calibration: Calibration
    # Of the training images
    modes: list[str]
    pixels: Range  # width times height
    aspect: Range  # width by height
    brightness: Range  # mean grey level, 0 to 255
    # Distance of features beyond which an image is unlike the training images
    farthest: float
    unsound: list[str] = []  # why the report calls the training unsound, a clause each


@dataclass(frozen=True)
class Knowledge:
    use: Use
    paths: NDArray[np.object_]  # (n,) of the training images, as in the inventory
    features: Floats  # (n, FEATURES), of length 1


def gather(
    key: str, words: Words, root: Path = Path("."), unsound: Sequence[str] = ()
) -> Knowledge:
    """Return what the results of a training say about its model.

    Args:
        key: EXPERIMENT-BACKBONE-TRAINING.
        root: the repository's top folder.
        unsound: why the training is unsound, a clause each.

    Raises:
        StudyError: the model or its results are missing, or do not fit together.
    """
    results, model = RESULTS / key, MODELS / key
    for path in (model / FEATURES, results / "metrics.json", results / "predictions.parquet"):
        if not (root / path).exists():
            raise StudyError(f"{path} is missing: run `dvc checkout` or `dvc repro finetune@{key}`")
    metrics = Metrics.model_validate(read_json(root / results / "metrics.json"))
    split = read_split(root / SPLITS / f"{metrics.protocol}-{metrics.repeat}.json")
    inventory = pd.read_parquet(root / INVENTORY)
    grouped = root / PHOTOGRAPHS
    predictions = pd.read_parquet(root / results / "predictions.parquet")
    validation = judge(
        predictions,
        "validation",
        inventory["path"].iloc[split.validation],
        pd.read_parquet(grouped) if grouped.exists() else None,
    )
    train = inventory.iloc[split.train]
    near, others = features_of(root / model / FEATURES, split)
    aspect = train["width"] / train["height"]
    use = Use(
        key=key,
        protocol=metrics.protocol,
        unit=words.unit,
        units=words.plural,
        calibration=calibrate(validation, shared=metrics.protocol == "random"),
        modes=sorted(train["mode"].unique()),
        pixels=range_of(train["width"].astype(np.int64) * train["height"]),
        aspect=range_of(aspect),
        brightness=range_of(train["brightness"]),
        farthest=float(np.quantile(nearest(others, near, 1)[1][:, 0], NEAR, method="higher")),
        unsound=list(unsound),
    )
    return Knowledge(use, train["path"].to_numpy(object), near)


def range_of(values: "pd.Series[float]") -> Range:
    return Range(low=float(values.min()), high=float(values.max()))


def features_of(path: Path, split: ImageSplit) -> tuple[Floats, Floats]:
    """Return the features of the training images and those of the validation images.

    Raises:
        StudyError: the file is of another split.
    """
    features = np.load(path).astype(np.float32)
    if len(features) != len(split.train) + len(split.validation):
        raise StudyError(
            f"{path}: has {len(features)} images, and the split"
            f" {len(split.train) + len(split.validation)}: run `dvc repro`"
        )
    return features[: len(split.train)], features[len(split.train) :]


def nearest(
    queries: Floats, references: Floats, number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest references of each query and their distances, nearest first.

    Args:
        queries: (n, FEATURES), of length 1.
        references: (m, FEATURES), of length 1.
        number: how many of them; all, if there are fewer.

    Returns:
        Their places and their Euclidean distances (0 to 2), both (n, number).
    """
    places, distances = [], []
    number = min(number, len(references))
    for start in range(0, len(queries), 256):  # memory does not grow with the queries
        likeness = queries[start : start + 256] @ references.T
        found = np.argpartition(-likeness, number - 1, axis=1)[:, :number]
        order = np.argsort(-np.take_along_axis(likeness, found, axis=1), axis=1, kind="stable")
        found = np.take_along_axis(found, order, axis=1)
        like = np.take_along_axis(likeness, found, axis=1).astype(np.float64)
        places.append(found)
        distances.append(np.sqrt(np.maximum(2 - 2 * like, 0)))
    return np.concatenate(places), np.concatenate(distances)


def write(knowledge: Knowledge, folder: Path) -> None:
    """Write what is known of a model beside it."""
    write_json(folder / USE, knowledge.use.model_dump())
    paths = pd.DataFrame({"path": knowledge.paths})
    paths.to_csv(folder / TRAINING_IMAGES, index=False, lineterminator="\n")
    np.save(folder / FEATURES, knowledge.features.astype(np.float16))


def read(folder: Path) -> Knowledge:
    """Return what `write` wrote into a folder.

    Raises:
        StudyError: a file is damaged, or of another version.
    """
    try:
        use = Use.model_validate(read_json(folder / USE))
        paths = pd.read_csv(folder / TRAINING_IMAGES, dtype=str)["path"].to_numpy(object)
        features = np.load(folder / FEATURES).astype(np.float32)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{folder}: cannot be read ({reason}): run `dvc repro report`") from None
    return Knowledge(use, paths, features)
