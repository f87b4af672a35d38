"""The initial weights of a backbone: ImageNet's, or pre-trained on drawn cells."""

import hashlib
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import keras
import numpy as np

from hemotune.cells import dataset as cells
from hemotune.errors import StudyError
from hemotune.files import new_file, sha256_of
from hemotune.progress import Progress
from hemotune.training.fit import fit
from hemotune.training.fused_adam import adam
from hemotune.training.model import assemble, build_backbone, constructor

TIMEOUT = 60  # seconds without a byte


def imagenet(name, size, file=None):
    """Return the backbone with ImageNet's weights, through keras.applications, and where they came
    from.

    Args:
        file: a local copy of the weights file that keras.applications would download; verified by
            the same checksum.

    Raises:
        StudyError: no network, a wrong checksum, or a file that is not there or does not hold these
            weights.
    """
    source = {}

    def get_file(fname, origin, cache_subdir="models", file_hash=None, md5_hash=None, **_):
        expected = file_hash or md5_hash
        cached = (
            Path(file)
            if file
            else Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / cache_subdir / fname
        )
        if file and not cached.exists():
            raise StudyError(f"profile: backbone.file: there is no {file}")
        if not cached.exists():
            download(origin, cached, expected)
        elif not has_hash(cached, expected):
            fix = "name the unchanged file" if file else "delete it, then run again"
            raise StudyError(
                f"{cached}: the checksum is not {expected}, keras.applications' own for {name}:"
                f" {fix}"
            )
        source.update(
            path=str(cached),
            weights="imagenet",
            origin=origin,
            checksum=expected,
            sha256=sha256_of(cached),
        )
        return source["path"]

    with mock.patch("keras.src.utils.file_utils.get_file", get_file):
        try:
            model = constructor(name)(
                include_top=False, weights="imagenet", input_shape=(size, size, 3)
            )
        except (OSError, ValueError, KeyError) as error:
            if "path" not in source:
                raise
            fix = (
                "name another in the profile under backbone.file"
                if file
                else "delete it, then run again"
            )
            raise StudyError(
                f"{source['path']}: cannot be opened as {name}'s weights ({error}): {fix}"
            ) from None
    source.pop("path", None)
    return model, source


def download(url, path, expected):
    """Fetch `url` into the file `path`, whole or not at all, with progress and a timeout, and
    compare its hash.

    Raises:
        StudyError: the server cannot be reached, answers with an error, breaks off, or sends
            another file than expected.
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
                raise StudyError(f"{url}: {done} of {total} bytes came: run again")
            if not has_hash(temporary, expected):
                raise StudyError(
                    f"{url}: the checksum is not {expected}: something between here and there"
                    " changed the file"
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise StudyError(
            f"{url}: ImageNet's weights could not be downloaded"
            f" ({getattr(error, 'reason', error)}): connect to the network, or fetch the file"
            " elsewhere and name it in the profile under backbone.file"
        ) from None


def has_hash(path, expected):
    """Say whether a file has the md5 or sha256 `expected`; True when the source publishes none."""
    if not expected:
        return True
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "md5" if len(expected) == 32 else "sha256").hexdigest()
            == expected
        )


def pretrain(name, size, pretrain, on_gpu=False):
    """Return the backbone trained to tell freshly drawn cells apart, and what came of it.

    The head is pooled and thrown away. Residual branches begin at zero; without that 150 steps of
    ResNet50 learn nothing, with it two thirds of unseen cells are told apart. BatchNormalization
    forgets ten times faster than Keras's default while it trains: a few hundred steps would leave
    its averages near their initial values.

    Args:
        pretrain: settings.backbone.Pretrain.
        on_gpu: as for training.fit.
    """
    images, labels = cells.draw_training_set(
        pretrain.images, size, pretrain.seed, pretrain.magnification
    )
    held_back = min(len(images) // 10, 256)
    rows = np.arange(len(images))
    backbone = build_backbone(name, size)
    set_momentum(backbone, 0.9)
    skip_residual_branches(backbone)
    model = assemble(backbone, name, 0, 0, 0.0, len(cells.CLASSES))
    steps = pretrain.epochs * ((len(rows) - held_back) // pretrain.batch_size)
    warm_up = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        pretrain.learning_rate / warm_up,
        max(1, steps - warm_up),
        warmup_target=pretrain.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        optimizer=adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    train, unseen, seed = rows[held_back:], rows[:held_back], pretrain.seed
    history = fit(
        model,
        images,
        labels,
        train,
        unseen,
        pretrain,
        pretrain.learning_rate,
        seed,
        "pre-train",
        on_gpu=on_gpu,
    )
    set_momentum(backbone, 0.99)
    last = history.iloc[-1]
    return backbone, {
        "weights": "pretrain",
        **pretrain.model_dump(),
        "unseen_images": held_back,
        "unseen_accuracy": float(last["validation_accuracy"]),
    }


def set_momentum(backbone, momentum):
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def skip_residual_branches(backbone):
    """Set the last gamma of each residual branch of a ResNet to zero, so that the network begins
    shallow (Goyal et al. 2017).
    """
    for layer in backbone.layers:
        # MobileNet's conv_pw_3_bn is on its only path
        if re.fullmatch(r"conv\d_block\d+_3_bn", layer.name):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
