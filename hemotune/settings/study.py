"""Section `study` of a profile."""

from typing import Annotated

from pydantic import Field

from hemotune.settings.reading import ProfileName, Section

Text = Annotated[str, Field(min_length=1, max_length=2000)]
# A noun, or several with spaces or hyphens between them
Noun = Annotated[str, Field(max_length=40, pattern=r"^[^\W_]+([ -][^\W_]+)*$")]


class Words(Section):
    """What a study is about, in the words of its report and model card."""

    # Of the report; by default the backbones and the subject
    title: Text | None = None
    subject: Text = "images"  # what the images show
    # What several images come from that are not independent: a photograph, a patient, a slide
    unit: Noun = "group"
    units: Noun | None = None  # the plural, where it is not the unit with an s
    intended_use: Text = (
        "Comparison of fine-tuned models on this data set, and use as a baseline. Before any other "
        "use, test the model on images from the setting in which it will be used."
    )
    limits: list[Text] = []  # what the model is not for, what is not known of its images
    # The study to reproduce: a folder in profiles/originals/
    original: ProfileName | None = None

    @property
    def plural(self) -> str:
        return self.units or f"{self.unit}s"

    def counted(self, number: int) -> str:
        """Return e.g. `1 photograph`, `2 photographs`."""
        return f"{number:,} {self.unit if number == 1 else self.plural}"
