"""The command `hemotune predict`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hemotune.errors import StudyError
from hemotune.files import read_json
from hemotune.images import start_decoding
from hemotune.paths import BEST, MODELS
from hemotune.prediction import knowledge
from hemotune.prediction.answers import answers_for
from hemotune.prediction.knowledge import MODEL, RECIPE, USE, Knowledge
from hemotune.prediction.output import Format, Writer
from hemotune.prediction.pictures import Picture, batches, sources_of
from hemotune.progress import Progress
from hemotune.settings.images import Images
from hemotune.settings.profile import Profile
from hemotune.settings.reading import read_profile

if TYPE_CHECKING:
    from hemotune.prediction.network import Network

BATCH = 64  # images that the network takes at a time
READ = 4 * BATCH  # images that are read at a time, at most
UNREADABLE = 3  # exit status if some of the files could not be read


@dataclass(frozen=True)
class Chosen:
    """The model to use."""

    file: Path
    classes: list[str]
    images: Images
    known: Knowledge | None


def predict(target: str, model: str | None, form: Format, explain: Path | None) -> int:
    """Predict the class of images, and print an answer for each.

    Args:
        target: an image, a folder or `-`.
        model: the key of a training, or a file; None for data/models/best.
        explain: folder for heat maps.

    Returns:
        The exit status: UNREADABLE if some files could not be read.

    Raises:
        StudyError: there is nothing to predict, or no such model.
    """
    sources = sources_of(target)
    if explain and explain.exists() and not explain.is_dir():
        raise StudyError(f"{explain}: is no folder: name another for --explain")
    chosen = choose(model)
    tell(chosen)
    # Only now: it takes seconds.
    from hemotune.prediction.network import load

    network = load(chosen.file, chosen.classes, chosen.images.size)
    start_decoding()
    writer, failed = Writer(form, chosen.classes), 0
    progress = Progress("predict", len(sources), "images", sys.stderr)
    done, batch_size = 0, min(BATCH, len(sources))
    for pictures in batches(sources, chosen.images, READ):
        failed += answer(pictures, network, chosen, writer, batch_size, explain)
        done += len(pictures)
        if len(sources) > 1:
            progress.update(done)
    if failed and len(sources) > 1:
        print(f"{failed} of {len(sources)} files could not be read", file=sys.stderr)
    return UNREADABLE if failed else 0


def answer(
    pictures: Sequence[Picture],
    network: "Network",
    chosen: Chosen,
    writer: Writer,
    batch_size: int,
    explain: Path | None,
) -> int:
    """Predict some images and write their answers; return how many could not be read."""
    readable = [picture for picture in pictures if picture.pixels is not None]
    pixels = np.array([picture.pixels for picture in readable], np.uint8)
    width = len(chosen.classes)
    probabilities, features = np.zeros((0, width), np.float32), np.zeros((0, 0), np.float32)
    if readable:
        seen = network.see(pixels, batch_size)
        probabilities, features = seen.probabilities, seen.features
    for one in answers_for(pictures, probabilities, features, chosen.classes, chosen.known):
        writer.write(one)
    if explain:
        draw(readable, pixels, probabilities.argmax(axis=1), network, batch_size, explain)
    return len(pictures) - len(readable)


def draw(
    readable: Sequence[Picture],
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    network: "Network",
    batch_size: int,
    folder: Path,
) -> None:
    """Write a heat map of each image below `folder`, under the image's name."""
    from hemotune.prediction.explanation import heat_of, write_picture

    for picture, image, label in zip(readable, pixels, labels.tolist(), strict=True):
        heat = heat_of(network, image, label, BATCH)
        name = picture.name if not Path(picture.name).is_absolute() else Path(picture.name).name
        write_picture(folder / f"{name}.png", image, heat)


def choose(model: str | None) -> Chosen:
    """Return the model that a user names.

    Raises:
        StudyError: there is no such model, or something beside it is missing.
    """
    file = file_of(model)
    recipe = file.with_name(RECIPE)
    if not recipe.exists():
        raise StudyError(f"{recipe} is missing: copy it from where the model was")
    about = read_json(recipe)
    try:
        size, fit = about["image"]["size"][0], about["image"].get("fit", "squeeze")
        images, classes = Images(size=size, fit=fit), [str(name) for name in about["classes"]]
    except (KeyError, TypeError, IndexError, ValueError):
        raise StudyError(
            f"{recipe}: lacks classes or the size of images: copy the file of the study again"
        ) from None
    return Chosen(file, classes, images, known_of(file.parent))


def file_of(model: str | None) -> Path:
    """Return the file of the model that a user names."""
    if model is None:
        if not (BEST / MODEL).exists():
            raise StudyError(
                f"{BEST} is missing: run `hemotune run`, fetch it with `dvc pull`, or name a model"
                " by --model"
            )
        return BEST / MODEL
    path = Path(model)
    if path.suffix == ".h5":
        raise StudyError(
            f"{path}: holds weights alone: name a model.keras, or the key of a training"
        )
    for file in (path, path / MODEL, MODELS / model / MODEL):
        if file.is_file():
            return file
    keys = sorted(file.parent.name for file in MODELS.glob(f"*/{MODEL}"))
    there_is = f"; there is: {', '.join(keys)}" if keys else ""
    raise StudyError(f"--model {model}: no such file, and no such folder in {MODELS}{there_is}")


def known_of(folder: Path) -> Knowledge | None:
    """Return what is known of the model in `folder`: what lies beside it, or what the results of
    its training say.
    """
    if (folder / USE).exists():
        return knowledge.read(folder)
    if folder.parent == MODELS:
        profile: Profile = read_profile("", Profile)
        return knowledge.gather(folder.name, profile.study)
    return None


def tell(chosen: Chosen) -> None:
    """Say which model it is, and what cannot be said of its answers, on standard error."""
    from hemotune.evaluation.calibration import LEVEL, why_no_sets

    if not chosen.known:
        print(
            f"{chosen.file}: nothing is known of its training: the probabilities are not"
            " calibrated, and there are no sets",
            file=sys.stderr,
        )
        return
    use = chosen.known.use
    print(f"model {use.key}, temperature {use.calibration.temperature:.2f}", file=sys.stderr)
    if use.unsound:
        print(f"its training is unsound: {'; '.join(use.unsound)}", file=sys.stderr)
    if reason := why_no_sets(use.calibration, use.unit, use.units):
        print(f"no sets that hold the truth: {reason}", file=sys.stderr)
    else:
        print(f"sets hold the truth for {LEVEL:.0%} of images of new {use.units}", file=sys.stderr)
