"""How answers are written: for people, as CSV, as JSON."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, TextIO

from hemotune.prediction.answers import Answer

Format = Literal["text", "csv", "json"]
SEPARATOR = "; "


class Writer:
    """Writes answers one by one as they come.

    Args:
        classes: of the model.
        stream: by default standard output.
    """

    def __init__(self, form: Format, classes: Sequence[str], stream: TextIO | None = None) -> None:
        self.form, self.classes, self.stream = form, classes, stream or sys.stdout
        self.table = csv.writer(self.stream, lineterminator="\n")
        if form == "csv":
            columns = [
                f"{kind}_{name}" for kind in ("probability", "uncalibrated") for name in classes
            ]
            self.table.writerow(
                ["image", "class", "probability", "set", "unsure", "warnings", "nearest", "error"]
                + columns
            )

    def write(self, answer: Answer) -> None:
        """Write one answer."""
        if self.form == "json":
            line = json.dumps({k: v for k, v in asdict(answer).items() if v is not None})
            self.stream.write(line + "\n")
        elif self.form == "csv":
            self.table.writerow(self.row_of(answer))
        else:
            self.stream.write("\n".join(lines_of(answer)) + "\n")
        self.stream.flush()

    def row_of(self, answer: Answer) -> list[object]:
        """Return a row of the CSV; several values of a column are separated by semicolons."""
        of_class = [answer.probabilities or {}, answer.uncalibrated or {}]
        return [
            answer.image,
            answer.prediction,
            number(answer.probability),
            None if answer.set is None else SEPARATOR.join(answer.set),
            {None: None, True: "yes", False: "no"}[answer.unsure],
            SEPARATOR.join(answer.warnings),
            SEPARATOR.join(answer.nearest),
            answer.error,
            *(number(values.get(name)) for values in of_class for name in self.classes),
        ]


def number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def lines_of(answer: Answer) -> list[str]:
    """Return the lines that tell a person about one image."""
    if answer.error:
        return [f"{answer.image}: {answer.error}"]
    first = f"{answer.image}: {answer.prediction} {100 * (answer.probability or 0):.1f} %"
    if answer.set is not None:
        first += f", set {{{', '.join(answer.set)}}}"
    if answer.unsure:
        first += ", unsure"
    lines = [first, *(f"    unlike the training images: {warning}" for warning in answer.warnings)]
    if answer.nearest:
        lines.append(f"    nearest: {', '.join(answer.nearest)}")
    return lines
