"""Section `dataset` of a profile."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hemotune.settings.reading import Section, Seed


class Sample(Section):
    """Drawn smears with the structure of the real data: photographs, and augmented copies of
    each.
    """

    # Per class, in TRAIN and TEST together
    photographs: Annotated[int, Field(ge=4, le=10_000)] = 30
    copies: Annotated[int, Field(ge=1, le=100)] = 8  # augmented images made of one photograph
    width: Annotated[int, Field(ge=16, le=2048)] = 160
    height: Annotated[int, Field(ge=16, le=2048)] = 120
    # 1: cells as large in the picture as in the real data
    magnification: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    seed: Seed = 1


class Dataset(Section):
    """Where the images come from."""

    source: Literal["sample", "archive", "folder", "kaggle"]
    path: str | None = None  # archive: the zip; folder: the folder
    # Kaggle: owner/name
    handle: Annotated[str, Field(pattern=r"^\w[\w-]*/\w[\w-]*$")] | None = None
    # kaggle; what "latest" was is recorded in data/raw/source.json
    version: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["latest"] | None = None
    # Patterns of paths inside the source: `*` is any text, across folders too, `?` one character,
    # all else (`[` as well) stands for itself; an empty list includes every image.
    include: list[str] = []
    exclude: list[str] = []
    sample: Sample = Sample()

    @model_validator(mode="after")
    def source_has_what_it_needs(self) -> "Dataset":
        needs = {"archive": ["path"], "folder": ["path"], "kaggle": ["handle", "version"]}.get(
            self.source, []
        )
        for key in needs:
            if getattr(self, key) is None:
                raise ValueError(f"source '{self.source}' needs '{key}'")
        return self
