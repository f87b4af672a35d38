"""What a prediction is judged to be, image by image and photograph by photograph."""

import numpy as np
import pandas as pd
import pytest

from hemotune.errors import StudyError
from hemotune.evaluation import statistics
from hemotune.evaluation.predictions import judge, per_photograph
from tests.hemotune.drawn_predictions import CLASSES, drawn, table_of


def test_judge_keeps_the_most_probable_class_and_the_split():
    predictions, grouped = drawn()
    other = predictions.assign(split="validation")
    table = judge(
        pd.concat([other, predictions]).sample(frac=1, random_state=1),
        images=predictions["path"],
        photographs=grouped,
    )
    rows = predictions.sort_values("path")
    expected = (
        rows[[f"probability_{c}" for c in CLASSES]].idxmax(axis=1).str.removeprefix("probability_")
    )
    assert table.index.tolist() == rows["path"].tolist()
    assert table["prediction"].tolist() == expected.tolist()
    assert table["correct"].tolist() == (expected == rows["truth"]).tolist()


def change(frame, row, **values):
    for column, value in values.items():
        frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.iloc[1:], "1 images without a prediction: TEST/EOSINOPHIL/_0000.jpeg"),
        (lambda p: pd.concat([p, p.iloc[:2]]), "2 images predicted twice"),
        (lambda p: change(p, 3, path="TEST/none.jpeg"), "without a prediction"),
        (
            lambda p: pd.concat([p, p.iloc[:1].assign(path="TEST/more.jpeg")]),
            "not in the split 'test': TEST/more.jpeg",
        ),
        (
            lambda p: change(p, 3, probability_MONOCYTE=np.nan),
            "1 images with a missing or infinite probability",
        ),
        (
            lambda p: change(p, 3, probability_MONOCYTE=p.loc[3, "probability_MONOCYTE"] + 0.1),
            "do not sum to one",
        ),
        (lambda p: change(p, 3, probability_MONOCYTE=-0.2), "negative"),
        (lambda p: change(p, 3, truth="BASOPHIL"), "truth is none of EOSINOPHIL"),
        (lambda p: p.assign(split="validation"), "no image of the split 'test'"),
        (lambda p: p.drop(columns="truth"), "lack the columns truth"),
        (lambda p: p[["path", "split", "truth"]], "two or more probability_CLASS"),
    ],
)
def test_bad_predictions_are_refused(spoil, message):
    predictions, grouped = drawn()
    images = predictions["path"].tolist()
    with pytest.raises(StudyError, match=message):
        judge(spoil(predictions.copy()), images=images, photographs=grouped)


def test_an_image_without_a_photograph_is_refused():
    predictions, grouped = drawn()
    with pytest.raises(StudyError, match="1 images without a group"):
        judge(predictions, photographs=grouped.iloc[:-1])
    with pytest.raises(StudyError, match="with two groups"):
        judge(predictions, photographs=pd.concat([grouped, grouped.iloc[:1]]))


def test_the_majority_of_copies_decides_and_ties_go_to_the_mean_probability():
    rows = [
        ("a1", "A", 0.9),
        ("a2", "A", 0.4),
        ("a3", "A", 0.4),
        ("b1", "A", 0.9),
        ("b2", "A", 0.4),
        ("c1", "B", 0.6),
        ("c2", "B", 0.1),
    ]
    predictions = pd.DataFrame(
        {"path": [r[0] for r in rows], "split": "test", "truth": [r[1] for r in rows]}
    )
    predictions["probability_A"] = [r[2] for r in rows]
    predictions["probability_B"] = 1 - predictions["probability_A"]
    grouped = pd.DataFrame({"path": predictions["path"], "photograph": predictions["path"].str[0]})
    table = per_photograph(judge(predictions, photographs=grouped))
    # a: two of three are B, the mean is A; b: a tie, the mean of A is 0.65; c: a tie, the
    # mean of B is 0.65
    assert table["prediction"].tolist() == ["B", "A", "B"]
    assert statistics.accuracy(table).value == pytest.approx(2 / 3)
    assert table["images"].tolist() == [3, 2, 2]


def test_a_photograph_of_two_truths_counts_once_for_each():
    predictions, grouped = drawn(photographs=8, copies=4)
    table = per_photograph(
        judge(predictions, photographs=grouped.assign(photograph="the only one"))
    )
    assert table["truth"].tolist() == CLASSES
    assert statistics.accuracy(table).low is None


def test_per_photograph_needs_photographs():
    with pytest.raises(StudyError, match="photographs.parquet"):
        per_photograph(table_of([1, 0, 1]))
