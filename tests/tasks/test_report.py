"""The report from plausible made-up results: the real entry point, its bytes, its marks, its
error messages.
"""

import json
import re
import shutil
from dataclasses import replace

import numpy
import pandas
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from hemotune.errors import StudyError
from hemotune.evaluation.calibration import calibrate
from hemotune.evaluation.contrasts import Contrast
from hemotune.evaluation.leaks import Controls, SharedPhotographs
from hemotune.original import seconds_of
from hemotune.prediction import knowledge
from hemotune.settings.study import Words
from tasks.report import best_model, findings, health
from tasks.report.comparisons import Comparison
from tasks.report.figures import class_labels
from tasks.report.markdown import duration, milliseconds, origin, rate
from tasks.report.mistakes import f1_table
from tasks.report.model_card import explain_choice, origin_of_test
from tasks.report.results import (
    best_by_validation,
    best_of,
    summaries_of,
)
from tasks.report.runs import read_runs
from tasks.report.soundness import Problem
from tasks.report.study import read_study
from tasks.report.trust import warnings_of
from tests.conftest import ROOT, python
from tests.hemotune.drawn_predictions import judged, table_of
from tests.tasks.made_up_study import (
    control,
    report_here,
    run_of,
    some,
    summary_of,
    write_json,
    write_study,
)

WORDS = Words(unit="photograph")
HOSTILE = ["$x_$ \\frac{ _g_", "<img src=x onerror=alert(1)>", "`tick` ~~f~~", "a|b* [c](d) *e"]


# What a second row sets, and further rows, each beside the first with another factor changed.
FACTORS_OF_ROWS = """units: 16, learning_rate: 1.0e-5}
  frozen: {layers: 1, units: 8, learning_rate: 1.0e-5, freeze: conv5_block1}
  average: {layers: 1, units: 8, learning_rate: 1.0e-5, head: average}
  longer: {layers: 1, units: 8, learning_rate: 1.0e-5, epochs: 20}
  best: {layers: 1, units: 8, learning_rate: 1.0e-5, keep: best}"""


def run_report(root, *arguments):
    """Run the stage as DVC does."""
    return python("tasks.report", *arguments, cwd=root, PYTHONPATH=str(ROOT))


def contents(root):
    """Return {name: bytes} of everything that the report writes."""
    files = [root / "reports" / name for name in ("study.md", "results.csv", "model_card.md")]
    files = [*files, *sorted((root / "reports/figures").iterdir())]
    files += sorted((root / "data/models/best").iterdir())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A complete made-up study and what the report printed; do not change it."""
    root = tmp_path_factory.mktemp("study")
    write_study(root, classes=HOSTILE)
    write_json(
        root / "data/controls.json",
        {"random": control(0.97, 1.0), "held-out": control(0.60, 0.0)},
    )
    return root, report_here(root)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three experiments in one protocol, not yet reported."""
    root = tmp_path_factory.mktemp("small")
    write_study(root, some(3, "[held-out-1]"))
    return root


def test_report_is_written_and_printed(study):
    root, (status, printed) = study
    assert status == 0, printed
    assert "mn_resultset5" in printed and "reports/study.md" in printed and "**" not in printed
    text = (root / "reports/study.md").read_text()
    assert "ResNet50 - F - D(8) - D(8) - D(8)" in text
    assert text.index("**This is the sample.**") < text.index("## 1.")
    assert "multiplies every rate by 3" in text and "Learning Rate: 5e-5 (applied: 1.5e-4)" in text
    assert text.index("no two images have the same bytes") < text.index("## 1.")
    assert "turned off:** `imbalance`" in text and "different software" not in text
    assert "None" not in text and not re.search(r"\bnan\b", text)


def test_nothing_is_cut_off_in_a_figure(study):
    figures = sorted((study[0] / "reports/figures").glob("*.png"))
    assert len(figures) > 15
    for path in figures:
        pixels = numpy.asarray(Image.open(path).convert("L"))
        edges = numpy.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert edges.min() == 255, path.name


def test_a_control_close_to_the_model_is_reported_at_the_top(study):
    text = (study[0] / "reports/study.md").read_text()
    top = text[: text.index("## 1.")]
    assert (
        "Do not trust the accuracies of `random`.** 100.00% of the test images come from"
        " photographs" in top
    )
    assert (
        "Matching colours alone is close to the models of `random`" in top
        and "scores 97.00%" in top
    )
    assert "of `held-out`" not in top
    assert "97.00%" not in (study[0] / "reports/model_card.md").read_text()


def test_findings_only_where_the_interval_allows(study):
    text = (study[0] / "reports/study.md").read_text()
    assert (
        "**Units of the hidden layers, random:** Accuracy not significantly different: 8 → 16"
        in text
    )
    assert re.search(
        r"\*\*Hidden layers, random:\*\* .*1 → 3: the second trained model is 4\d\.\d\d points"
        r" worse than the first \(95 % interval -.*This compares trained models, not the factor",
        text,
    )
    assert "raised accuracy" not in text and "lowered accuracy" not in text
    contrast = Contrast(0.02, None, (), (3, 3), 3, 240, 40, 40)
    change = Comparison(
        *(0.02, 0.001, 0.04, 240, 40, 3, 0.01, True), contrast=contrast, trainings=(3, 3)
    )
    first, second = summary_of(0.95, units=8, seconds=10), summary_of(0.95, units=16, seconds=15)
    certain = findings.Effect("units", "s", first, second, change, adjusted=0.01)
    corrected = replace(certain, adjusted=0.2)
    (text,) = findings.findings_of([certain])
    assert "8 → 16 raised accuracy by 2.00 points" in text and "not significantly" not in text
    (text,) = findings.findings_of([corrected])
    assert "Accuracy not significantly different: 8 → 16." in text
    assert "raised" not in text and "× 1.50" in text
    dead = Problem("dead_units", "5 of 8 units are dead", ["a lower rate"])
    unsound = summary_of(0.95, "dead", units=16, problems=[dead])
    (text,) = findings.findings_of([replace(certain, second=unsound)])
    assert re.search(r"raised accuracy by .*\), but the training of dead is unsound\.", text)
    (text,) = findings.findings_of([replace(corrected, second=unsound)])
    assert "not significantly different: 8 → 16 (the training of dead is unsound)." in text
    assert findings.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_an_effect_compares_what_differs_in_one_factor_alone():
    grid = [
        ("e1", 1, 8, 1e-5),
        ("e2", 1, 16, 1e-5),
        ("e3", 2, 8, 1e-5),
        ("e4", 1, 8, 1e-4),
        ("e5", 3, 32, 1e-3),
    ]
    runs = [
        run_of(
            judged(skill=4.0 if layers == 2 else 0.3, trained=10 * number + repeat),
            name,
            layers=layers,
            units=units,
            learning_rate=rate,
            repeat=repeat,
            seconds=10.0 * layers,
        )
        for number, (name, layers, units, rate) in enumerate(grid)
        for repeat in (1, 2, 3)
    ]
    units, layers, rates = findings.effects_of(summaries_of(runs))
    assert [effect.factor for effect in (units, layers, rates)] == [
        "units",
        "layers",
        "learning_rate",
    ]
    assert (layers.first.experiment, layers.second.experiment) == ("e1", "e3")
    assert (layers.values, layers.verdict, layers.time_ratio) == ("1 → 2", "higher", 2.0)
    assert 0 < layers.change.low <= layers.change.value <= layers.change.high
    expected = [run.judged["correct"].mean() for run in runs]  # e1, e2, e3, ... three times each
    difference = sum(expected[6:9]) / 3 - sum(expected[:3]) / 3
    assert layers.change.value == pytest.approx(difference)
    assert (layers.change.trainings, layers.change.contrast.repeats) == ((3, 3), (3, 3))
    assert (units.values, units.verdict) == ("8 → 16", "not significantly different")
    assert units.change.low < 0 < units.change.high


def test_unsound_trainings_are_named_and_counted(small, tmp_path):
    root = tmp_path / "unsound"
    shutil.copytree(small, root)
    path = root / "data/results/mn_resultset2-ResNet50-held-out-1/metrics.json"
    health = json.loads(path.read_text())["health"]
    health["hidden"][0]["dead"] = 9
    change_metrics(path, health=health | {"fit_accuracy": 0.999})
    status, printed = report_here(root)
    assert status == 0, printed
    text = (root / "reports/study.md").read_text()
    top = text[: text.index("## 1.")]
    assert "**1 of 3 trainings is unsound**" in top
    (line,) = [
        line
        for line in top.splitlines()
        if "9 of 16 units of dense_0 are zero on every training image" in line
    ]
    assert line.startswith("> - `mn_resultset2-ResNet50-held-out-1`: ")
    assert (
        "but the fit reported 99.90% with it. Try `head: average`, `warm_up` or a lower rate."
        in line
    )
    row = "The training of mn_resultset2 at 1e-5 is unsound: dead units; below the fit."
    assert row in text[text.index("## 3.") : text.index("### 3.1.")] and row in printed
    assert re.search(r"\| 9 of 16 \|.*\| \*\*unsound\*\*: dead units, below the fit \|", text)
    assert len(re.findall(r"\| 1 of \d+ \|.*\| sound \|", text)) == 2
    assert "**This training is unsound.**" in (root / "reports/model_card.md").read_text()
    assert "**Its training is unsound:** 9 of 16 units of dense_0 are zero" in text
    assert len(knowledge.read(root / "data/models/best").use.unsound) == 2


def test_rows_say_how_many_of_their_trainings_are_unsound():
    dead = Problem("dead_units", "5 of 8 units of dense are dead", ["a lower rate"])
    low = Problem("chance", "validation is low", ["more `epochs`"])
    problems = {"a": [[dead], [dead, low], []], "b": [[], []], "c": [[low]]}
    rows = summaries_of(
        [
            run_of(None, name, repeat=repeat, problems=found, learning_rate=1e-4)
            for name, trainings in problems.items()
            for repeat, found in enumerate(trainings, 1)
        ]
    )
    assert health.unsound_rows(rows) == [
        "2 of 3 trainings of a at 1e-4 are unsound: dead units in 2; at chance in 1.",
        "The training of c at 1e-4 is unsound: at chance.",
    ]
    assert health.note_on(*rows[:2]) == "2 of 3 trainings of a are unsound"
    assert health.note_on(rows[1]) == ""


def test_metrics_of_an_earlier_version_are_refused_in_one_line(small, tmp_path):
    root = tmp_path / "earlier"
    shutil.copytree(small, root, ignore=shutil.ignore_patterns("figures", "images.npy"))
    path = root / "data/results/mn_resultset2-ResNet50-held-out-1/metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["health"]
    write_json(path, metrics)
    status, printed = report_here(root)
    assert (status, printed.count("\n")) == (1, 1), printed
    assert "mn_resultset2-ResNet50-held-out-1/metrics.json: health: Field required" in printed


def test_model_card_is_of_the_model_with_the_best_validation_accuracy(study):
    table = pandas.read_csv(study[0] / "reports/results.csv").query("protocol == 'held-out'")
    best = table.sort_values("validation_accuracy").iloc[-1]
    card = (study[0] / "reports/model_card.md").read_text()
    assert (
        f"data/models/{best['key']}/model.keras" in card
        and f"**{100 * best['test_accuracy']:.2f}% [" in card
    )
    for heading in (
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
    ):
        assert f"## {heading}\n" in card
    assert "Not for diagnosis" in card


def test_the_best_model_is_copied_with_what_is_known_of_it(study):
    """It is the one of the model card; without held-out photographs it gives no sets."""
    root = study[0]
    use = knowledge.read(root / "data/models/best").use
    assert use.protocol == "held-out" and f"`data/models/{use.key}/model.keras`" in (
        (root / "reports/model_card.md").read_text()
    )
    assert (root / "data/models/best/model.keras").read_text() == use.key
    split = json.loads((root / "data/splits/held-out-1.json").read_text())
    found = use.calibration
    assert found.images == len(split["validation"]) and found.no_sets is None
    assert 0 < found.threshold < 1 and found.error_after < found.error_before
    text = (root / "reports/study.md").read_text()
    assert f"`data/models/best` holds `{use.key}`, the best by validation of `held-out`" in text
    assert "Its sets hold the truth for 90% of images of new photographs." in text
    assert len(re.findall(r"\(15 bins\), and [\d.]+% after temperature scaling", text)) == 2

    of_random = [run_of(name="a", validation=(0.9, 0.4))]
    held_out = [run_of(name=name, validation=(0.6, 0.4), protocol="held-out") for name in "bc"]
    folds = [run_of(name="d", validation=(0.7, 0.4), protocol="fold-1", fold=1)]
    for runs, best in (
        ([*of_random, *held_out, *folds], held_out[0]),
        ([*of_random, *folds], folds[0]),
        (of_random, of_random[0]),
        ([], None),
    ):
        assert best_model.choose(runs) is best
    shared = calibrate(judged(photographs=40), shared=True)
    words = best_model.describe(use.model_copy(update={"calibration": shared}))
    assert words.endswith(
        "It gives no sets that hold the truth: images of one photograph are in training and in"
        " validation (protocol random)."
    )


def test_names_are_shown_as_they_are_whatever_they_hold(study):
    rendered((study[0] / "reports/study.md").read_text())
    texts, _ = rendered((study[0] / "reports/model_card.md").read_text())
    assert any(
        f"a probability for each of {', '.join(HOSTILE[:3])} and {HOSTILE[3]}" in text
        for text in texts
    )


def test_backbones_repeats_and_unknown_photographs(tmp_path):
    root = tmp_path / "axes"
    write_study(root, some(2, "[random-1, random-2]", "[ResNet50, MobileNet]"), classes=HOSTILE)
    (root / "data/photographs.parquet").unlink()
    other_software = {
        "precision": "mixed_bfloat16",
        "versions": {"python": "3.11.9", "jax": "0.5.0", "keras": "3.10.0"},
    }
    change_metrics(
        root / "data/results/mn_resultset2-MobileNet-random-1/metrics.json", **other_software
    )
    change_metrics(
        root / "data/results/mn_resultset2-ResNet50-random-1/metrics.json",
        pretraining=other_software,
    )
    status, printed = report_here(root, "--without-images")
    assert status == 0, printed
    text = (root / "reports/study.md").read_text()
    assert "### 6.1. Backbones" in text and "| **MobileNet, random** |" in text
    assert "`ResNet50 - F - D(16)` and `MobileNet - F - D(16)`" in text
    # All runs at the top and in the terminal; below a table the runs of its rows.
    ours, other = (
        "keras 3.10.0, tensorflow 2.19.0, float32",
        "jax 0.5.0, keras 3.10.0, mixed_bfloat16",
    )
    top, tables = text.split("## 1. ")
    mixed = f"{ours} (pre-trained with {other})"
    assert software_lines(top) == software_lines(printed) == [{other: 1}, {ours: 6}, {mixed: 1}]
    assert software_lines(tables) == [{ours: 3}, {mixed: 1}, {other: 1}, {ours: 3}]
    assert pandas.read_csv(root / "reports/results.csv")["software"].tolist() == [ours] * 2 + [
        mixed
    ] + [ours] * 3 + [other, ours]
    assert "| Repeats |" in text and "means of 2 repeats" in text
    assert "The photographs are unknown" in text and "too narrow" in text
    assert "| Image | Truth | Prediction |" in text and not list(
        (root / "reports/figures").glob("errors-*")
    )
    assert "The data validation found problems**:" in text and "validation/index.html" not in text
    assert "There is no model card" in (root / "reports/model_card.md").read_text()
    sister = re.search(
        r"\| \*\*mn_resultset2\*\* \| MobileNet, 1 × D\(16\) \| 1e-5 \| 99.04% \| (\S+)% \|"
        r" (\S+) \|",
        text,
    )
    assert float(sister[1]) - 99.04 == pytest.approx(float(sister[2]), abs=0.011)
    _, heads = rendered(text)
    end = heads.index("Mean (macro)")
    assert heads[end - 5 : end] == ["Model", *HOSTILE]


def test_folds_are_one_series_and_a_missing_run_of_a_repeat_is_named(tmp_path):
    root = tmp_path / "folds"
    entries = [f"fold-{fold}-{repeat}" for fold in range(1, 6) for repeat in (1, 2)]
    write_study(root, some(2, f"[random-1, {', '.join(entries)}]"))
    study = read_study(root)
    random, whole = summaries_of(read_runs(root, study))[::2]
    assert (random.series, whole.series) == ("random", "5 folds")
    inventory = pandas.read_parquet(root / "data/inventory.parquet")
    for repeat, table in zip((1, 2), whole.judged, strict=True):
        assert table.index.tolist() == sorted(inventory["path"])
        for run in whole.by_repeat[repeat]:
            assert run.repeat == repeat and table.loc[run.judged.index].equals(run.judged)
    expected = [table["correct"].mean() for table in whole.judged]
    assert whole.accuracies == pytest.approx(expected)
    assert whole.accuracy == pytest.approx(sum(expected) / 2)

    shutil.rmtree(root / "data/results/mn_resultset1-ResNet50-fold-3-2")
    status, printed = report_here(root, "--incomplete")
    assert status == 0, printed
    text = (root / "reports/study.md").read_text()
    assert "2 experiments × 1 backbone × 11 trainings (1 of `random` and 10 of `5 folds`)" in text
    assert "Incomplete: 1 of 22" in text
    assert "- **mn_resultset1** is without `fold-3-2`: its figures are those of the others." in text
    assert "**Results, 5 folds** — **sample** (drawn images), each image tested in its fold" in text
    left = summaries_of(read_runs(root, study, incomplete=True))[2]
    assert [len(table) for table in left.judged] == [len(inventory), len(inventory) * 4 // 5]
    (row,) = re.findall(r"\| \*\*mn_resultset1\*\* \| 1 \| 8 \| 1e-5 \| ([^|]*)% \|", text)[1:2]
    answers = pandas.concat([table["correct"] for table in left.judged]).groupby(level=0)
    assert float(row.strip("*")) == pytest.approx(100 * answers.mean().mean(), abs=0.011)
    best = re.search(r"### 7.2. 5 folds\n\nBest by validation: .*", text)[0]
    assert re.search(r", the 5 trainings of repeat 1, each on its own fold\.$", best)
    # What Prefect's page shows is what the report says, photographs and trainings crossed.
    for name, *found in pandas.read_csv(root / "reports/summary.csv").iloc[:, :3].to_numpy():
        assert f"| **{name}** | {' '.join(found)} |" in text

    kept = {"1-ResNet50-fold-1-1", "1-ResNet50-fold-2-2", "2-ResNet50-fold-3-1"}
    for folder in (root / "data/results").glob("*-fold-*"):
        if folder.name.removeprefix("mn_resultset") not in kept:
            shutil.rmtree(folder)
    status, printed = report_here(root, "--incomplete")
    assert status == 0, printed
    assert "tested on other images" in (root / "reports/study.md").read_text()


def rendered(markdown):
    """Return the texts and heads of tables that Markdown shows; the hostile classes are cells, and
    nothing is HTML.
    """
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(markdown)
    texts = ["".join(child.content for child in token.children or []) for token in tokens]
    inside = [child for token in tokens for child in token.children or []]
    assert {t.content for t in [*tokens, *inside] if t.type.startswith("html")} <= {
        "<code>",
        "</code>",
    }
    heads = [texts[place + 1] for place, token in enumerate(tokens) if token.type == "th_open"]
    cells = [texts[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    assert set(HOSTILE) <= set(cells)
    return texts, heads


@pytest.mark.parametrize(
    ("accuracy", "control", "expected"),
    [
        (0.95, control(0.62, 0.0), []),
        (0.95, control(0.62, 0.04), []),
        (0.95, control(0.62, None), []),
        (
            0.95,
            control(0.62, 0.83),
            [
                "Do not trust the accuracies of `random`.** 83.00% of the test images come from "
                "photographs"
            ],
        ),
        (
            0.95,
            control(0.97, 0.83),
            [
                "Do not trust",
                "Matching colours alone is close to the models of `random`, or beats them",
            ],
        ),
        (
            0.95,
            control(0.92, 0.0),
            [
                "scores 92.00% on this split; the best model reaches 95.00% (narrow). "
                "Train and test share no photograph"
            ],
        ),
        (
            0.95,
            control(0.92, 0.025),
            ["Only 2.50% of the test images come from photographs that are also in train: this is"],
        ),
        (
            0.95,
            control(0.92, 0.0, 40),
            ["It is not known whether train and test share photographs."],
        ),
        (0.95, control(0.92, None), ["It is not known whether"]),
        (0.95, control(1.0, 0.0), ["Matching colours alone", "Matching thumbnails alone"]),
        (
            0.55,
            control(0.97, None),
            ["The models of `random` are at chance.** The best test accuracy is 55.00% (narrow)"],
        ),
        (0.55, control(0.62, 0.83), ["are at chance", "83.00% of the test images"]),
    ],
)
def test_warnings_follow_what_was_counted(accuracy, control, expected):
    controls = {"random": Controls.model_validate(control)}
    found = warnings_of([summary_of(accuracy)], controls, WORDS)
    assert len(found) == len(expected) and all(
        part in warning for part, warning in zip(expected, found, strict=True)
    ), found


def test_models_close_to_a_constant_prediction_are_named():
    often = control(0.5, 0.0)
    often["majority_class"]["accuracy"] = 0.7
    summary = summary_of(0.75, photographs=800)
    assert summary.per_image.low > 0.7
    (found,) = warnings_of([summary], {"random": Controls.model_validate(often)}, WORDS)
    assert (
        "are hardly better than a constant prediction.** Always predicting the most frequent class "
        "scores 70.00%" in found
    )


def test_rows_that_tie_are_all_named():
    rows = [summary_of(0.5, name) for name in "abcdefg"]
    worse = summary_of(0.4, "worse")
    assert [row.experiment for row in best_of([worse, *rows])] == list("abcdefg")
    controls = {"random": Controls.model_validate(control(0.9, 0.0))}
    assert "is 50.00% (7 rows tie);" in warnings_of([worse, *rows], controls, WORDS)[0]
    assert "is 50.00% (a and b);" in warnings_of([worse, *rows[:2]], controls, WORDS)[0]
    runs = [
        run_of(name=name, validation=(0.5, loss)) for name, loss in (("a", 1), ("b", 1), ("c", 2))
    ]
    expected = (
        "; of 3 tied models, the one with the lowest validation loss was taken (the first of 2 "
        "that also tie in this)."
    )
    assert explain_choice(best_by_validation(runs), runs).endswith(
        f"{expected} Its test accuracy is the highest, shared with 2 others."
    )
    runs[2] = run_of(name="c", validation=(0.5, 2), test=0.6)
    assert explain_choice(best_by_validation(runs), runs).endswith(
        "Test accuracy was not used; the highest is 60.00% (c)."
    )


def test_a_class_without_test_images_does_not_lower_the_mean():
    # Of A; there is no image of B.
    (summary,) = summaries_of([run_of(table_of([1, 1, 1]))])
    assert "| **narrow** | 100.00% | no test images | 100.00% |" in f1_table([summary])


def test_groups_that_were_found_are_not_called_photographs():
    names = ["BloodImage_00023.jpg", "group-00035", "single-00036", "group-7", None]
    assert [origin(name, WORDS) for name in names] == [
        "photograph BloodImage_00023.jpg",
        "group 35 of similar images",
        "similar to no other image",
        "photograph group-7",
        "photograph unknown",
    ]


def test_long_names_of_classes_stay_apart_beside_an_axis():
    stained = [
        f"{kind} granulocyte of the peripheral blood, stained after Wright"
        for kind in ("segmented", "band")
    ]
    labels = class_labels(stained)
    assert (
        labels[0].startswith("segmented granulocyte")
        and max(len(line) for label in labels for line in label.split("\n")) <= 24
    )
    alike = class_labels(
        [
            f"a name that only differs in the middle, here {n}, and continues for very long"
            for n in (1, 2)
        ]
    )
    assert [label[:2] for label in alike] == ["1 ", "2 "]


def change_metrics(path, **values):
    """Change values in a run's metrics.json."""
    write_json(path, json.loads(path.read_text()) | values)


def software_lines(text):
    """The lines on different software: {software: number of runs}."""
    lines = re.findall(
        r"^(?:> )?- ((?:jax|keras) .*): (.*?)(?: and (\d+) more)?$", text, re.MULTILINE
    )
    return [{software: runs.count("-random-") + int(more or 0)} for software, runs, more in lines]


def test_results_csv_has_one_sorted_row_a_run(study):
    table, times = (
        pandas.read_csv(study[0] / "reports" / name) for name in ("results.csv", "times.csv")
    )
    assert list(times["key"]) == list(table["key"])
    assert list(table["key"]) == [
        f"mn_resultset{i}-ResNet50-{p}-1" for p in ("random", "held-out") for i in range(1, 8)
    ]
    assert times["learning_time"][1] == "0:01:01.234567" and times["learning_time_ms"][1] == 61234


def test_every_link_resolves(study):
    text = (study[0] / "reports/study.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    pictures = {link for link in links if link.endswith(".png")}
    assert len([link for link in pictures if "mn_resultset" in link]) == 14
    for link in pictures:
        assert (study[0] / "reports" / link).read_bytes().startswith(b"\x89PNG"), link
    drawn = {f"figures/{path.name}" for path in (study[0] / "reports/figures").iterdir()}
    assert drawn == pictures


def test_same_results_same_bytes(small, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(small, again)
    # Results of an experiment that params.yaml no longer names are ignored.
    shutil.copytree(
        again / "data/results/mn_resultset1-ResNet50-held-out-1",
        again / "data/results/gone-ResNet50-held-out-1",
    )
    result = run_report(again)
    assert result.returncode == 0, result.stderr
    assert report_here(small)[0] == 0
    assert contents(again) == contents(small)


def test_a_missing_run_is_an_error_or_named_as_failed(small, tmp_path):
    root = tmp_path / "incomplete"
    shutil.copytree(small, root)
    shutil.rmtree(root / "reports/figures", ignore_errors=True)
    shutil.rmtree(root / "data/results/mn_resultset3-ResNet50-held-out-1")
    (root / "data/results/mn_resultset2-ResNet50-held-out-1/metrics.json").unlink()
    (root / ".study/failures").mkdir(parents=True)
    write_json(
        root / ".study/failures/mn_resultset3-ResNet50-held-out-1.json",
        {"reason": "the loss is NaN | at step 7"},
    )
    status, printed = report_here(root)
    assert status == 1
    assert (
        "mn_resultset2-ResNet50-held-out-1/metrics.json is missing" in printed
        and "dvc repro finetune@" in printed
    )
    assert not (root / "reports/figures").exists()
    (root / "data/images.npy").unlink()
    status, printed = report_here(root, "--incomplete")
    assert status == 0, printed
    text = (root / "reports/study.md").read_text()
    assert (
        "`mn_resultset3-ResNet50-held-out-1`: the loss is NaN" in text
        and "`mn_resultset2-ResNet50-held-out-1`: not run" in text
    )
    assert "| **mn_resultset3** | 1 | **32** | 1e-5 | failed |  |" in text
    assert "Incomplete: 2 of 3" in text
    # What Prefect's page shows of it.
    rows = pandas.read_csv(root / "reports/summary.csv").set_index("experiment")
    assert list(rows.columns) == ["accuracy", "95 % interval", "split", "trainings"]
    assert list(rows["trainings"]) == ["1 of 1", "0 of 1", "0 of 1"]
    assert rows.loc["mn_resultset3", "accuracy"] == "failed"
    assert re.fullmatch(r"\d+\.\d\d%", rows.loc["mn_resultset1", "accuracy"])
    assert re.fullmatch(r"\[\d+\.\d\d, \d+\.\d\d\]", rows.loc["mn_resultset1", "95 % interval"])
    # Without images.npy the errors are listed and not drawn.
    assert "| Image | Truth | Prediction |" in text and "figures/errors" not in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(index=5), "1 images without a prediction: T"),
        (lambda frame: pandas.concat([frame, frame.iloc[:1]]), "predicted twice"),
        (
            lambda frame: frame.assign(truth=frame["truth"].replace("MONOCYTE", "NEUTROPHIL")),
            "but MONOCYTE in data/inventory.parquet",
        ),
        (
            lambda frame: frame.assign(probability_MONOCYTE=float("nan")),
            "missing or infinite probability",
        ),
        (
            lambda frame: frame.rename(
                columns={
                    "probability_MONOCYTE": "probability_A",
                    "probability_NEUTROPHIL": "probability_B",
                }
            ),
            "whose truth is none of",
        ),
        (
            lambda frame: frame.rename(
                columns={
                    "probability_MONOCYTE": "probability_NEUTROPHIL",
                    "probability_NEUTROPHIL": "probability_MONOCYTE",
                }
            ),
            "metrics.json has",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused(small, tmp_path, spoil, message):
    key = "mn_resultset2-ResNet50-held-out-1"
    root = tmp_path / "spoiled"
    shutil.copytree(small, root, ignore=shutil.ignore_patterns("figures", "images.npy"))
    path = root / "data/results" / key / "predictions.parquet"
    spoil(pandas.read_parquet(path).reset_index(drop=True)).to_parquet(path)
    with pytest.raises(StudyError, match=message) as error:
        read_runs(root, read_study(root))
    assert key in str(error.value)


def test_results_older_than_params_are_refused(small, tmp_path):
    root = tmp_path / "older"
    shutil.copytree(small, root, ignore=shutil.ignore_patterns("figures", "images.npy"))
    (root / "params.yaml").write_text(some(3, "[held-out-1]").replace("units: 32", "units: 64"))
    with pytest.raises(StudyError, match="units is 32, but the settings have 64 for mn_resultset3"):
        read_runs(root, read_study(root))


def test_factors_that_differ_become_columns_titles_and_findings(tmp_path):
    root = tmp_path / "factors"
    params = some(2, "[random-1]").replace("units: 16, learning_rate: 1.0e-5}", FACTORS_OF_ROWS)
    write_study(root, params)
    status, printed = report_here(root)
    assert status == 0, printed
    text = (root / "reports/study.md").read_text()
    head = "| Model | Hidden Layer | Dense Count | Learning Rate | Epochs | Head | Frozen | Keep |"
    assert f"{head} Accuracy | Learning Time(ms) |" in text
    assert "| **frozen** | 1 | 8 | 1e-5 | 12 | flatten | **conv5_block1** | last |" in text
    assert "2.3. Change the frozen layers to conv5_block1" in text
    assert "- Frozen layers: conv5_block1\n" in text
    assert "`ResNet50 - A - D(8)`" in text
    assert "**A: the mean of each feature map, in place of F**" in text[text.index("## 4.") :]
    assert "**Frozen layers, random:** " in text and "none → conv5_block1" in text
    assert "**Head, random:** " in text and "flatten → average" in text
    assert (
        "**Rows differ in `epochs` and `keep`**, so their selection on validation differs" in text
    )
    assert "12 → 20" in text and "last → best" in text
    assert len(re.findall("Learning time, [^:]* → [^:]*: × ", text)) == 5
    table = pandas.read_csv(root / "reports/results.csv")
    assert table["freeze"].tolist() == ["none", "none", "conv5_block1", "none", "none", "none"]
    assert table["keep"].tolist() == ["last"] * 5 + ["best"]
    assert table["unsound"].isna().all() and set(table["delivered_epoch"]) == {12, 20}


def test_wording_of_numbers():
    assert (
        duration(3608.099976) == "1:00:08.099976"
        and duration(59.9999999) == "0:01:00.000000"
        and duration(90000.5) == "25:00:00.500000"
    )
    assert milliseconds(seconds_of("1:00:08.099976")) == 3608099
    assert [rate(value) for value in (1e-5, 5e-5, 3e-4, 1.5e-3, 0.05)] == [
        "1e-5",
        "5e-5",
        "3e-4",
        "1.5e-3",
        "0.05",
    ]


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        (None, "for which it is unknown whether they come from the same photographs as train"),
        (
            {"share": 0.0, "images": 40, "not_found": 0},
            "all from photographs that are not in train",
        ),
        (
            {"share": 0.0, "images": 40, "not_found": 40},
            (
                "none of them known to be from photographs that are also in train; the photograph "
                "of 40 was not found"
            ),
        ),
        (
            {"share": 0.0245, "images": 40, "not_found": 0},
            "2.45% of them from photographs that are also in train",
        ),
    ],
)
def test_model_card_has_what_is_known_about_the_test(shared, expected):
    assert origin_of_test(shared and SharedPhotographs(**shared), WORDS) == expected
