"""Where in an image a network sees the class that it predicts. Keras 3 API only.

Up to OCCLUDED px a part of the image is covered in turn (Zeiler & Fergus 2014, "Visualizing and
understanding convolutional networks"): there the last feature maps have a handful of cells. Beyond,
Grad-CAM (Selvaraju et al. 2017) takes one pass through the network.
"""

from pathlib import Path

import keras
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemotune.files import new_file
from hemotune.prediction.network import Network
from hemotune.training.observer import feature_maps, hidden_layers

Heat = NDArray[np.float64]  # (size, size), 0 to 1; all 0 where no pixel matters
Pixels = NDArray[np.uint8]  # (size, size, 3)

OCCLUDED = 127  # px; the largest image that is covered part by part
COVERED = 5  # the side of an image by the side of what is covered at a time
SMALLEST = 1e-30  # probability
SHOWN = 256  # px, the least side of a picture that is written


def heat_of(network: Network, image: Pixels, label: int, batch_size: int) -> Heat:
    """Return how much each pixel decides about the class `label`, by the method for this size.

    It is what speaks for the class, or, where that is stronger, what speaks against it: a class may
    be predicted because nothing speaks for another.
    """
    if len(image) <= OCCLUDED:
        return occlusion(network, image, label, batch_size)
    return grad_cam(network.model, image, label)


def occlusion(network: Network, image: Pixels, label: int, batch_size: int) -> Heat:
    """Return by how much the log-odds of the class change where a pixel is covered.

    Squares of the image's mean colour cover it, half a side apart; a pixel's heat is the mean over
    those that cover it.
    """
    size = len(image)
    side = max(4, size // COVERED)
    places = range(-(side // 2), size - side // 2, side // 2)
    colour = image.mean(axis=(0, 1)).astype(np.uint8)
    windows = [
        (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
        for top in places
        for left in places
    ]
    covered = np.repeat(image[None], len(windows) + 1, axis=0)
    for copy, window in zip(covered, windows, strict=False):  # the last one stays as it is
        copy[window] = colour
    seen = network.see(covered, batch_size).probabilities.astype(np.float64)
    # Not from the probability alone, which float32 rounds to 1 where the others are still exact.
    others = np.delete(seen, label, axis=1).sum(axis=1)
    odds = np.log(seen[:, label].clip(SMALLEST)) - np.log(others.clip(SMALLEST))
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for window, change in zip(windows, odds[-1] - odds[:-1], strict=True):
        total[window] += change
        count[window] += 1
    return heat_from(total / count)


def grad_cam(model: keras.Model, image: Pixels, label: int) -> Heat:
    """Return the feature maps' sum, weighted by the mean slope of the class's logit on each.

    The logit is taken from the mean of all: softmax sees differences alone, and the logit of a
    class may fall while its probability rises.

    The head is a few dense layers, through which the slope is computed here: no backend's automatic
    differentiation is needed.
    """
    layers = hidden_layers(model)
    outputs = [feature_maps(model), *(layer.output for layer in layers)]
    found = keras.Model(model.inputs[0], outputs).predict_on_batch(image[None])
    maps, *hidden = map(np.asarray, found if isinstance(found, list) else [found])
    last = np.asarray(keras.ops.convert_to_numpy(model.layers[-1].kernel))
    slope = last[:, label] - last.mean(axis=1)
    for layer, active in zip(reversed(layers), reversed(hidden), strict=True):
        kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel))
        slope = kernel @ (slope * (active[0] > 0))
    # Flattened maps have a slope at each of their cells, averaged ones the same at all of them.
    weights = slope.reshape(-1, maps.shape[-1]).mean(axis=0)
    coarse = Image.fromarray((maps[0] @ weights).astype(np.float32))
    grown = coarse.resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return heat_from(np.asarray(grown, np.float64))


def heat_from(values: NDArray[np.float64]) -> Heat:
    """Return the stronger side of `values`, above or below zero, scaled to at most 1."""
    stronger = values if values.max() >= -values.min() else -values
    heat = stronger.clip(0)
    return heat / heat.max() if heat.any() else heat


def write_picture(path: Path, image: Pixels, heat: Heat) -> None:
    """Write the image, and beside it the same under its heat, as a PNG."""
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    share = 0.7 * heat[..., None]
    warm = (image * (1 - share) + colours * share).astype(np.uint8)
    both = Image.fromarray(np.concatenate([image, warm], axis=1))
    factor = -(-SHOWN // len(image))
    with new_file(path) as temporary:
        both.resize((both.width * factor, both.height * factor), Image.Resampling.NEAREST).save(
            temporary
        )
