"""Check params.yaml and the profile it names, both as a whole, before anything runs: python -m tasks.settings.

No stage depends on this: each checks the keys that it reads.
"""

import sys
from pathlib import Path

from tasks.errors import entry_point
from tasks.settings.backbone import Backbone
from tasks.settings.dataset import Dataset
from tasks.settings.images import Images
from tasks.settings.params import Params
from tasks.settings.reading import Section, read_params, read_profile
from tasks.settings.split import Split
from tasks.settings.training import Training
from tasks.settings.validation import Validation


class Profile(Section):
    """profiles/NAME.yaml: how the study is run."""

    dataset: Dataset
    images: Images
    validation: Validation
    split: Split
    backbone: Backbone
    training: Training


def check(root: str | Path = ".") -> None:
    """Check both files below the folder `root`.

    Raises:
        StudyError: a file is missing or does not parse, a key is unknown, a value is of the wrong type or impossible.
    """
    read_params("", Params, root)
    read_profile("", Profile, root)


@entry_point
def main() -> None:
    check()


if __name__ == "__main__":
    sys.exit(main())
