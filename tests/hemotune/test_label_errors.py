"""Possible label errors: by hand, planted, and where trainings or photographs are missing."""

import numpy as np
import pandas as pd
import pytest

from hemotune.evaluation.label_errors import count_errors, find_label_errors
from hemotune.evaluation.predictions import judge
from tests.hemotune.drawn_predictions import CLASSES, drawn

# Class A's threshold is (0.9 + 0.7 + 0.2) / 3 = 0.6, B's is (0.9 + 0.35 + 0.3) / 3 = 0.517.
BY_HAND = [
    ("p1", "A", 0.9),
    ("p2", "A", 0.7),
    ("p3", "A", 0.2),  # counts for B
    ("p4", "B", 0.1),
    ("p5", "B", 0.65),  # counts for A
    ("p6", "B", 0.7),  # counts for A
]


def one_training(rows, images=1):
    """A judged table of photographs of two classes: (photograph, truth, probability of A)."""
    predictions = pd.DataFrame(
        [
            {
                "path": f"{photograph}-{copy}",
                "split": "test",
                "truth": truth,
                "probability_A": probability,
                "probability_B": 1 - probability,
            }
            for photograph, truth, probability in rows
            for copy in range(images)
        ]
    )
    photographs = predictions[["path"]].assign(photograph=predictions["path"].str.split("-").str[0])
    return judge(predictions, photographs=photographs)


def test_errors_are_counted_above_the_thresholds():
    probabilities = np.array([[p, 1 - p] for _, _, p in BY_HAND])
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert count_errors(probabilities, labels).tolist() == [[2, 1], [2, 1]]
    # One that reaches no threshold is not counted, and the others of its label stand for it.
    more = np.array([*probabilities.tolist(), [0.55, 0.45], [0.55, 0.45], [0.55, 0.45]])
    counted = count_errors(more, np.array([*labels, 0, 0, 0]))
    np.testing.assert_allclose(counted, [[4, 2], [2, 1]])


def test_as_many_are_listed_as_were_counted_by_their_margins():
    found = find_label_errors([one_training(BY_HAND, images=3)])
    expected = pd.DataFrame(
        {
            "photograph": ["p3", "p6", "p5"],
            "truth": ["A", "B", "B"],
            "suggestion": ["B", "A", "A"],
            "confidence": [0.8, 0.7, 0.65],
            "wrong": 1.0,
            "trainings": 1,
            "images": 3,
            "path": ["p3-0", "p6-0", "p5-0"],
        }
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_trainings_that_know_nothing_list_nothing():
    """The same answer for every image is the most probable, and wrong, for half of them."""
    rows = [(name, truth, 0.7) for name, truth, _ in BY_HAND]
    assert find_label_errors([one_training(rows)]).empty


def test_most_trainings_must_show_it():
    """One sure training outweighs two others in the mean, and not in their number."""
    sure = [("p1", "A", 0.9), ("p2", "A", 0.0), ("p3", "B", 0.3)]
    unsure = [("p1", "A", 0.9), ("p2", "A", 0.55), ("p3", "B", 0.3)]
    sides = [one_training(sure), one_training(unsure)]
    assert find_label_errors(sides[:1])["photograph"].tolist() == ["p2"]
    assert find_label_errors(sides).empty
    found = find_label_errors([*sides, one_training(sure)])
    assert found[["photograph", "trainings"]].to_numpy().tolist() == [["p2", 3]]
    assert found["wrong"].tolist() == [pytest.approx(2 / 3)]


def test_trainings_that_did_not_test_a_photograph_do_not_count():
    complete = one_training(BY_HAND)
    found = find_label_errors([complete, complete.drop("p3-0"), complete.drop("p3-0")])
    assert found[["photograph", "trainings", "wrong"]].to_numpy().tolist() == [
        ["p3", 1, 1.0],
        ["p6", 3, 1.0],
        ["p5", 3, 1.0],
    ]


def test_an_image_without_a_photograph_is_its_own():
    table = one_training(BY_HAND)
    known = find_label_errors([table])
    unknown = find_label_errors([table.assign(photograph=None)])
    assert unknown["photograph"].tolist() == known["path"].tolist()


def test_a_class_that_is_not_in_the_data_is_never_suggested():
    rows = [(photograph, truth, p) for photograph, truth, p in BY_HAND if truth == "A"]
    assert find_label_errors([one_training(rows)]).empty


def planted(seed):
    """400 photographs of which 5 % got another class, as 3 trainings see them, and which those
    are.
    """
    _, photographs = drawn(400, 3)
    names = photographs["photograph"].unique()
    wrong = set(np.random.default_rng(seed).choice(names, 20, replace=False))
    is_wrong = photographs["photograph"].isin(wrong)
    after = dict(zip(CLASSES, [*CLASSES[1:], CLASSES[0]], strict=True))
    tables = []
    for training in range(3):
        predictions, photographs = drawn(400, 3, skill=4.0, seed=seed, trained=training)
        truth = predictions["truth"].where(~is_wrong, predictions["truth"].map(after))
        tables.append(judge(predictions.assign(truth=truth), photographs=photographs))
    return tables, wrong


def test_planted_errors_are_found_and_little_else():
    tables, wrong = planted(seed=5)
    found = find_label_errors(tables)
    assert found["confidence"].is_monotonic_decreasing
    right = wrong & set(found["photograph"])
    assert len(right) >= 0.8 * len(wrong)
    assert len(right) >= 0.6 * len(found)


def test_the_order_of_trainings_and_images_does_not_matter():
    tables, _ = planted(seed=6)
    again = find_label_errors([table.sample(frac=1, random_state=1) for table in reversed(tables)])
    pd.testing.assert_frame_equal(find_label_errors(tables), again)
