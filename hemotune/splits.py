"""data/splits/TRAINING.json: which images are trained on, validated on and tested on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hemotune.files import read_json

# More than the repeats that one protocol may have, so that no two folds share a seed.
SEEDS_OF_A_FOLD = 1000


class ImageSplit(BaseModel):
    """The images of each part, as sorted row numbers of data/inventory.parquet and images.npy."""

    model_config = ConfigDict(frozen=True)

    protocol: str  # random, held-out, fold-1, fold-2, ...
    repeat: int  # the first is 1; all repeats of a protocol and a cut have the same images
    cut: int = 1  # which of the profile's `split.repeats`
    folds: int | None = None  # into how many the photographs are cut; None unless this is a fold
    own_test: bool = False  # whether the test is the data set's own TEST
    own_validation: bool = False  # whether validation is the data set's own VALIDATION
    seed: int  # of the split
    classes: list[str]  # sorted
    train: list[int]
    validation: list[int]
    test: list[int]

    @property
    def training(self) -> str:
        """The entry of `trainings` in params.yaml, e.g. `fold-2-1`."""
        return f"{self.protocol}-{self.repeat}"

    @property
    def fold(self) -> int | None:
        return int(self.protocol.removeprefix("fold-")) if self.folds else None

    @property
    def pooled(self) -> str:
        """The protocol under which test predictions are reported."""
        return pooled_protocol(self.protocol, self.folds, self.cut)

    def training_seed(self, first: int) -> int:
        """Return the seed of this training: its own for each repeat and fold.

        Args:
            first: the profile's, for repeat 1 of a protocol that is no fold.
        """
        return first + self.repeat - 1 + SEEDS_OF_A_FOLD * (self.fold or 0)


def pooled_protocol(protocol: str, folds: int | None, cut: int) -> str:
    """Return the protocol under which a training is reported: all folds are one, `5 folds`; the
    second cut is another, `5 folds, cut 2`.

    Args:
        folds: into how many the photographs are cut; None unless `protocol` is a fold.
    """
    return (f"{folds} folds" if folds else protocol) + suffix_of_cut(cut)


def suffix_of_cut(cut: int) -> str:
    return f", cut {cut}" if cut > 1 else ""


def read_split(path: Path) -> ImageSplit:
    return ImageSplit.model_validate(read_json(path))
