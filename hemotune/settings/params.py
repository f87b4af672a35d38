"""The whole of params.yaml: what is run."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from hemotune.settings.experiment import Experiment
from hemotune.settings.reading import Name, ProfileName, Section
from hemotune.settings.trainings import Trainings, no_value_twice


class Params(Section):
    """The profile's name and the axes of the fine-tune matrix."""

    profile: ProfileName
    backbones: Annotated[list[Name], Field(min_length=1), AfterValidator(no_value_twice)]
    trainings: Trainings
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def refuse_former_axes(cls, values: Any) -> Any:  # Any: what YAML holds is not yet checked
        if not isinstance(values, dict) or not {"protocols", "repeats"} & set(values):
            return values
        protocols, repeats = values.get("protocols"), values.get("repeats")
        trainings = [
            f"{'random' if protocol == 'published' else protocol}-{repeat}"
            for protocol in (protocols if isinstance(protocols, list) else ["random"])
            for repeat in (repeats if isinstance(repeats, list) else [1])
        ]
        raise ValueError(
            "protocols and repeats are now one list; put in their place: trainings:"
            f" [{', '.join(trainings)}]"
        )
