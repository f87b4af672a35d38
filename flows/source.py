"""Whether the data has changed where it comes from, asked without a download.

In dvc.yaml a stage that brings data says `meta: {source: COMMAND}`. The command prints something that is another text when the source
has changed, such as its version and date. What it printed when the stage last ran is kept in .study/sources.json.
"""

import subprocess

from flows import STATE
from tasks.errors import StudyError
from tasks.files import read_json, write_json

SEEN = STATE / "sources.json"
PATIENCE = 120  # seconds


def is_source(stage):
    """Whether a stage's meta names a command that tells the state of its source."""
    return isinstance(stage["meta"].get("source"), str)


def ask(stage):
    """Return what the stage's command prints now.

    Raises:
        StudyError: the source does not answer.
    """
    line = stage["meta"]["source"]
    try:
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise StudyError(f"{stage['name']}: `{line}` gave no answer within {PATIENCE} s") from None
    if answer.returncode:
        told = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1].removeprefix("error: ")
        raise StudyError(f"{stage['name']}: the source did not answer: {told}")
    return answer.stdout.strip()


def seen():
    """The answers at the time of the last runs, by stage."""
    try:
        return read_json(SEEN)
    except (FileNotFoundError, ValueError):
        return {}


def remember(name, answer):
    write_json(SEEN, seen() | {name: answer})
