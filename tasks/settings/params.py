"""The whole of params.yaml: what is run."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.settings.experiment import Experiment
from tasks.settings.protocols import Protocols, no_value_twice
from tasks.settings.reading import Name, Positive, ProfileName, Section


class Params(Section):
    """The profile's name and the axes of the fine-tune matrix."""

    profile: ProfileName
    backbones: Annotated[list[Name], Field(min_length=1), AfterValidator(no_value_twice)]
    protocols: Protocols
    repeats: Annotated[list[Positive], Field(min_length=1), AfterValidator(no_value_twice)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
