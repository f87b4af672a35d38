"""Check params.yaml and the profile it names, both as a whole, before anything runs: python -m
hemotune.settings.

No stage depends on this: each checks the keys that it reads.
"""

import sys
from pathlib import Path

from hemotune.command import ArgumentParser
from hemotune.errors import entry_point
from hemotune.settings.backbone import Backbone
from hemotune.settings.dataset import Dataset
from hemotune.settings.experiment import training_of
from hemotune.settings.images import Images
from hemotune.settings.params import Params
from hemotune.settings.reading import Section, read_params, read_profile
from hemotune.settings.report import Report
from hemotune.settings.split import Split
from hemotune.settings.training import Training
from hemotune.settings.trainings import require_folds
from hemotune.settings.validation import Validation


class Profile(Section):
    """profiles/NAME.yaml: how the study is run."""

    dataset: Dataset
    images: Images
    validation: Validation
    split: Split
    backbone: Backbone
    training: Training
    report: Report


def check(root: str | Path = ".") -> None:
    """Check both files below the folder `root`.

    Raises:
        StudyError: a file is missing or does not parse, a key is unknown, a value is of the wrong
            type or impossible, or a setting of an experiment has no effect.
    """
    params, profile = read_params("", Params, root), read_profile("", Profile, root)
    require_folds(params.trainings, profile.split.folds)
    for name, experiment in params.experiments.items():
        training_of(name, experiment, profile.training)


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    check()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
