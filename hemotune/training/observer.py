"""What a network makes of images, without dropout. Keras 3 API only."""

from dataclasses import dataclass

import keras
import numpy as np

from hemotune.training.inputs import Batches, Floats, ImageArray, Integers, taking_rows

# Numbers that describe an image, by which images are near or far from each other
FEATURES = 256
# Evaluation keeps no activations for a backward pass, so larger batches fit.
EVALUATION_BATCH = 128


def hidden_layers(network: keras.Model) -> list[keras.layers.Dense]:
    """Return the hidden layers of the head: all dense ones but the last."""
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][:-1]


def feature_maps(network: keras.Model) -> keras.KerasTensor:
    """Return what the head gets from the backbone: (batch, height, width, channels)."""
    kinds = keras.layers.Flatten | keras.layers.GlobalAveragePooling2D
    maps: keras.KerasTensor = next(
        layer.input for layer in network.layers if isinstance(layer, kinds)
    )
    return maps


def features(network: keras.Model) -> keras.KerasTensor:
    """Return the features of a network's images: (batch, FEATURES) float32, of length 1.

    They are the averages of the feature maps, projected at random: that keeps distances to some
    six per cent, whatever the images (Johnson & Lindenstrauss 1984), and a tenth of the room is
    enough. The projection is the same for every network: NumPy never changes what RandomState
    draws. The layers have names of their own: a model that was loaded has those that Keras gives.
    """
    means = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features_mean")(
        feature_maps(network)
    )
    projection = np.random.RandomState(1).standard_normal((means.shape[-1], FEATURES))
    project = keras.layers.Dense(
        FEATURES,
        name="features_projection",
        use_bias=False,
        trainable=False,
        dtype="float32",
        kernel_initializer=lambda shape, dtype: keras.ops.convert_to_tensor(
            projection / np.sqrt(FEATURES), dtype
        ),
    )
    return keras.layers.UnitNormalization(dtype="float32", name="features")(project(means))


@dataclass(frozen=True)
class Seen:
    """What a network makes of n images, without dropout."""

    hidden: list[Floats]  # of each hidden layer: (n, units)
    features: Floats  # (n, FEATURES), of length 1
    probabilities: Floats  # (n, classes)

    @property
    def predicted(self) -> Integers:
        """The class of each image: (n,)."""
        predicted: Integers = self.probabilities.argmax(axis=1)
        return predicted


@dataclass(frozen=True)
class Observer:
    """All that looks at a network's outputs does so here: another model would be traced anew."""

    model: keras.Model  # to the activations of each hidden layer, features and probabilities
    images: ImageArray

    @classmethod
    def of(
        cls, network: keras.Model, images: ImageArray, source: keras.Model | None = None
    ) -> "Observer":
        """Return an observer of a network's variables, whatever values they will have.

        Args:
            source: what `hold_images` returned, with its row numbers as `images`.
        """
        hidden = [layer.output for layer in hidden_layers(network)]
        # One that was saved and loaded has a list of one output.
        outputs = [*hidden, features(network), network.outputs[0]]
        model = keras.Model(network.inputs[0], outputs)
        return cls(taking_rows(source, model) if source else model, images)

    def see(self, rows: Integers, batch_size: int = EVALUATION_BATCH) -> Seen:
        """Show the images in `rows` to the network."""
        # Filled up to whole batches: a smaller last one would be traced anew, which takes longer.
        filled = rows[np.arange(-(-len(rows) // batch_size) * batch_size) % len(rows)]
        outputs = self.model.predict(Batches(self.images, filled, batch_size), verbose=0)
        *hidden, features, probabilities = (np.asarray(x, "float32")[: len(rows)] for x in outputs)
        return Seen(hidden, features, probabilities)


def score(probabilities: Floats, labels: Integers) -> tuple[float, float]:
    """Return (cross-entropy, accuracy) as Keras computes them.

    Args:
        probabilities: (n, classes).
        labels: (n,).
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype("float64")
    loss = -np.log(np.clip(of_truth, 1e-7, 1.0)).mean()
    return float(loss), float((probabilities.argmax(axis=1) == labels).mean())
