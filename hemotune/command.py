"""The command line of a stage: `python -m tasks.STAGE ARGUMENTS`."""

import argparse
from typing import NoReturn

from hemotune.errors import StudyError


class ArgumentParser(argparse.ArgumentParser):
    """Parses a stage's arguments; what is wrong with them is a StudyError, one line.

    Args:
        package: the stage's package, `tasks.STAGE`.
        docstring: its first paragraph is the description in the help.
    """

    def __init__(self, package: str, docstring: str) -> None:
        description = docstring.split("\n\n")[0]
        super().__init__(prog=f"python -m {package}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise StudyError(f"{message}; see {self.prog} --help")
