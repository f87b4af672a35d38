"""Section `images` of a profile."""

from typing import Annotated

from pydantic import Field

from hemotune.settings.reading import Section


class Images(Section):
    """Every image is decoded once to a square of `size` x `size` pixels, RGB."""

    size: Annotated[int, Field(ge=32, le=1024)]
