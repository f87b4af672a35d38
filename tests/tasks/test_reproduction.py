"""The study that is reproduced: its tables, and what is found in them."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hemotune.errors import StudyError
from hemotune.original import read_original
from hemotune.settings.__main__ import check
from tasks.report import reproduction
from tasks.report.experiments import result_rows
from tasks.report.results import summaries_of
from tests.conftest import ROOT, TINY_PARAMS, TINY_PROFILE
from tests.tasks.made_up_study import run_of

ORIGINAL = read_original("blood-cells", ROOT)


def summaries_of_original(rows):
    return summaries_of(
        [
            run_of(
                name=row.model,
                layers=row.layers,
                units=row.units,
                learning_rate=row.learning_rate,
                test=row.accuracy["test"],
                seconds=row.seconds,
            )
            for row in rows
        ]
    )


def test_groups_and_marks_are_those_of_the_original():
    """Our rules on the original's figures give its table, but for row 3's time and the
    mark of row 5's accuracy.
    """
    rows = result_rows(summaries_of_original(ORIGINAL.rows))
    assert rows == [
        ["**mn_resultset1**", "1", "8", "1e-5", "99.48%", "3608099"],
        [],
        ["**mn_resultset2**", "1", "**16**", "1e-5", "**99.76%**", "3444579"],
        ["**mn_resultset3**", "1", "**32**", "1e-5", "99.52%", "3541862"],
        [],
        ["**mn_resultset4**", "**2**", "8", "1e-5", "79.00%", "3642714"],
        ["**mn_resultset5**", "**3**", "8", "1e-5", "90.56%", "**3862204**"],
        [],
        ["**mn_resultset6**", "1", "8", "**5e-5**", "98.96%", "3374163"],
        ["**mn_resultset7**", "1", "8", "**1e-4**", "99.28%", "**3334746**"],
    ]


def test_an_eighth_experiment_joins_its_group():
    rows = ORIGINAL.rows
    eighth = replace(rows[1], model="wide", units=64)
    names = [row[0] if row else "" for row in result_rows(summaries_of_original([*rows, eighth]))]
    assert names[2:6] == ["**mn_resultset2**", "**mn_resultset3**", "**wide**", ""]


def test_the_figure_marks_the_original_beside_the_same_experiments():
    rows = ORIGINAL.rows
    ours = [replace(rows[3], model="two_layers"), replace(rows[0], model="wide", units=64)]
    marked = reproduction.original_accuracies(rows, summaries_of_original(ours))
    assert marked == {"two_layers": 0.79}


def test_the_machine_of_a_training_is_its_gpu_too():
    on_cpu = SimpleNamespace(device="CPU", processor="AMD EPYC")
    assert reproduction.machine_of(on_cpu) == "AMD EPYC"
    on_gpu = SimpleNamespace(device="NVIDIA H200", processor="AMD EPYC")
    assert reproduction.machine_of(on_gpu) == "NVIDIA H200, AMD EPYC"


def test_what_is_wrong_inside_the_original_table_is_found():
    rows = [*ORIGINAL.rows]
    found = reproduction.table_findings(rows)
    assert len(found) == 2
    assert (
        "Row 3" in found[0]
        and "0:59:01.862169, which is 3541862 ms; the table has 3444579, which is row 2's"
        in found[0]
    )
    assert "Row 6" in found[1] and "./graph/6.png" in found[1]
    # Once they are corrected nothing is found: the findings come from the numbers.
    rows[2] = replace(rows[2], table_learning_time_ms=3541862)
    rows[5] = replace(rows[5], figure="./Graph/6.png")
    assert reproduction.table_findings(rows) == []


def test_how_many_images_the_original_figures_fit():
    rows, siblings = ORIGINAL.rows, ORIGINAL.siblings
    assert reproduction.exact_size([row.accuracy["test"] for row in rows]) == 2500
    assert reproduction.exact_size([row.accuracy["val"] for row in rows]) == 2000
    assert reproduction.fitting_sizes([row.accuracy["test"] for row in rows + siblings]) == [2500]
    assert not all(reproduction.fits(row.accuracy["test"], 2487) for row in rows)


def test_impossible_and_missing_figures_of_the_sibling_studies():
    found = reproduction.impossible_figures(ORIGINAL.siblings)
    assert len(found) == 2
    assert "mn_resultset1: the train accuracy is not given" in found[0]
    impossible = "a validation loss of 0.2070 is impossible with an accuracy of 0.4835"
    assert f"MobileNet mn_resultset5: {impossible}" in found[1]
    assert reproduction.impossible_figures(ORIGINAL.rows) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no folder profiles/originals/ours; there is: blood-cells"),
        (
            lambda folder: (folder / "source.yaml").unlink(),
            "profiles/originals/ours/source.yaml is missing: add it, or remove study.original",
        ),
        (
            lambda folder: (folder / "source.yaml").write_text("title: A study\n"),
            "source.yaml: url: missing",
        ),
        (
            lambda folder: edit(folder, "hidden_layers,units", "layers,width"),
            "profiles/originals/ours/table.csv: lacks the columns hidden_layers, units; it has",
        ),
        (
            lambda folder: edit(folder, ",1,16,", ",1,many,"),
            "profiles/originals/ours/table.csv, line 3: units is 'many': write it like 8",
        ),
        (
            lambda folder: edit(folder, "0:57:24.579436", "57 minutes"),
            "line 3: learning_time is '57 minutes': write it like 1:00:08.099976",
        ),
        (
            lambda folder: (folder / "table.csv").write_text(
                "backbone,model,hidden_layers,units,learning_rate,test_acc\n"
            ),
            "profiles/originals/ours/table.csv: holds no experiment: add a row for each",
        ),
        (lambda folder: (folder / "table.csv").write_bytes(b"a,\xff\n"), "is not a CSV in UTF-8"),
        (
            lambda folder: None,
            "profiles/originals/ours/table.csv: none of its experiments (mn_resultset1,"
            " mn_resultset2, mn_resultset3, ...) is one of params.yaml, by name or by",
        ),
    ],
)
def test_what_cannot_be_reproduced_is_one_line_before_anything_is_trained(tmp_path, spoil, message):
    folder = tmp_path / "profiles/originals/ours"
    shutil.copytree(ROOT / "profiles/originals", folder.parent)
    shutil.copytree(folder.with_name("blood-cells"), folder)
    (tmp_path / "profiles/tiny.yaml").write_text(TINY_PROFILE + "study: {original: ours}\n")
    params = TINY_PARAMS.replace("units: 4, learning_rate: 1", "units: 5, learning_rate: 2")
    (tmp_path / "params.yaml").write_text(params)
    spoil(folder)
    with pytest.raises(StudyError) as error:
        check(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def edit(folder, before, after):
    path = folder / "table.csv"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_table_of_what_is_required_alone_is_set_beside_ours(tmp_path):
    folder = tmp_path / "profiles/originals/least"
    folder.mkdir(parents=True)
    (folder / "source.yaml").write_text("title: A study\nurl: https://example.org/study\n")
    (folder / "table.csv").write_text(
        "backbone,model,hidden_layers,units,learning_rate,test_acc\nResNet50,wide,1,64,1e-4,0.9\n"
    )
    least = read_original("least", tmp_path)
    summaries = summaries_of([run_of(name="ours", units=64, learning_rate=1e-4, test=0.85)])
    accuracies, times = reproduction.tables_beside_ours("Original", least.rows, summaries)
    assert "| **wide** | 1 × D(64) | 1e-4 | 90.00% | 85.00% | -5.00 |" in accuracies
    assert "| not given | 0:01:00.000000 |" in times
    found = reproduction.table_findings(least.rows) + reproduction.impossible_figures(least.rows)
    assert (found, reproduction.size_findings(least)) == ([], [])
