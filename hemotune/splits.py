"""data/splits/PROTOCOL.json: which images are trained on, validated on and tested on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hemotune.files import read_json


class ImageSplit(BaseModel):
    """The images of each part, as sorted row numbers of data/inventory.parquet and images.npy."""

    model_config = ConfigDict(frozen=True)

    protocol: str
    seed: int
    classes: list[str]  # sorted
    train: list[int]
    validation: list[int]
    test: list[int]


def read_split(path: Path) -> ImageSplit:
    return ImageSplit.model_validate(read_json(path))
