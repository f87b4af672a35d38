"""The study's network: a backbone of keras.applications and a small head. Keras 3 API only."""

import difflib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from hemotune.errors import StudyError

# uint8 (N, size, size, 3), or int32 (N,) where `hold_images` put them on the device
ImageArray = npt.NDArray[np.uint8 | np.int32]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32 | np.int64]

# Evaluation keeps no activations for a backward pass, so larger batches fit.
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Design:
    """What a network looks like: `ResNet50 - F - D(units) x layers`, or with A in place of F."""

    backbone: str  # its name in keras.applications
    size: int  # px, of the square images
    classes: int
    layers: int = 0  # hidden ones; with none the feature maps are averaged
    units: int = 0  # in each hidden layer
    dropout: float = 0.0  # after each hidden layer
    # F hands every value of the feature maps on; A, "average", the average of each map
    head: str = "flatten"


def constructor(name: str) -> Callable[..., keras.Model]:
    """Return keras.applications' constructor `name`, such as ResNet50 or MobileNet.

    Raises:
        StudyError: there is no such backbone.
    """
    known: dict[str, Callable[..., keras.Model]] = {
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


def channel_affine(name: str) -> tuple[bool, list[float], list[float]]:
    """Return a backbone's preprocess_input as (flip, scale, offset).

    Every preprocess_input of keras.applications is affine in each channel, with or without a swap
    of red and blue: `(x[..., ::-1] if flip else x) * scale + offset`. Its values for black, white
    and red give the three. As built-in layers they let model.keras load without this project's
    code.

    Returns:
        flip; scale and offset of the three output channels.
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


def build_backbone(name: str, size: int) -> keras.Model:
    """Return a backbone without its classifier and with fresh weights.

    Returns:
        A model from (batch, size, size, 3) float to feature maps.

    Raises:
        StudyError: there is no such backbone, or it does not take images as small as `size` px.
    """
    try:
        return constructor(name)(include_top=False, weights=None, input_shape=(size, size, 3))
    except ValueError as error:
        raise StudyError(f"profile: images.size: {name} does not take {size} px: {error}") from None


def assemble(backbone: keras.Model, design: Design) -> keras.Model:
    """Join a backbone and a head.

    Args:
        backbone: what `build_backbone` returned for the design; its weights are shared, not copied.

    Returns:
        A model from (batch, size, size, 3) uint8 to (batch, classes) float32 probabilities.
    """
    flip, scale, offset = channel_affine(design.backbone)
    inputs = keras.Input(backbone.input_shape[1:], dtype="uint8", name="image")
    x = inputs[..., ::-1] if flip else inputs
    x = keras.layers.Rescaling(scale, offset, name="preprocess")(x)
    x = backbone(x)
    flat = design.layers and design.head == "flatten"
    x = (keras.layers.Flatten() if flat else keras.layers.GlobalAveragePooling2D())(x)
    for layer in range(1, design.layers + 1):
        x = keras.layers.Dense(design.units, activation="relu", name=f"hidden_{layer}")(x)
        x = keras.layers.Dropout(design.dropout, name=f"dropout_{layer}")(x)
    # Probabilities in float32 whatever the precision of the rest: the loss is computed from them.
    outputs = keras.layers.Dense(
        design.classes, activation="softmax", dtype="float32", name="classes"
    )(x)
    return keras.Model(inputs, outputs)


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


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model and of the models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def freeze(network: keras.Model, up_to: str, batch_norm: bool) -> None:
    """Keep layers of an assembled network as they are; call this before it is compiled.

    A frozen BatchNormalization normalizes by its averages in training too.

    Args:
        up_to: none; backbone; or the name of the backbone's last layer that is frozen.
        batch_norm: freeze every BatchNormalization.

    Raises:
        StudyError: the backbone has no such layer; the message begins with its name.
    """
    (backbone,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    names = ["none", *(layer.name for layer in backbone.layers), "backbone"]
    if up_to not in names:
        near = difflib.get_close_matches(up_to, names, n=4, cutoff=0.0)
        raise StudyError(
            f"the backbone has no layer '{up_to}': name one of its layers, such as"
            f" {', '.join(near)}, or none or backbone"
        )
    for number, layer in enumerate(backbone.layers, start=1):
        frozen = number <= names.index(up_to)
        if frozen or (batch_norm and isinstance(layer, keras.layers.BatchNormalization)):
            layer.trainable = False


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


def hidden_layers(network: keras.Model) -> list[keras.layers.Dense]:
    """Return the hidden layers of the head: all dense ones but the last."""
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][:-1]


@dataclass(frozen=True)
class Seen:
    """What a network makes of n images, without dropout."""

    hidden: list[Floats]  # of each hidden layer: (n, units)
    probabilities: Floats  # (n, classes)

    @property
    def predicted(self) -> Integers:
        """The class of each image: (n,)."""
        predicted: Integers = self.probabilities.argmax(axis=1)
        return predicted


@dataclass(frozen=True)
class Observer:
    """All that looks at a network's outputs does so here: another model would be traced anew."""

    model: keras.Model  # to the activations of each hidden layer and the probabilities
    images: ImageArray

    @classmethod
    def of(
        cls, network: keras.Model, images: ImageArray, source: keras.Model | None = None
    ) -> "Observer":
        """Return an observer of a network's variables, whatever values they will have.

        Args:
            source: what `hold_images` returned, with its row numbers as `images`.
        """
        outputs = [*(layer.output for layer in hidden_layers(network)), network.output]
        model = keras.Model(network.input, outputs)
        return cls(taking_rows(source, model) if source else model, images)

    def see(self, rows: Integers, batch_size: int = EVALUATION_BATCH) -> Seen:
        """Show the images in `rows` to the network."""
        # Filled up to whole batches: a smaller last one would be traced anew, which takes longer.
        filled = rows[np.arange(-(-len(rows) // batch_size) * batch_size) % len(rows)]
        outputs = self.model.predict(Batches(self.images, filled, batch_size), verbose=0)
        # Keras returns the output alone where there is only one.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        *hidden, probabilities = (np.asarray(x, "float32")[: len(rows)] for x in outputs)
        return Seen(hidden, probabilities)


def score(probabilities: Floats, labels: Integers) -> tuple[float, float]:
    """Return (cross-entropy, accuracy) as Keras computes them.

    Args:
        probabilities: (n, classes).
        labels: (n,).
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype("float64")
    loss = -np.log(np.clip(of_truth, 1e-7, 1.0)).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())
