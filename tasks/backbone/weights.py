"""The initial weights of a backbone: ImageNet's, from a file, or pre-trained on drawn cells."""

import hashlib
import os
import re
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import keras
import numpy as np

from hemotune.cells.dataset import draw_training_set
from hemotune.cells.smear import CLASSES
from hemotune.errors import StudyError
from hemotune.files import new_file, sha256_of
from hemotune.progress import Progress
from hemotune.settings.backbone import Pretrain
from hemotune.training.fit import Data, Plan, fit
from hemotune.training.fused_adam import adam
from hemotune.training.model import Design, assemble, build_backbone, constructor, layers_of

TIMEOUT = 60  # seconds without a byte

# Where weights come from: the part of backbone.json that depends on how they were made.
Source = dict[str, str | int | float | None]


@dataclass(frozen=True)
class WeightsFile:
    """A file of ImageNet's weights."""

    path: Path
    origin: str  # the URL from which keras.applications downloads it
    checksum: str | None  # MD5 or SHA-256; None where keras.applications has none


def imagenet(name: str, size: int, local: str | None = None) -> tuple[keras.Model, Source]:
    """Return a backbone with ImageNet's weights as keras.applications loads them, and their source.

    Args:
        local: a copy of the weights file that keras.applications would download; it must have the
            same checksum.

    Raises:
        StudyError: no network, a wrong checksum, or a file that is missing or does not hold these
            weights.
    """
    files: list[WeightsFile] = []

    def get_file(
        fname: str, origin: str, cache_subdir: str = "models", **hashes: str | None
    ) -> str:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        path = Path(local) if local else home / cache_subdir / fname
        checksum = hashes.get("file_hash") or hashes.get("md5_hash")
        files.append(WeightsFile(path, origin, checksum))
        provide(files[0], name, bool(local))
        return str(path)

    # Only the constructors know a file's URL and checksum, and pass them to this function alone.
    # Keras's own replaces a file with a wrong checksum, and uses an incomplete one without any.
    with mock.patch("keras.src.utils.file_utils.get_file", get_file):
        try:
            model = constructor(name)(
                include_top=False, weights="imagenet", input_shape=(size, size, 3)
            )
        except (OSError, ValueError, KeyError) as error:
            if not files:
                raise
            fix = (
                "name another in the profile under backbone.file"
                if local
                else "delete it, then run again"
            )
            raise StudyError(
                f"{files[0].path}: cannot be opened as {name}'s weights ({error}): {fix}"
            ) from None
    return model, {
        "weights": "imagenet",
        "origin": files[0].origin,
        "checksum": files[0].checksum,
        "sha256": sha256_of(files[0].path),
    }


def provide(file: WeightsFile, name: str, is_local: bool) -> None:
    """Download a weights file of the backbone `name` unless it exists, and verify its checksum."""
    if not file.path.exists():
        if is_local:
            raise StudyError(f"profile: backbone.file: there is no {file.path}")
        download(file.origin, file.path, file.checksum)
    elif not has_checksum(file.path, file.checksum):
        fix = "name the unchanged file" if is_local else "delete it, then run again"
        raise StudyError(
            f"{file.path}: the checksum is not {file.checksum}, keras.applications' own for"
            f" {name}: {fix}"
        )


def download(url: str, path: Path, checksum: str | None) -> None:
    """Download a file, with progress and a timeout, and verify its checksum.

    Raises:
        StudyError: the server cannot be reached, answers with an error, closes the connection
            early, or sends another file.
    """
    try:
        with new_file(path) as temporary:
            with (
                urllib.request.urlopen(url, timeout=TIMEOUT) as response,
                open(temporary, "wb") as target,
            ):
                total = int(response.headers.get("Content-Length") or 0)
                progress, done = Progress(f"download {path.name}, kB", total // 1000, "kB"), 0
                while block := response.read(1 << 20):
                    target.write(block)
                    done += len(block)
                    progress.update(done // 1000)
            if total and done != total:
                raise StudyError(f"{url}: received {done} of {total} bytes: run again")
            if not has_checksum(temporary, checksum):
                raise StudyError(
                    f"{url}: the checksum is not {checksum}: the file was changed on the way here"
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise StudyError(
            f"{url}: ImageNet's weights could not be downloaded"
            f" ({getattr(error, 'reason', error)}): connect to the network, or download the file"
            " elsewhere and name it in the profile under backbone.file"
        ) from None


def has_checksum(path: Path, checksum: str | None) -> bool:
    """Return whether a file has this MD5 or SHA-256; True if there is none to compare with."""
    if not checksum:
        return True
    algorithm = "md5" if len(checksum) == 32 else "sha256"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == checksum


def from_file(name: str, size: int, path: Path) -> tuple[keras.Model, Source]:
    """Return a backbone with the weights of a user's file, and their source.

    Args:
        path: a `.weights.h5` file of the backbone, or a `.keras` file of it or of a model that
            contains it, such as data/models/KEY/model.keras.

    Raises:
        StudyError: there is no such file, it cannot be read, or it is of another backbone.
    """
    if not path.is_file():
        raise StudyError(f"profile: backbone.weights: there is no file {path}; correct the path")
    backbone = build_backbone(name, size)
    try:
        with warnings.catch_warnings():  # what is missing is an error here, below
            warnings.simplefilter("ignore")
            if path.suffix == ".keras":
                copy_weights(keras.models.load_model(path, compile=False), backbone)
            else:
                load_weights(path, backbone)
    # What Keras and HDF5 raise depends on where the file differs.
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StudyError(
            f"{path}: does not hold weights of {name} ({reason[:200]}); name a file of {name} in"
            " the profile under backbone.weights, or change backbones in params.yaml"
        ) from None
    return backbone, {"weights": str(path), "sha256": sha256_of(path)}


def load_weights(path: Path, backbone: keras.Model) -> None:
    """Load a `.weights.h5` file; Keras leaves a layer as it is where the file lacks it.

    Raises:
        ValueError: a layer is missing, or has weights of other shapes.
    """
    kernels = [weight for weight in backbone.weights if len(weight.shape) > 1]
    for kernel in kernels:
        kernel.assign(np.zeros(kernel.shape))
    backbone.load_weights(path)
    for kernel in kernels:
        if not np.asarray(kernel).any():
            raise ValueError(f"it has no {kernel.path}")


def copy_weights(model: keras.Model, backbone: keras.Model) -> None:
    """Give a backbone the weights of the layers of the same names, in a model or nested in it.

    Raises:
        ValueError: a layer is missing, or has weights of other shapes.
    """
    found = {layer.name: layer for layer in layers_of(model)}
    for layer in backbone.layers:
        if not layer.weights:
            continue
        if layer.name not in found:
            raise ValueError(f"it has no layer {layer.name}")
        layer.set_weights(found[layer.name].get_weights())


def pretrain(
    name: str, size: int, settings: Pretrain, hold_images: bool = False
) -> tuple[keras.Model, Source]:
    """Return a backbone trained to distinguish drawn cells, and how it was trained.

    The head is pooled and not kept. Residual branches begin at zero: without that ResNet50 learns
    nothing in 150 steps, with it two thirds of unseen cells are recognized. While it trains,
    BatchNormalization forgets ten times faster than Keras's default: a few hundred steps would
    leave its averages near their initial values.

    Args:
        hold_images: as in Plan.
    """
    images, labels = draw_training_set(settings.images, size, settings.seed, settings.magnification)
    backbone = build_backbone(name, size)
    set_momentum(backbone, 0.9)
    skip_residual_branches(backbone)
    model = assemble(backbone, Design(name, size, len(CLASSES)))
    rows, held_back = np.arange(len(images)), min(len(images) // 10, 256)
    data = Data(images, labels, train=rows[held_back:], validation=rows[:held_back])
    steps = settings.epochs * (len(data.train) // settings.batch_size)
    warm_up = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / warm_up,
        max(1, steps - warm_up),
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        optimizer=adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    plan = Plan(
        "pre-train",
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.seed,
        hold_images,
    )
    history = fit(model, data, plan).course.history
    set_momentum(backbone, 0.99)
    return backbone, {
        "weights": "pretrain",
        **settings.model_dump(),
        "unseen_images": held_back,
        "unseen_accuracy": history[-1].validation_accuracy,
    }


def set_momentum(backbone: keras.Model, momentum: float) -> None:
    """Set how slowly every BatchNormalization forgets earlier batches."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def skip_residual_branches(backbone: keras.Model) -> None:
    """Set the last gamma of each residual branch of a ResNet to zero.

    The network then begins shallow (Goyal et al. 2017).
    """
    for layer in backbone.layers:
        # MobileNet's conv_pw_3_bn is on its only path
        if re.fullmatch(r"conv\d_block\d+_3_bn", layer.name):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
