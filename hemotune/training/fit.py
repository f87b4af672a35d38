"""Training a compiled network, epoch by epoch. Keras 3 API only."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from hemotune.errors import StudyError
from hemotune.gpus import HELD_AT_MOST
from hemotune.progress import Progress
from hemotune.training import averages, resume
from hemotune.training.averages import BatchMoments
from hemotune.training.inputs import (
    Batches,
    Floats,
    ImageArray,
    Integers,
    Laid,
    hold_images,
    taking_rows,
    with_augmentation,
)
from hemotune.training.model import layers_of
from hemotune.training.observer import Observer, Seen, score
from hemotune.training.records import Averages, Epoch
from hemotune.training.resume import Course

# Uniform guessing has a loss of 1 to 2, and a bad phase of training some hundred; no training has
# recovered from this much.
EXPLODED = 1e4


@dataclass(frozen=True)
class Data:
    """The images that a network is trained on and validated on."""

    images: ImageArray
    labels: Integers  # (N,), the class of each image
    train: Integers  # row numbers
    validation: Integers  # row numbers


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    label: str  # shown with the progress
    epochs: int
    batch_size: int  # images
    learning_rate: float  # the optimizer's, for the error message
    seed: int  # of the order of images and of dropout
    hold_images: bool = False  # in the GPU's memory, if they take at most HELD_AT_MOST bytes
    averages: Averages = "as_trained"  # with which each epoch is validated
    augmentation: str = "none"  # of the training images: none, flips or turns
    class_weights: dict[int, float] | None = None  # in the loss, by label; None: all 1


@dataclass(frozen=True)
class Fit:
    """A network, what trains and measures it, and what the training has come to."""

    network: keras.Model  # compiled, from uint8 images to class probabilities
    trainer: keras.Model  # the same, or its layers behind the images that the device holds
    observer: Observer
    moments: BatchMoments
    data: Data  # of which the images may be row numbers of those that the device holds
    plan: Plan
    course: Course
    # The averages that were recomputed, by epoch and draw: each once, for they take seconds.
    recomputed: dict[tuple[int, int], list[Floats]] = field(default_factory=dict)
    # The validation images after the last epoch that was fitted here, by its number.
    seen: dict[int, Seen] = field(default_factory=dict)

    def recompute(self, epoch: int, draw: int = 1) -> None:
        """Set the averages of BatchNormalization to those of training images.

        Args:
            epoch: the one after which the network has its weights.
            draw: 1 or more; another one takes other images.
        """
        if (epoch, draw) not in self.recomputed:
            data, seed = self.data, [self.plan.seed, epoch, draw]
            self.recomputed[epoch, draw] = averages.recompute(
                self.moments, data.images, data.train, self.plan.batch_size, seed
            )
        averages.write(self.network, self.recomputed[epoch, draw])


def versions() -> dict[str, str]:
    """Return the versions of Python, Keras and its backend by name."""
    backend = keras.backend.backend()
    return {
        "python": sys.version.split()[0],
        "keras": keras.__version__,
        backend: sys.modules[backend].__version__,
    }


def fit(network: keras.Model, data: Data, plan: Plan, state: Path | None = None) -> Fit:
    """Train the layers of a compiled network that are not frozen.

    Args:
        network: from uint8 images to class probabilities.
        state: folder for the state after each finished epoch; a fit that was killed resumes from
            there with the same results as one that was not.

    Raises:
        StudyError: the loss became NaN or exploded, or the device has too little memory.
    """
    with explain_out_of_memory(plan.batch_size):
        begun = begin(network, data, plan, state)
        plan, course = begun.plan, begun.course
        if course.history:
            print(f"resumed after epoch {len(course.history)} of {plan.epochs}", flush=True)
        count = len(data.train) // plan.batch_size * plan.batch_size  # images in one epoch
        progress = Progress(plan.label, plan.epochs * count, "images")
        progress.resume_at(len(course.history) * count)
        for number in range(len(course.history) + 1, plan.epochs + 1):
            epoch = fit_epoch(begun, number, progress)
            if state:
                resume.save(state, network, course)
            print(
                f"epoch {number}/{plan.epochs}: loss {epoch.loss:.4f}, accuracy"
                f" {epoch.accuracy:.4f}, validation loss {epoch.validation_loss:.4f}, accuracy"
                f" {epoch.validation_accuracy:.4f}, {epoch.seconds:.1f} s,"
                f" {epoch.images_per_second:.1f} images/s",
                flush=True,
            )
    return begun


def begin(network: keras.Model, data: Data, plan: Plan, state: Path | None) -> Fit:
    """Return a fit that has not begun, or is where a killed one stopped."""
    trainer, source = network, None
    if plan.augmentation != "none":
        trainer = with_augmentation(network, turns=plan.augmentation == "turns")
    if plan.hold_images and data.images.nbytes <= HELD_AT_MOST:
        source, images = hold_images(data.images)
        trainer, data = taking_rows(source, trainer), replace(data, images=images)
    plan = replace(plan, batch_size=min(plan.batch_size, len(data.train)))
    build(trainer, data.labels[data.train[:1]])
    return Fit(
        network,
        trainer,
        Observer.of(network, data.images, source),
        BatchMoments(network, source),
        data,
        plan,
        resume.restore(state, network) if state else Course(),
    )


def fit_epoch(begun: Fit, number: int, progress: Progress) -> Epoch:
    """Train a network for one epoch, validate it and add the epoch to the course.

    Args:
        number: of the epoch; the first is 1.
    """
    data, plan, started = begun.data, begun.plan, time.monotonic()
    order = np.random.default_rng([plan.seed, number]).permutation(data.train)
    reseed(begun.trainer, [plan.seed, number])
    batches = Batches(data.images, order, plan.batch_size, data.labels, whole=True)
    watch = Watch(plan, number, progress)
    logs = begun.trainer.fit(
        batches, verbose=0, shuffle=False, callbacks=[watch], class_weight=plan.class_weights
    ).history
    trained = time.monotonic() - started
    own = averages.read(begun.network)
    if plan.averages == "recomputed":
        begun.recompute(number)
    seen = begun.observer.see(data.validation)
    averages.write(begun.network, own)  # so that the training goes on as it would without this
    validation_loss, validation_accuracy = score(seen.probabilities, data.labels[data.validation])
    epoch = Epoch(
        number,
        logs["loss"][0],
        logs["accuracy"][0],
        validation_loss,
        validation_accuracy,
        seconds=time.monotonic() - started,
        images_per_second=len(batches) * plan.batch_size / trained,
    )
    begun.course.add(epoch, seen.predicted, begun.network)
    begun.seen.clear()
    begun.seen[number] = seen
    return epoch


class Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Shows the progress after every step; stops at a loss that is NaN or has exploded."""

    def __init__(self, plan: Plan, epoch: int, progress: Progress) -> None:
        super().__init__()
        self.plan, self.epoch, self.progress = plan, epoch, progress

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Check the mean loss of the epoch's steps up to `batch`; one NaN step makes it NaN."""
        step, steps, loss = batch + 1, self.params["steps"], logs["loss"]
        if not loss < EXPLODED:  # true of NaN
            raise StudyError(
                f"the loss is {loss:.3g} at epoch {self.epoch}, step {step} of {steps}, learning"
                f" rate {self.plan.learning_rate:g}: lower the experiment's learning_rate in"
                " params.yaml, or learning_rate_scale in the profile"
            )
        done = ((self.epoch - 1) * steps + step) * self.plan.batch_size
        self.progress.update(done, f"epoch {self.epoch}/{self.plan.epochs}, loss {loss:.4f}")


@contextlib.contextmanager
def explain_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn a backend's out-of-memory exception into a StudyError that names the fix."""
    try:
        yield
    except Exception as error:
        # TensorFlow's own exception, and the text of JAX's
        if not (
            type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error)
        ):
            raise
        raise StudyError(
            f"the device has too little memory for batches of {batch_size} images: set batch_size"
            f" to {max(1, batch_size // 2)} in the profile, or let fewer runs share the device"
        ) from None


def build(model: keras.Model, labels: Integers) -> None:
    """Create the variables of a compiled model's optimizer and metrics.

    Otherwise the first training step creates them and is traced twice; tracing ResNet50 takes 10 s
    on a slow CPU.

    Args:
        labels: (n,), any of them.
    """
    model.optimizer.build(model.trainable_variables)
    probabilities = np.full((len(labels), model.output_shape[-1]), 0.5, "float32")
    model.compute_metrics(None, labels, probabilities)
    model.reset_metrics()


def reseed(trainer: keras.Model, seed: list[int]) -> None:
    """Set the state of every layer that draws at random from `seed`, in a nested backbone too.

    An epoch's dropout and augmentation then do not depend on what ran before it.
    """
    random = np.random.default_rng(seed)
    for layer in layers_of(trainer):
        if isinstance(layer, keras.layers.Dropout | Laid):
            layer.seed_generator.state.assign(random.integers(0, 2**31, 2, dtype="uint32"))
