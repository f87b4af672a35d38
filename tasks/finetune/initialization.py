"""Initial weights of the head that suit the features of the study's images. Keras 3 API only.

The features of a backbone are positive and much alike for all images. So with random weights a
hidden unit begins, by chance, below zero for nearly every image, where it learns nothing, or above
it for all, where it tells no two apart; a head of few units may never recover.
"""

import keras
import numpy as np

from hemotune.training.inputs import Batches, ImageArray, Integers
from hemotune.training.observer import EVALUATION_BATCH, hidden_layers

IMAGES = 512  # by which units are centred, at most


def centre_head(network: keras.Model, images: ImageArray, rows: Integers, seed: list[int]) -> None:
    """Scale and shift each unit of the head, so that before its activation it has mean 0 and
    variance 1 over training images (Krähenbühl et al. 2016, "Data-dependent initializations of
    convolutional neural networks").

    Args:
        rows: of the training images, of which IMAGES are drawn.
    """
    drawn = np.random.default_rng(seed).permutation(rows)[:IMAGES]
    dense = [*hidden_layers(network), network.layers[-1]]
    # Whole batches: a smaller last one would be traced anew
    batch = min(EVALUATION_BATCH, len(drawn))
    whole = drawn[: len(drawn) // batch * batch]
    seen = keras.Model(network.inputs[0], dense[0].input)
    values = np.asarray(seen.predict(Batches(images, whole, batch), verbose=0), "float64")
    for layer in dense:
        kernel = layer.get_weights()[0].astype("float64")
        found = values @ kernel
        scale = found.std(axis=0)
        scale[scale == 0] = 1.0  # the same for all images
        layer.set_weights([kernel / scale, -found.mean(axis=0) / scale])
        values = np.maximum((found - found.mean(axis=0)) / scale, 0)
