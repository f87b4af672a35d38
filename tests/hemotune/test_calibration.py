"""Temperature scaling and sets of classes, on predictions drawn at random."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from hemotune.evaluation import calibration
from hemotune.evaluation.calibration import FEWEST, LEVEL, calibrate
from hemotune.evaluation.statistics import expected_calibration_error
from tests.hemotune.drawn_predictions import CLASSES, judged, table_of


class Recorded(ClassifierMixin, BaseEstimator):
    """A classifier whose input is what it answers."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]


def test_the_temperature_is_the_one_that_scikit_learn_finds():
    table = judged(photographs=200, skill=1.0)
    probabilities = calibration.probabilities_of(table)
    rows = np.arange(len(table))
    truths = table["truth"].to_numpy(str)
    answers = FrozenEstimator(Recorded().fit(probabilities, truths))
    theirs = CalibratedClassifierCV(
        answers, method="temperature", cv=[(rows, rows)], ensemble=False
    ).fit(probabilities, truths)
    ours = calibration.rescale(probabilities, calibration.fit_temperature(table))
    np.testing.assert_allclose(ours, theirs.predict_proba(probabilities), atol=1e-3)


def test_a_temperature_repairs_what_is_too_sure_and_changes_no_class():
    table = judged(photographs=300, copies=2, skill=0.5)
    sharp = calibration.with_temperature(table, 1 / 3)
    repaired = calibration.with_temperature(sharp, calibration.fit_temperature(sharp))
    assert (repaired["prediction"] == table["prediction"]).all()
    assert expected_calibration_error(repaired) < expected_calibration_error(sharp) / 3
    assert repaired[[f"probability_{name}" for name in CLASSES]].sum(axis=1).round(9).eq(1).all()


def test_many_images_of_one_photograph_count_as_one():
    few = table_of([1, 0, 1, 1], photographs=["a", "b", "c", "d"])
    few = calibration.with_temperature(few, 8.0)
    many = table_of([1] + [0] * 50 + [1, 1], photographs=["a", *["b"] * 50, "c", "d"])
    many = calibration.with_temperature(many, 8.0)
    assert calibration.fit_temperature(many) == pytest.approx(calibration.fit_temperature(few))


def test_a_model_without_a_mistake_becomes_no_surer():
    right = calibration.with_temperature(table_of([1, 1, 1], photographs=["a", "b", "c"]), 20.0)
    assert calibration.fit_temperature(right) == pytest.approx(1.0, abs=1e-3)


def test_sets_hold_the_truth_of_new_photographs():
    """The mean over 60 studies, in each of which 500 further photographs are predicted; images of
    one photograph err together.
    """
    covered = []
    for seed in range(60):
        table = judged(photographs=50 + 500, copies=4, skill=1.0, seed=seed)
        old = table["photograph"] < "BloodImage_00050"
        fitted = calibrate(table[old], shared=False)
        assert fitted.photographs == 50 and fitted.no_sets is None
        new = calibration.with_temperature(table[~old], fitted.temperature)
        held = calibration.own_probabilities(new) >= fitted.threshold
        covered.append(held.mean())
        chosen = calibration.sets(calibration.probabilities_of(new), fitted.threshold)
        truths = np.array([CLASSES.index(name) for name in new["truth"]])
        np.testing.assert_array_equal(chosen[np.arange(len(new)), truths], held)
    assert LEVEL - 0.005 < np.mean(covered) < LEVEL + 0.03
    assert np.std(covered) > 0.02  # of single studies some lie lower, as the method allows


def test_no_sets_where_nothing_justifies_them():
    many = judged(photographs=40)
    few = many[many["photograph"] < f"BloodImage_{FEWEST - 1:05}"]
    unknown = many.assign(photograph=None)
    for table, shared, reason, words in (
        (many, True, "shared", "images of one slide are in training and in validation"),
        (unknown, False, "unknown", "it is unknown which images share a slide"),
        (few, False, "few", "validation has 19 slides, and sets need 20 or more"),
    ):
        found = calibrate(table, shared)
        assert found.threshold is None and found.no_sets == reason
        assert words in calibration.why_no_sets(found, "slide", "slides")
    assert calibration.why_no_sets(calibrate(many, shared=False), "slide", "slides") is None
