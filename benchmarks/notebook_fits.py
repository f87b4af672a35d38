"""The notebook's way: fits in series in one process, JPEGs decoded in every epoch, float32.

    python -m benchmarks.notebook_images FOLDER
    python -m benchmarks.notebook_fits FOLDER --size 64 --epochs 4 --fits 2

The seconds of each epoch are printed as JSON, as (epoch, seconds) with the first epoch of each fit
0. Under TensorFlow the images come from keras.utils.image_dataset_from_directory, as in the
notebook. That needs TensorFlow; under JAX Pillow decodes them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from PIL import Image

BATCH = 32


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Records the seconds of each epoch, validation included."""

    def __init__(self, seconds: list[tuple[int, float]]) -> None:
        super().__init__()
        self.seconds = seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append((epoch, time.monotonic() - self.started))


class Decoded(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of image files in random order, each decoded and resized whenever it is used."""

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__()
        classes = sorted(path.name for path in folder.iterdir())
        self.files = [(file, classes.index(file.parent.name)) for file in folder.glob("*/*")]
        self.size, self.random = size, np.random.default_rng(1)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.files) // BATCH)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        chosen = [self.files[row] for row in self.order[index * BATCH : (index + 1) * BATCH]]
        images = np.stack([self.decode(file) for file, _ in chosen])
        prepared: npt.NDArray[np.float32] = keras.applications.resnet50.preprocess_input(images)
        return prepared, np.array([label for _, label in chosen], "int32")

    def decode(self, file: Path) -> npt.NDArray[np.float32]:
        with Image.open(file) as image:
            resized = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(resized, "float32")

    def on_epoch_end(self) -> None:
        self.order = self.random.permutation(len(self.files))


def read_part(folder: Path, size: int) -> object:
    """Return the images of a part as Keras's fit takes them."""
    if keras.backend.backend() != "tensorflow":
        return Decoded(folder, size)
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=BATCH, verbose=False
    )
    prepare = keras.applications.resnet50.preprocess_input
    return batches.map(lambda images, labels: (prepare(images), labels))


def build(size: int) -> keras.Model:
    """Return the notebook's model with one hidden layer of eight units, compiled."""
    backbone = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    head = [
        keras.layers.Flatten(),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(4, "softmax"),
    ]
    model = keras.Sequential([backbone, *head])
    model.compile(
        optimizer=keras.optimizers.Adam(1e-5),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.notebook_fits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fits", type=int, default=2)
    options = parser.parse_args()
    parts = {
        part: read_part(options.folder / part, options.size)
        for part in ("train", "validation", "test")
    }
    seconds: list[tuple[int, float]] = []
    for _ in range(options.fits):
        keras.backend.clear_session()
        model = build(options.size)
        model.fit(
            parts["train"],
            validation_data=parts["validation"],
            epochs=options.epochs,
            verbose=0,
            callbacks=[Clock(seconds)],
        )
        model.evaluate(parts["test"], verbose=0)
    print(json.dumps(seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
