"""What a training records: an epoch is a row of history.csv, a run is one metrics.json."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

# Which epoch is delivered, and with which averages of BatchNormalization.
Keep = Literal["last", "best"]
Averages = Literal["as_trained", "recomputed"]


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    The training figures are means over the epoch with dropout on, as Keras's fit reports them; the
    validation figures are computed after the epoch.
    """

    epoch: int  # the first is 1
    loss: float
    accuracy: float  # a share, as all accuracies
    validation_loss: float
    validation_accuracy: float
    seconds: float  # training and validation
    images_per_second: float  # training alone


class Record(BaseModel):
    """A record that is written as JSON under the names of its fields."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Scores(Record):
    """How well a run predicts the images of one part of the split."""

    loss: float
    accuracy: float
    images: int


class HiddenLayer(Record):
    """What became of the units of a hidden layer; a dead one is zero on all training images."""

    name: str
    units: int
    dead: int


class Delivery(Record):
    """The validation scores of one choice of what is delivered."""

    keep: Keep
    averages: Averages
    epoch: int  # the first is 1
    validation: Scores


class Health(Record):
    """What a training did, before what it scored.

    All figures but `deliveries` are of the delivered weights; all but `fit_accuracy` are without
    dropout.
    """

    hidden: list[HiddenLayer]
    train: Scores  # all training images
    fit_accuracy: float  # on the training images with dropout, as fit reported the epoch
    deliveries: list[Delivery]  # of all four choices
    delivered_epoch: int
    last_epochs: list[float]  # validation accuracy of the last five, under the delivered averages
    other_averages: Scores  # validation, with averages from other training images


class Software(Record):
    """What the bytes of a training depend on besides its settings and data."""

    versions: dict[str, str]  # of Python, Keras and its backend, by name
    precision: str  # Keras's dtype policy

    def __str__(self) -> str:
        """Return e.g. `keras 3.10.0, tensorflow 2.19.0, float32`."""
        libraries = sorted(name for name in self.versions if name != "python")
        return ", ".join([*(f"{name} {self.versions[name]}" for name in libraries), self.precision])


class Metrics(Software):
    """The metrics.json of a run."""

    experiment: str
    protocol: str
    backbone: str
    repeat: int  # the first is 1
    layers: int
    units: int
    learning_rate: float  # the experiment's
    learning_rate_applied: float  # times the profile's learning_rate_scale
    train: Scores  # of the delivered epoch, as in its row of history.csv
    validation: Scores  # of the delivered weights, as the test scores
    test: Scores
    health: Health
    learning_time_seconds: float
    epochs: int
    batch_size: int
    dropout: float
    head: str  # this and the next: values of settings.training.Training
    initialization: str
    freeze: str
    batch_norm: str
    augmentation: str
    warm_up: float
    class_weights: str
    keep: Keep
    averages: Averages
    parameters: int
    images_per_second: float  # mean over the epochs without the first, which compiles
    device: str  # the GPU's name, or CPU
    processor: str  # the CPU's name
    threads: int  # that one operation may use
    pretraining: Software | None = None  # None if the initial weights were not pre-trained
    seed: int

    @property
    def software(self) -> str:
        """The software of the training, and that of the pre-training if it was another."""
        own, before = str(self), self.pretraining and str(self.pretraining)
        return own if before in (None, own) else f"{own} (pre-trained with {before})"
