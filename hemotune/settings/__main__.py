"""Check params.yaml and the profile it names, both as a whole, before anything runs: python -m
hemotune.settings.

No stage depends on this: each checks the keys that it reads.
"""

import sys
from pathlib import Path

from hemotune.command import ArgumentParser
from hemotune.errors import entry_point
from hemotune.original import read_original, require_rows
from hemotune.settings.experiment import training_of
from hemotune.settings.params import Params
from hemotune.settings.profile import Profile
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.trainings import require_folds


def check(root: str | Path = ".") -> None:
    """Check both files below the folder `root`.

    Raises:
        StudyError: a file is missing or does not parse, a key is unknown, a value is of the wrong
            type or impossible, a setting of an experiment has no effect, or the study to reproduce
            cannot be read or has no experiment of this one.
    """
    params, profile = read_params("", Params, root), read_profile("", Profile, root)
    require_folds(params.trainings, profile.split.folds)
    for name, experiment in params.experiments.items():
        training_of(name, experiment, profile.training)
    if original := profile.study.original:
        require_rows(read_original(original, Path(root)), original, params.experiments)


@entry_point
def main(*arguments: str) -> None:
    ArgumentParser(__package__, __doc__).parse_args(arguments)
    check()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
