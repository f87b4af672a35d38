"""A study of images that are not blood: what it shows has its own words, or neutral ones."""

import re

import pytest
from matplotlib.text import Text

from tasks.report import figures
from tests.tasks.made_up_study import (
    change_profile,
    control,
    report_here,
    some,
    write_json,
    write_study,
)
from tests.tasks.neutral import foreign

WORDS = {
    "title": "Do leaves tell the tree?",
    "subject": "leaves",
    "unit": "bush",
    "units": "bushes",
    "intended_use": "Trying out.",
    "limits": ["Not for *mushrooms*."],
}


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    root = tmp_path_factory.mktemp("leaves")
    write_study(
        root,
        some(2, "[random-1, held-out-1, fold-1-1, fold-2-1]").replace("sample", "leaves"),
        classes=["ash", "birch", "cedar", "dogwood"],
        source={"source": "folder", "reference": "leaves", "version": None},
        own_test=False,
        study=WORDS,
        dataset={"source": "folder", "path": "leaves"},
        split={"folds": 2},
        backbone={"weights": "random"},
    )
    controls = {"random": control(0.97, 1.0), "held-out": control(0.60, 0.0, 3)}
    write_json(root / "data/controls.json", controls | {"2 folds": control(0.9, 0.0)})
    return root


def shown(root, monkeypatch):
    """Run the report; return all that it shows: its files, what it prints, texts in figures."""
    texts = []

    def save(figure, path):
        texts.extend(text.get_text() for text in figure.findobj(Text))
        path.touch()

    monkeypatch.setattr(figures, "save", save)
    status, printed = report_here(root)
    assert status == 0, printed
    names = ("study.md", "model_card.md", "summary.txt", "results.csv")
    files = {name: (root / "reports" / name).read_text() for name in names}
    return files | {"printed": printed, "figures": "\n".join(texts)}


def test_the_words_are_those_of_the_profile(leaves, monkeypatch):
    found = shown(leaves, monkeypatch)
    for name, text in found.items():
        assert not foreign(text), (name, foreign(text))
    report, card = found["study.md"], found["model_card.md"]
    assert report.startswith("# Do leaves tell the tree?\n")
    headings = re.findall(r"^## (\d)\. (.*)", report, re.MULTILINE)
    assert [int(number) for number, _ in headings] == list(range(1, 8))
    assert headings[3][1] == "Reliability of the accuracies"
    assert "Accuracy per bush [95 %]" in report and "All bushes" in report
    assert "come from bushes that are also in train" in report
    assert (
        "the test set and the validation set are cut off by bush" in report
        and "Possible label errors" in report
    )
    assert "bush" in found["figures"]
    assert "- Not for &#42;mushrooms&#42;.\n" in card and "Trying out. The model always" in card
    assert "for validation, cut by bush: where bushes are known, none is in both." in card
    assert "images cut off by bush, none of them known to be from bushes that are" in card


def test_without_words_it_says_groups_and_images(leaves, monkeypatch):
    profile = leaves / "profiles/leaves.yaml"
    before = profile.read_text()
    change_profile(profile, {"study": None})
    try:
        found = shown(leaves, monkeypatch)
    finally:
        profile.write_text(before)
    for name, text in found.items():
        assert not foreign(text), (name, foreign(text))
    assert found["study.md"].startswith("# ResNet50 fine-tuned on images\n")
    assert "All groups" in found["study.md"] and "Comparison of fine" in found["model_card.md"]
