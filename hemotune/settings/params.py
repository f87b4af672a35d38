"""The whole of params.yaml: what is run."""

from typing import Annotated

from pydantic import AfterValidator, Field

from hemotune.settings.experiment import Experiment
from hemotune.settings.protocols import Protocols, no_value_twice
from hemotune.settings.reading import Name, ProfileName, Section

Repeat = Annotated[int, Field(ge=1, le=1000)]


class Params(Section):
    """The profile's name and the axes of the fine-tune matrix."""

    profile: ProfileName
    backbones: Annotated[list[Name], Field(min_length=1), AfterValidator(no_value_twice)]
    protocols: Protocols
    repeats: Annotated[list[Repeat], Field(min_length=1), AfterValidator(no_value_twice)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
