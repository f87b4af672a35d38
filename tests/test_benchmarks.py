"""What benchmarks compute from a study, on small inputs."""

import math

import pytest

from benchmarks.training_spread import spread_of


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
