"""The network of the study: a backbone of keras.applications, flattened, and a small head. Keras 3
API only.
"""

import sys

import keras
import numpy as np

from hemotune.errors import StudyError


def constructor(name):
    """Return keras.applications' constructor called `name`, such as ResNet50 or MobileNet.

    Raises:
        StudyError: there is no such backbone.
    """
    known = {
        key: value
        for key, value in vars(keras.applications).items()
        if callable(value) and key[0].isupper()
    }
    if name not in known:
        raise StudyError(
            f"params.yaml: backbones: '{name}' is not in keras.applications; there is:"
            f" {', '.join(sorted(known))}"
        )
    return known[name]


def channel_affine(name):
    """Return (flip, scale, offset) so that `(x[..., ::-1] if flip else x) * scale + offset` is the
    backbone's preprocess_input.

    Every preprocess_input of keras.applications is affine in each channel, with or without a swap
    of red and blue. Probing it with black and with red gives the three; as built-in layers they
    make model.keras load without this project's code.

    Returns:
        flip: bool; scale, offset: lists of three floats, by output channel.
    """
    # Where the constructor is defined: the public modules do not hold all of them.
    module = sys.modules[constructor(name).__module__]
    black, white, red = np.zeros((3, 1, 1, 1, 3), "float32")
    white += 255.0
    red[..., 0] = 255.0
    offset, top, probe = (
        np.asarray(module.preprocess_input(x.copy()), "float64").reshape(3)
        for x in (black, white, red)
    )
    scale = (top - offset) / 255.0
    return bool(probe[0] == offset[0]), scale.tolist(), offset.tolist()


def build_backbone(name, size):
    """Return the backbone without its classifier and with fresh weights: (batch, size, size, 3)
    float -> feature maps.

    Raises:
        StudyError: there is no such backbone, or it does not take images as small as `size` px.
    """
    try:
        return constructor(name)(include_top=False, weights=None, input_shape=(size, size, 3))
    except ValueError as error:
        raise StudyError(f"profile: images.size: {name} does not take {size} px: {error}") from None


def assemble(backbone, name, layers, units, dropout, classes):
    """Join a backbone and the study's head: `ResNet50 - F - D(units) x layers`, each hidden layer
    followed by dropout, softmax.

    Args:
        backbone: what `build_backbone` returned; its weights are shared, not copied.
        name: the backbone's name, for its preprocessing.
        layers, units: hidden layers of the head and units in each; 0 layers pool the feature maps
            instead of flattening them.
        classes: number of classes.

    Returns:
        A model from (batch, size, size, 3) uint8 to (batch, classes) float32 probabilities.
    """
    flip, scale, offset = channel_affine(name)
    inputs = keras.Input(backbone.input_shape[1:], dtype="uint8", name="image")
    x = inputs[..., ::-1] if flip else inputs
    x = keras.layers.Rescaling(scale, offset, name="preprocess")(x)
    x = backbone(x)
    x = keras.layers.Flatten()(x) if layers else keras.layers.GlobalAveragePooling2D()(x)
    for layer in range(1, layers + 1):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{layer}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{layer}")(x)
    # Probabilities in float32 whatever the precision of the rest: the loss is computed from them.
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="classes")(x)
    return keras.Model(inputs, outputs)


class Batches(keras.utils.PyDataset):
    """Batches of a memory-mapped array in a given order.

    Args:
        images: uint8 (N, size, size, 3); only the rows of a batch are read.
        rows: row numbers in the order in which they are taken.
        labels: int (N,), or None to give images alone.
        whole: leave out a last batch that is smaller, so that every step has one shape.
    """

    def __init__(self, images, rows, batch_size, labels=None, whole=False):
        super().__init__()
        self.images, self.rows, self.labels, self.batch_size = (
            images,
            np.asarray(rows),
            labels,
            batch_size,
        )
        self.length = (
            len(rows) // batch_size
            if whole and len(rows) >= batch_size
            else -(-len(rows) // batch_size)
        )

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.images[rows]
        return (images,) if self.labels is None else (images, self.labels[rows])


class Held(keras.layers.Layer):
    """All images in the device's memory: row numbers (batch,) -> uint8 (batch, size, size, 3)."""

    def __init__(self, images):
        super().__init__(trainable=False)
        self.images = self.add_weight(
            shape=images.shape,
            dtype="uint8",
            trainable=False,
            initializer=lambda shape, dtype: keras.ops.convert_to_tensor(images, dtype),
        )

    def call(self, rows):
        return keras.ops.take(self.images, rows, axis=0)


def hold_images(network, images):
    """Put all images into the device's memory once, so that a GPU waits for none of them.

    Args:
        network: compiled, from uint8 images to class probabilities.
        images: uint8 (N, size, size, 3).

    Returns:
        A compiled model of the same layers and optimizer that takes row numbers for images, and
        int32 (N,), which stands for the images wherever their rows are taken for it.
    """
    rows = keras.Input((), dtype="int32", name="row")
    model = keras.Model(rows, network(Held(images)(rows)))
    model.compile(optimizer=network.optimizer, loss=network.loss, metrics=["accuracy"])
    return model, np.arange(len(images), dtype="int32")


def predict(model, images, rows, batch_size):
    """Return the class probabilities of the images in `rows`: float32 (len(rows), classes)."""
    # Filled up to whole batches: a last one of another size would be traced anew, which takes
    # longer than it.
    filled = np.resize(rows, -(-len(rows) // batch_size) * batch_size)
    return np.asarray(model.predict(Batches(images, filled, batch_size), verbose=0), "float32")[
        : len(rows)
    ]


def score(probabilities, labels):
    """Return (cross-entropy, accuracy) of probabilities (n, classes) against int labels (n,), as
    Keras computes them.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    loss = -np.log(np.clip(chosen, 1e-7, 1.0)).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())
