"""docs/reference.md, which is made from the code."""

from flows.reference import write
from tests.conftest import ROOT


def test_the_reference_is_that_of_the_code():
    text = (ROOT / "docs" / "reference.md").read_text()
    assert text == write(ROOT), "run: make reference"
    # Something of each kind: a bound, a comment, a stage, a key of meta.
    for part in (
        "| batch_size | integer from 1 to 8,192 | `32` |",
        "| keep | `last`, `best` | `last` | Which epoch is delivered",
        "    python -m tasks.group\n",
        "| gpu | ",
    ):
        assert part in text
