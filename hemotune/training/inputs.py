"""How images reach a network: in batches, from the device, laid at random. Keras 3 API only."""

import keras
import numpy as np
import numpy.typing as npt

# uint8 (N, size, size, 3), or int32 (N,) where `hold_images` put them on the device
ImageArray = npt.NDArray[np.uint8 | np.int32]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32 | np.int64]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of a memory-mapped array in a given order.

    Args:
        images: only the rows of a batch are read.
        rows: row numbers in the order in which they are taken.
        labels: (N,), or None to give images alone.
        whole: leave out a last batch that is smaller, so that every step has one shape.
    """

    def __init__(
        self,
        images: ImageArray,
        rows: Integers,
        batch_size: int,
        labels: Integers | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.images, self.rows, self.labels = images, rows, labels
        self.batch_size = batch_size
        whole = whole and len(rows) >= batch_size
        self.length = len(rows) // batch_size if whole else -(-len(rows) // batch_size)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[ImageArray] | tuple[ImageArray, Integers]:
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.images[rows]
        return (images,) if self.labels is None else (images, self.labels[rows])


class Held(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """All images in the device's memory: row numbers (batch,) -> uint8 (batch, size, size, 3)."""

    def __init__(self, images: ImageArray) -> None:
        super().__init__(trainable=False)
        self.images = self.add_weight(
            shape=images.shape,
            dtype="uint8",
            trainable=False,
            initializer=lambda shape, dtype: keras.ops.convert_to_tensor(images, dtype),
        )

    def call(self, rows: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.take(self.images, rows, axis=0)


def hold_images(images: ImageArray) -> tuple[keras.Model, ImageArray]:
    """Copy all images into the device's memory once, so that a GPU does not wait for batches.

    Args:
        images: uint8 (N, size, size, 3).

    Returns:
        A model from row numbers (batch,) to images, and the row numbers (N,), which replace the
        images in Batches.
    """
    rows = keras.Input((), dtype="int32", name="row")
    return keras.Model(rows, Held(images)(rows)), np.arange(len(images), dtype="int32")


def taking_rows(source: keras.Model, network: keras.Model) -> keras.Model:
    """Return a model of the same layers that takes row numbers in place of images.

    Args:
        source: what `hold_images` returned.
        network: from images; a compiled one gives one with the same optimizer.
    """
    return compiled_as(network, keras.Model(source.input, network(source.output)))


def with_augmentation(network: keras.Model, turns: bool) -> keras.Model:
    """Return a model of the same layers that changes the images at random before it takes them.

    It is for training alone: the network itself sees images as they are.

    Args:
        network: from images; a compiled one gives one with the same optimizer.
        turns: as in Laid.
    """
    images = keras.Input(network.input_shape[1:], dtype=network.input.dtype, name="image")
    return compiled_as(network, keras.Model(images, network(Laid(turns)(images))))


def compiled_as(network: keras.Model, model: keras.Model) -> keras.Model:
    """Return `model`, compiled with the network's optimizer if that is compiled."""
    if network.compiled:
        model.compile(optimizer=network.optimizer, loss=network.loss, metrics=["accuracy"])
    return model


class Laid(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Images (batch, size, size, channels), each mirrored or not along both axes at random.

    Keras's own layers interpolate or compute in floating point; here each pixel stays what it was.

    Args:
        turns: also transposed or not, which gives all eight ways to lay a square.
    """

    def __init__(self, turns: bool) -> None:
        super().__init__(trainable=False)
        self.turns = turns
        self.seed_generator = keras.random.SeedGenerator(0)  # set anew for every epoch

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        shape = (3, keras.ops.shape(images)[0], 1, 1, 1)
        drawn = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) < 0.5
        images = keras.ops.where(drawn[0], images[:, ::-1], images)
        images = keras.ops.where(drawn[1], images[:, :, ::-1], images)
        if self.turns:
            images = keras.ops.where(drawn[2], keras.ops.transpose(images, (0, 2, 1, 3)), images)
        return images

    def compute_output_spec(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(images.shape, images.dtype)
