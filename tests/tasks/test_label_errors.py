"""Possible label errors in the report: what it lists, shows and says, from made-up predictions."""

import contextlib
import json
from dataclasses import replace

import pandas
import pytest

from tasks.report import __main__ as report
from tasks.report.label_errors import find_in_folds
from tasks.report.results import summaries_of
from tasks.report.runs import read_runs
from tasks.report.soundness import Problem
from tasks.report.study import read_study
from tests.tasks.made_up_study import CLASSES, some, write_study

FOLDS = f"[{', '.join(f'fold-{fold}-1' for fold in range(1, 6))}]"
WRONG = {f"EOSINOPHIL/_{number}_": "probability_LYMPHOCYTE" for number in (3, 11, 52)}

pytestmark = pytest.mark.slow


def plant(root):
    """Have every training take three photographs of eosinophils for lymphocytes, surely."""
    columns = [f"probability_{name}" for name in CLASSES]
    for folder in (root / "data/results").iterdir():
        predictions = pandas.read_parquet(folder / "predictions.parquet")
        tested = predictions["split"] == "test"
        for place, column in WRONG.items():
            rows = tested & predictions["path"].str.contains(place, regex=False)
            predictions.loc[rows, columns] = 0.01
            predictions.loc[rows, column] = 0.97
        predictions.to_parquet(folder / "predictions.parquet")
        right = predictions[columns].idxmax(axis=1) == "probability_" + predictions["truth"]
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["test"]["accuracy"] = float(right[tested].mean())
        (folder / "metrics.json").write_text(json.dumps(metrics))


def section_of(root):
    text = (root / "reports/study.md").read_text()
    return text[text.index("Possible label errors\n") : text.index("## 8.")]


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Two experiments in five folds, with three photographs that all take for another class."""
    root = tmp_path_factory.mktemp("folds")
    write_study(root, some(2, FOLDS))
    plant(root)
    with contextlib.chdir(root):
        assert report.main() == 0
    return root


def test_photographs_that_all_get_wrong_are_listed_and_shown(folds):
    section = section_of(folds)
    for number in (3, 11, 52):
        assert (
            f"| photograph E{number} | EOSINOPHIL | LYMPHOCYTE | 97.00% | 2 of 2 | 4 |" in section
        )
    assert "to be looked at by a person" in section
    assert "![First image of each possible label error, 5 folds]" in section
    assert (folds / "reports/figures/label-errors-5-folds-ResNet50.png").stat().st_size > 1000


def test_unsound_trainings_have_no_say(folds):
    problem = Problem("dead_units", "8 of 8 units are dead", ["a lower rate"])
    runs = read_runs(folds, read_study(folds))
    assert not any(run.problems for run in runs)
    half = [replace(run, problems=[problem] * (run.units == 8)) for run in runs]
    (found,) = find_in_folds(summaries_of(half)).values()
    assert set(found["trainings"]) == {1} and {"E3", "E11", "E52"} <= set(found["photograph"])
    assert not find_in_folds(summaries_of([replace(run, problems=[problem]) for run in runs]))


def test_without_images_the_table_remains(folds):
    with contextlib.chdir(folds):
        assert report.main("--without-images") == 0
    assert "| photograph E3 |" in section_of(folds) and "![" not in section_of(folds)
    assert not list((folds / "reports/figures").glob("label-errors-*"))


def test_without_folds_the_report_names_what_they_need(tmp_path):
    write_study(tmp_path, some(1, "[random-1]"))
    with contextlib.chdir(tmp_path):
        assert report.main() == 0
    assert "list fold-1-1, fold-2-1 and so on up to fold-5-1" in section_of(tmp_path)
