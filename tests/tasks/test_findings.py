"""Findings of whole drawn studies: the sentences of the report's own section are counted."""

import re
import shutil

import pytest

from benchmarks import studies
from hemotune.settings.reading import read_profile
from hemotune.settings.split import Split
from tasks.report import __main__ as stage
from tests.conftest import ROOT
from tests.tasks.made_up_study import some, write_study

STUDIES = 200


@pytest.mark.slow
def test_few_studies_find_something_where_nothing_differs():
    spreads = [studies.MEASURED / 100] * len(studies.ROWS)
    false, planted = studies.shares(STUDIES, spreads, seed=2)
    assert false * STUDIES <= 16
    assert planted <= false


@pytest.mark.slow
def test_most_studies_find_a_difference_of_ten_points():
    spreads = [studies.MEASURED / 100] * len(studies.ROWS)
    assert studies.shares(STUDIES, spreads, difference=0.1, seed=2)[1] * STUDIES >= 145


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The text of a report on five rows: random with three repeats, five folds with one, of which
    one run is missing.
    """
    root = tmp_path_factory.mktemp("study")
    trainings = [f"random-{r}" for r in (1, 2, 3)] + [f"fold-{k}-1" for k in range(1, 6)]
    write_study(root, some(5, f"[{', '.join(trainings)}]"), photographs=20)
    shutil.rmtree(root / "data/results/mn_resultset2-ResNet50-fold-3-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert stage.main("--incomplete", "--without-images") == 0
    return (root / "reports/study.md").read_text()


@pytest.mark.slow
def test_trainings_are_counted_and_what_they_rest_on_is_named(report):
    assert "| 3 and 3 |" in report and "| 4 and 4 |" in report and "| 5 and 5 |" in report
    assert re.search(r"Hidden layers, random:\*\* 1 → 3 lowered accuracy by", report)
    assert re.search(r"Hidden layers, 5 folds:\*\* 1 → 3 lowered accuracy by", report)
    assert "compares trained models" not in report
    assert "training sets of folds overlap" in report
    assert "All trainings of a backbone start from the same weights of it" in report
    shares = [line for line in report.splitlines() if line.count("not separable") > 0]
    assert sum(line.startswith("| **5 folds** | not separable | not") for line in shares) == 1
    assert sum(bool(re.match(r"\| \*\*random\*\* \| \d+ % ", line)) for line in shares) == 1
    assert "| `5 folds` | 20 | 20 | 20 | 20 | 80 | 80 | 320 |" in report


@pytest.mark.slow
def test_each_cut_is_a_series_and_the_choice_of_the_split_has_a_share(tmp_path, monkeypatch):
    trainings = [f"random-{repeat}" for repeat in range(1, 7)]
    split = read_profile("split", Split, ROOT).model_dump() | {"repeats": 2}
    write_study(tmp_path, some(2, f"[{', '.join(trainings)}]"), photographs=20, split=split)
    monkeypatch.chdir(tmp_path)
    assert stage.main("--without-images") == 0
    text = (tmp_path / "reports/study.md").read_text()
    assert "(3 of `random` and 3 of `random, cut 2`)" in text
    assert "**Results, random, cut 2**" in text
    assert re.search(r"\| \*\*random\*\* \|( \d+ % \|){4} \d+\.\d+; \d+\.\d+ \|", text)
    assert "Units of the hidden layers, random, cut 2:**" in text
    assert (tmp_path / "reports/figures/confusion-random-cut-2-ResNet50.png").exists()


@pytest.mark.slow
def test_the_leak_has_an_interval_and_what_a_difference_takes_is_named(report):
    leak = report[report.index("The size of the leak") : report.index("### 5.3")]
    rows = [line for line in leak.splitlines() if line.startswith("| ") and "points" not in line]
    assert len(rows) == 7  # with the line below the head, and the mean
    assert all("trainings like these" in row and "+" in row for row in rows[1:])
    needs = report[report.index("What it would take") : report.index("## 7.")]
    assert re.search(r"random \| 8 → 16 \| [\d,]+ \| ([\d,]+|not by photographs alone) \|", needs)
    assert "5 folds | 8 → 16 | 64 | unknown without repeats" in needs
