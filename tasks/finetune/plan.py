"""What is trained, and how: one experiment, backbone and split."""

from dataclasses import dataclass
from pathlib import Path

from hemotune.paths import BACKBONES, FAILURES, RESUME, SPLITS
from hemotune.settings.experiment import Experiment
from hemotune.settings.training import Training
from hemotune.splits import ImageSplit

# What an experiment may set of the profile's section `training`; recorded with its value.
FACTORS = Experiment.model_fields.keys() & Training.model_fields.keys()


@dataclass(frozen=True)
class Run:
    """What is trained, and how."""

    name: str  # the experiment's
    backbone: str
    split: ImageSplit
    experiment: Experiment
    training: Training  # the profile's, with what the experiment sets itself

    @property
    def key(self) -> str:
        return f"{self.name}-{self.backbone}-{self.split.training}"

    @property
    def seed(self) -> int:
        return self.split.training_seed(self.training.seed)

    @property
    def learning_rate(self) -> float:
        return self.experiment.learning_rate * self.training.learning_rate_scale

    @property
    def split_file(self) -> Path:
        return SPLITS / f"{self.split.training}.json"

    @property
    def weights_file(self) -> Path:
        return BACKBONES / self.backbone / "backbone.weights.h5"

    @property
    def failure_file(self) -> Path:
        return FAILURES / f"{self.key}.json"

    @property
    def states(self) -> Path:
        """The folder of all states from which this run can resume."""
        return RESUME / self.key
