"""What the report reads of params.yaml and of the profile."""

from pathlib import Path
from typing import NamedTuple

from hemotune.settings.backbone import Backbone
from hemotune.settings.dataset import Dataset
from hemotune.settings.images import Images
from hemotune.settings.params import Params
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.split import Split
from hemotune.settings.training import Training


class Profile(NamedTuple):
    dataset: Dataset
    images: Images
    split: Split
    backbone: Backbone
    training: Training


class Study(NamedTuple):
    params: Params
    profile: Profile


def read_study(root: str | Path = ".") -> Study:
    """Read both files below the folder `root`.

    Raises:
        StudyError: see hemotune.settings.reading.read.
    """
    profile = Profile(
        dataset=read_profile("dataset", Dataset, root),
        images=read_profile("images", Images, root),
        split=read_profile("split", Split, root),
        backbone=read_profile("backbone", Backbone, root),
        training=read_profile("training", Training, root),
    )
    return Study(read_params("", Params, root), profile)
