"""The study's network: a backbone of keras.applications and a small head. Keras 3 API only."""

import difflib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from hemotune.errors import StudyError


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


def freeze(network: keras.Model, up_to: str, batch_norm: bool) -> None:
    """Keep layers of an assembled network as they are; call this before it is compiled.

    A frozen BatchNormalization normalizes by its averages in training too.

    Args:
        up_to: none; backbone; or the name of the backbone's last layer that is frozen.
        batch_norm: freeze every BatchNormalization.

    Raises:
        StudyError: the backbone has no such layer.
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


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model and of the models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer
