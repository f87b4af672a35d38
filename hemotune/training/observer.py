"""What a network makes of images, without dropout. Keras 3 API only."""

from dataclasses import dataclass

import keras
import numpy as np

from hemotune.training.inputs import Batches, Floats, ImageArray, Integers, taking_rows

# Evaluation keeps no activations for a backward pass, so larger batches fit.
EVALUATION_BATCH = 128


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
