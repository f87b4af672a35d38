"""What benchmarks compute from a study, on small inputs."""

import math

import numpy as np
import pytest

from benchmarks.label_errors import counts_of, judge_by_probe, make_study
from benchmarks.training_spread import spread_of
from hemotune.evaluation.predictions import per_photograph


def test_the_spread_is_that_on_the_same_images():
    """Five trainings: the interval of their deviation is 0.60 to 2.87 times it."""
    mean, deviation, low, high = spread_of([[0.70, 0.72, 0.74, 0.76, 0.78]])
    assert (mean, deviation) == (pytest.approx(74), pytest.approx(math.sqrt(10)))
    assert low / deviation == pytest.approx(0.60, abs=0.005)
    assert high / deviation == pytest.approx(2.87, abs=0.005)
    # Another fold is easier as a whole, and adds nothing to the spread within folds.
    pooled = spread_of([[0.70, 0.72], [0.90, 0.92]])
    assert pooled[:2] == (pytest.approx(81), pytest.approx(math.sqrt(2)))
    assert math.isnan(spread_of([[0.7], [0.9]])[1])


@pytest.mark.slow
def test_planted_label_errors_are_listed_from_real_folds(tmp_path):
    """A linear probe on colours: what the benchmark does, without pre-training a backbone."""
    wrong = make_study(tmp_path, "ResNet50", size=64, photographs=60, copies=2, images=32, epochs=1)
    images = np.load(tmp_path / "data/images.npy")
    colours = [np.histogramdd(x.reshape(-1, 3), 6, [(0, 256)] * 3)[0].ravel() for x in images]
    features = np.sqrt(colours)
    judged = judge_by_probe(tmp_path, features[:, features.any(axis=0)])
    listed, right, _ = counts_of(judged, wrong)
    assert len(wrong) == 12 and right >= 0.8 * len(wrong)
    # Colours alone get many right labels wrong, and with less confidence than the planted ones.
    votes = per_photograph(judged)
    doubted = votes[~votes["correct"]]
    assert right / listed > 1.2 * doubted["photograph"].isin(wrong).mean()
