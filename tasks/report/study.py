"""What the report reads besides the runs: settings, source, splits, validation and controls."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from hemotune.errors import StudyError
from hemotune.evaluation.leaks import Controls
from hemotune.files import read_json
from hemotune.original import Original, read_original
from hemotune.paths import CONTROLS, SOURCE, SPLITS, VALIDATION
from hemotune.settings.params import Params
from hemotune.settings.profile import Profile
from hemotune.settings.reading import read_params, read_profile
from hemotune.settings.study import Words
from hemotune.splits import ImageSplit, read_split


class Source(BaseModel):
    """The source of the images, from data/raw/source.json."""

    model_config = ConfigDict(frozen=True)

    source: str
    reference: str
    version: str | int | None
    images: int
    sha256: str


class Rule(BaseModel):
    """One rule's outcome, from reports/validation/result.json."""

    model_config = ConfigDict(frozen=True)

    rule: str
    severity: str  # error, warning, off
    description: str
    passed: bool
    found: str
    count: int  # how many files break it
    offenders: list[str]  # some of their paths


@dataclass(frozen=True)
class Study:
    """Everything the report shows except the runs.

    source is None and controls is empty if its file is missing.
    """

    params: Params
    profile: Profile
    rules: list[Rule]
    source: Source | None
    controls: dict[str, Controls]  # by protocol
    splits: dict[str, ImageSplit]  # by entry of `trainings` in params.yaml
    original: Original | None  # the study that is reproduced, if any

    @property
    def words(self) -> Words:
        return self.profile.study

    @property
    def protocols(self) -> dict[str, list[ImageSplit]]:
        """The splits of each protocol, one for each training; all folds are one, e.g. `5 folds`."""
        protocols: dict[str, list[ImageSplit]] = {}
        for split in self.splits.values():
            protocols.setdefault(split.pooled, []).append(split)
        return protocols

    @property
    def is_sample(self) -> bool:
        return self.profile.dataset.source == "sample"


def read_study(root: Path) -> Study:
    """Read the settings and the outputs of the stages before the fine-tunes, below `root`.

    Raises:
        StudyError: a file is missing or invalid; see hemotune.settings.reading.read too.
    """
    params = read_params("", Params, root)
    profile: Profile = read_profile("", Profile, root)
    splits = {entry: root / SPLITS / f"{entry}.json" for entry in params.trainings}
    validation = root / VALIDATION / "result.json"
    for path, stage in (*((path, "prepare") for path in splits.values()), (validation, "validate")):
        if not path.exists():
            raise StudyError(f"{path.relative_to(root)} is missing: run `dvc repro {stage}`")
    source, controls = root / SOURCE, root / CONTROLS
    original = profile.study.original
    return Study(
        params=params,
        profile=profile,
        rules=TypeAdapter(list[Rule]).validate_python(read_json(validation)["rules"]),
        source=Source.model_validate(read_json(source)) if source.exists() else None,
        controls=(
            TypeAdapter(dict[str, Controls]).validate_python(read_json(controls))
            if controls.exists()
            else {}
        ),
        splits={name: read_split(path) for name, path in splits.items()},
        original=read_original(original, root) if original else None,
    )
