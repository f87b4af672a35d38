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


GROUP, CLASS = "{group}", "CLASS"  # what stands for both in a pattern


class Groups(Section):
    """Which images come from one patient, slide or the like; by default that is looked for."""

    file: str | None = None  # a CSV table with the columns path (inside the source) and group
    # Of the end of a path, such as '{group}_*.png' or 'CLASS/{group}/*': CLASS is the folder of a
    # class, `*` and `?` are text without a slash, each as short as can be
    pattern: str | None = None

    @model_validator(mode="after")
    def says_one_thing(self) -> "Groups":
        if self.file is not None and self.pattern is not None:
            raise ValueError("name a file or a pattern, not both")
        if self.pattern is not None:
            parts = self.pattern.split("/")
            if self.pattern.count(GROUP) != 1 or "" in parts or parts[-1] == CLASS:
                raise ValueError(
                    "a pattern contains {group} once and ends in the name of a file, such as"
                    f" '{{group}}_*.png' or 'CLASS/{{group}}/*' (given: {self.pattern!r})"
                )
        return self


class Selection(Section):
    """Which images of a source are used, and what its folders mean."""

    # Patterns of paths inside the source: `*` is any text, across folders too, `?` one character,
    # all else (`[` as well) stands for itself; an empty list includes every image.
    include: list[str] = []
    exclude: list[str] = []
    # What the images of a folder are for, by its name; by default train, val, test and the like
    splits: dict[str, Literal["train", "validation", "test"]] = {}
    classes: list[str] = []  # the folders that are classes; empty: all
    unlabelled: list[str] = []  # folders whose images have no class: they are left out
    groups: Groups = Groups()


class Dataset(Selection):
    """Where the images come from."""

    source: Literal["sample", "archive", "folder", "kaggle"]
    path: str | None = None  # archive: the zip; folder: the folder
    # Kaggle: owner/name
    handle: Annotated[str, Field(pattern=r"^\w[\w-]*/\w[\w-]*$")] | None = None
    # kaggle; what "latest" was is recorded in data/raw/source.json
    version: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["latest"] | None = None
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
