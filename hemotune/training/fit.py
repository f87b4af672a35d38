"""Training and predicting: what the stages backbone and finetune share. Keras 3 API only."""

import contextlib
import sys
import time

import keras
import numpy as np
import pandas as pd

from hemotune.errors import StudyError
from hemotune.progress import Progress
from hemotune.training import resume
from hemotune.training.model import Batches, hold_images, predict, score

# Evaluation keeps no activations for a backward pass, so larger batches fit.
EVALUATION_BATCH = 128
# The real study's images at 224 px are 1.9 GB, and an own GPU has four times that; larger sets come
# from the memory-mapped array.
HELD_AT_MOST = 4 << 30  # bytes
# A guess among the classes costs 1 or 2, a bad spell of training some hundred; from here none has
# come back.
EXPLODED = 1e4


def versions() -> dict[str, str]:
    """Return {name: version} of what trains: Python, Keras and its backend."""
    backend = keras.backend.backend()
    return {
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        backend: sys.modules[backend].__version__,
    }


class Watch(keras.callbacks.Callback):
    """Shows progress after every step, and stops at the first loss that is not a number or has
    exploded.
    """

    def __init__(self, progress, epoch, epochs, steps, batch_size, learning_rate):
        super().__init__()
        self.progress, self.epoch, self.epochs = progress, epoch, epochs
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate

    def on_train_batch_end(self, batch, logs=None):
        # `loss` is the mean over the epoch so far: one NaN step makes it NaN, which is not below
        # anything.
        if not logs["loss"] < EXPLODED:
            raise StudyError(
                f"the loss is {logs['loss']:.3g} at epoch {self.epoch}, step {batch + 1} of"
                f" {self.steps}, learning rate {self.learning_rate:g}: lower the experiment's"
                " learning_rate in params.yaml, or learning_rate_scale in the profile"
            )
        done = (self.epoch - 1) * self.steps + batch + 1
        self.progress.update(
            done * self.batch_size, f"epoch {self.epoch}/{self.epochs}, loss {logs['loss']:.4f}"
        )


def fit(
    network,
    images,
    labels,
    train,
    validation,
    training,
    learning_rate,
    seed,
    what,
    state=None,
    on_gpu=False,
):
    """Train all layers of a compiled network.

    Args:
        network: compiled, from uint8 images to class probabilities.
        images: uint8 (N, size, size, 3), memory-mapped; labels: int (N,).
        train, validation: row numbers.
        training: settings.training.Training; seed: of the order of images and of dropout.
        what: shown with the progress.
        state: folder that holds the state after each finished epoch; a fit that was killed goes on
            from there as if it never stopped.
        on_gpu: hold all images in the GPU's memory, as far as they are no more than HELD_AT_MOST.

    Returns:
        history: DataFrame, a row an epoch. The training columns are means over the epoch with
            dropout on, as Keras's fit reports
        them; the validation columns are computed after the epoch.

    Raises:
        StudyError: the loss became NaN or exploded, or the device has too little memory.
    """
    with memory_told(training.batch_size):
        model = network
        if on_gpu and images.nbytes <= HELD_AT_MOST:
            model, images = hold_images(network, images)
        steps = len(Batches(images, train, training.batch_size, whole=True))
        batch_size = min(training.batch_size, len(train))
        progress = Progress(what, training.epochs * steps * batch_size, "images")
        build(model, labels[train[:1]])
        history = resume.restore(state, network) if state else []
        if history:
            print(f"resumed after epoch {len(history)} of {training.epochs}", flush=True)
        progress.resume_at(len(history) * steps * batch_size)
        for epoch in range(len(history) + 1, training.epochs + 1):
            started = time.monotonic()
            order = np.random.default_rng([seed, epoch]).permutation(train)
            reseed_dropout(network, [seed, epoch])
            batches = Batches(images, order, batch_size, labels, whole=True)
            watch = Watch(progress, epoch, training.epochs, steps, batch_size, learning_rate)
            logs = model.fit(batches, verbose=0, shuffle=False, callbacks=[watch]).history
            trained = time.monotonic() - started
            validation_loss, validation_accuracy = score(
                predict(model, images, validation, EVALUATION_BATCH), labels[validation]
            )
            history.append(
                {
                    "epoch": epoch,
                    "loss": logs["loss"][0],
                    "accuracy": logs["accuracy"][0],
                    "validation_loss": validation_loss,
                    "validation_accuracy": validation_accuracy,
                    "seconds": time.monotonic() - started,
                    "images_per_second": steps * batch_size / trained,
                }
            )
            if state:
                resume.save(state, network, history)
            last = history[-1]
            print(
                f"epoch {epoch}/{training.epochs}: loss {last['loss']:.4f}, accuracy"
                f" {last['accuracy']:.4f}, validation loss {validation_loss:.4f}, accuracy"
                f" {validation_accuracy:.4f}, {last['seconds']:.1f} s,"
                f" {last['images_per_second']:.1f} images/s",
                flush=True,
            )
    return pd.DataFrame(history)


@contextlib.contextmanager
def memory_told(batch_size):
    """Say what to change where the memory of the device does not suffice; each backend has an
    exception of its own for that.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "ResourceExhaustedError" and "RESOURCE_EXHAUSTED" not in str(
            error
        ):
            raise
        raise StudyError(
            f"the device has too little memory for batches of {batch_size} images: set batch_size"
            f" to {max(1, batch_size // 2)} in the profile, or let fewer runs share the device"
        ) from None


def build(model, labels):
    """Make the variables of a compiled model's optimizer and metrics; the first step would make
    them, and be traced twice for it.

    Tracing ResNet50 takes 10 s on a slow processor.

    Args:
        labels: int (n,), any of them.
    """
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(
        None, labels, np.full((len(labels), model.output_shape[-1]), 0.5, "float32")
    )
    model.reset_metrics()


def reseed_dropout(model, seed):
    """Set the state of every dropout layer, a backbone's own too, from `seed`: an epoch's masks do
    not depend on what ran before it.
    """
    random = np.random.default_rng(seed)
    for layer in layers_of(model):
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign(random.integers(0, 2**31, 2, dtype="uint32"))


def layers_of(model):
    """Yield the layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer
