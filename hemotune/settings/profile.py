"""The whole of a profile: how a study is run."""

from hemotune.settings.backbone import Backbone
from hemotune.settings.dataset import Dataset
from hemotune.settings.images import Images
from hemotune.settings.reading import Section
from hemotune.settings.report import Report
from hemotune.settings.split import Split
from hemotune.settings.study import Words
from hemotune.settings.training import Training
from hemotune.settings.validation import Validation


class Profile(Section):
    """profiles/NAME.yaml, section by section."""

    study: Words = Words()
    dataset: Dataset
    images: Images
    validation: Validation
    split: Split
    backbone: Backbone
    training: Training
    report: Report
