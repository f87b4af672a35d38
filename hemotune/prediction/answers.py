"""From what a network makes of images to answers: probabilities, sets, warnings, neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemotune.evaluation.calibration import rescale, sets
from hemotune.prediction.knowledge import NEIGHBOURS, Knowledge, Range, Use, nearest
from hemotune.prediction.pictures import Picture

Floats = NDArray[np.float32]

# How far an image may lie beyond the training images: as a factor of width times height, of width
# by height; in grey levels.
PIXELS, ASPECT, BRIGHTNESS = 2.0, 1.1, 10.0


@dataclass(frozen=True)
class Answer:
    """The answer for one image; of a file that cannot be read, its name and the error alone."""

    image: str
    error: str | None = None
    prediction: str | None = None  # class
    probability: float | None = None  # of the prediction, calibrated where that is known
    set: Sequence[str] | None = None  # the classes that may be true; None: there are no sets
    unsure: bool | None = None  # whether the set is not one class
    warnings: Sequence[str] = ()  # in what the image is unlike the training images
    nearest: Sequence[str] = ()  # training images, the nearest first
    probabilities: dict[str, float] | None = None  # by class, calibrated where that is known
    uncalibrated: dict[str, float] | None = None  # by class, as the network gives them


def answers_for(
    pictures: Sequence[Picture],
    probabilities: Floats,
    features: Floats,
    classes: Sequence[str],
    knowledge: Knowledge | None,
) -> Iterator[Answer]:
    """Yield the answer for each picture, in order.

    Args:
        probabilities: (readable pictures, classes), as the network gives them.
        features: (readable pictures, FEATURES), of length 1.
        knowledge: what is known of the model, if anything.
    """
    calibration = knowledge.use.calibration if knowledge else None
    calibrated = rescale(probabilities, calibration.temperature if calibration else 1.0)
    least = calibration.threshold if calibration else None
    chosen = None if least is None else sets(calibrated, least)
    places = distances = None
    if knowledge and len(features):
        places, distances = nearest(features, knowledge.features, NEIGHBOURS)
    row = -1
    for picture in pictures:
        if picture.error:
            yield Answer(picture.name, picture.error)
            continue
        row += 1
        best = int(calibrated[row].argmax())
        members = None
        if chosen is not None:
            members = [name for name, held in zip(classes, chosen[row], strict=True) if held]
        warnings, names = [], []
        if knowledge and places is not None and distances is not None:
            warnings = unlike(picture, float(distances[row, 0]), knowledge.use)
            names = [str(knowledge.paths[place]) for place in places[row]]
        yield Answer(
            picture.name,
            prediction=classes[best],
            probability=float(calibrated[row, best]),
            set=members,
            unsure=None if members is None else len(members) != 1,
            warnings=warnings,
            nearest=names,
            probabilities=by_class(classes, calibrated[row]),
            uncalibrated=by_class(classes, probabilities[row]),
        )


def by_class(classes: Sequence[str], values: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip(classes, map(float, values), strict=True))


def unlike(picture: Picture, distance: float, use: Use) -> list[str]:
    """Return in what a picture is unlike the training images, as clauses.

    Args:
        distance: of its features to those of the nearest training image.
    """
    facts, found = picture.facts, []
    if facts.mode not in use.modes:
        found.append(f"mode {facts.mode} (training: {', '.join(use.modes)})")
    width, height = facts.width or 1, facts.height or 1
    if beyond(width * height, use.pixels, PIXELS):
        sides = " to ".join(f"{value:,.0f}" for value in ends(use.pixels))
        found.append(f"size {width} x {height} (training: {sides} pixels)")
    if beyond(width / height, use.aspect, ASPECT):
        ratios = " to ".join(f"{value:.2f}" for value in ends(use.aspect))
        found.append(f"width by height {width / height:.2f} (training: {ratios})")
    level, known = picture.brightness or 0.0, use.brightness
    if not known.low - BRIGHTNESS <= level <= known.high + BRIGHTNESS:
        levels = " to ".join(f"{value:.0f}" for value in ends(known))
        found.append(f"brightness {level:.0f} of 255 (training: {levels})")
    if distance > use.farthest:
        found.append(
            f"farther from every training image ({distance:.2f}) than 99 % of the validation"
            f" images ({use.farthest:.2f})"
        )
    return found


def beyond(value: float, known: Range, factor: float) -> bool:
    """Return whether a value lies beyond a range, by more than a factor."""
    return not known.low / factor <= value <= known.high * factor


def ends(known: Range) -> tuple[float, ...]:
    """Return both ends of a range, or one where they are the same."""
    return (known.low,) if known.low == known.high else (known.low, known.high)
