"""BatchNormalization's averages, estimated anew from training images. Keras 3 API only.

In training, BatchNormalization normalizes by the mean and variance of the batch; the delivered
model uses averages of them. Keras moves these by 1 % of the difference at each step, while the
weights move too: after few steps, or at a high rate, they belong to weights that are long gone. The
plain mean over some batches with the weights held still is what Wu & Johnson (2021, "Rethinking
Batch in BatchNorm") call precise BatchNorm.
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from hemotune.training.inputs import Batches, Floats, ImageArray, Integers
from hemotune.training.model import layers_of

BATCHES = 20


def normalizations(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the layers that normalize by the batch in training: those that are not frozen."""
    return [
        layer
        for layer in layers_of(network)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def variables(network: keras.Model) -> list[keras.Variable]:
    """Return the averages of `network`: (channels,) each, mean and variance of each layer."""
    layers = normalizations(network)
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def read(network: keras.Model) -> list[Floats]:
    """Return a copy of the averages' values."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables(network)]


def write(network: keras.Model, values: Sequence[Floats]) -> None:
    """Set the averages to what `read` or `recompute` returned."""
    for variable, value in zip(variables(network), values, strict=True):
        variable.assign(value)


class BatchMoments(keras.Model):  # type: ignore[misc]  # Keras has no types
    """From a batch to its mean and variance in each BatchNormalization: (1, channels) float32 each.

    Args:
        network: from images to class probabilities; none of its variables changes.
        source: from what Batches hold to images, if they hold something else.
    """

    def __init__(self, network: keras.Model, source: keras.Model | None = None) -> None:
        # The variables are handed on as they are, whatever the precision of the network's layers.
        super().__init__(dtype="float32")
        self.network, self.source = network, source
        # Otherwise Keras calls it once, operation by operation, to create variables.
        self.built = True

    def call(self, batch: keras.KerasTensor) -> list[keras.KerasTensor]:
        network = self.network
        with forgetting(normalizations(network)):
            _, after = network.stateless_call(
                [variable.value for variable in network.trainable_variables],
                [variable.value for variable in network.non_trainable_variables],
                self.source(batch) if self.source else batch,
                training=True,
            )
        ids = map(id, network.non_trainable_variables)
        moments = dict(zip(ids, after, strict=True))
        return [moments[id(variable)][None] for variable in variables(network)]


@contextlib.contextmanager
def forgetting(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Let averages forget all but the last batch, so that they become its mean and variance."""
    momentums = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momentums, strict=True):
            layer.momentum = momentum


def recompute(
    moments: BatchMoments, images: ImageArray, rows: Integers, batch_size: int, seed: list[int]
) -> list[Floats]:
    """Return new averages for the weights as they are: the plain mean over BATCHES batches.

    Args:
        rows: of the training images, from which batches are drawn without replacement as long as
            they last.
    """
    if not normalizations(moments.network):
        return []
    random, count = np.random.default_rng(seed), BATCHES * batch_size
    drawn = np.concatenate([random.permutation(rows) for _ in range(-(-count // len(rows)))])
    of_batches = moments.predict(Batches(images, drawn[:count], batch_size), verbose=0)
    return [np.asarray(values, "float64").mean(axis=0).astype("float32") for values in of_batches]
