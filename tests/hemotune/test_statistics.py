"""Every figure against a second, independent way of computing it, on known data."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hemotune.errors import StudyError
from hemotune.evaluation import statistics
from hemotune.evaluation.predictions import judge, per_photograph
from tests.hemotune.drawn_predictions import CLASSES, drawn, judged, table_of


def test_the_interval_agrees_with_scipy_on_equal_photographs():
    table = judged()
    got = statistics.accuracy(table)
    means = table.groupby("photograph")["correct"].mean().to_numpy()
    expected = scipy.stats.bootstrap(
        (means,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert got.value == pytest.approx(means.mean())
    assert got.low == pytest.approx(expected.low, abs=0.01)
    assert got.high == pytest.approx(expected.high, abs=0.01)
    assert (got.units, got.photographs, got.repeats) == (240, 40, 1)
    assert statistics.accuracy(table) == got


def test_the_interval_of_copies_is_wider_than_that_of_images():
    predictions, grouped = drawn()
    by_photograph = statistics.accuracy(judge(predictions, photographs=grouped))
    by_image = statistics.accuracy(judge(predictions))
    assert by_photograph.high - by_photograph.low > 1.3 * (by_image.high - by_image.low)
    assert by_image.photographs is None


def test_one_image_a_photograph_gives_the_plain_binomial_interval():
    correct = np.random.default_rng(5).random(500) < 0.8
    alone = statistics.accuracy(table_of(correct, [f"p{i:03}" for i in range(500)]))
    plain = statistics.accuracy(table_of(correct))
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 500, correct.mean()) / 500
    assert (alone.low, alone.high) == (plain.low, plain.high)
    assert (alone.low, alone.high) == pytest.approx((low, high), abs=0.003)


def test_photographs_of_unequal_size_against_every_possible_resample():
    table = table_of([1, 0, 1, 1, 0, 0, 1, 1, 1, 0], list("aabbbcdddd"))
    sums, sizes = np.array([1, 2, 0, 3]), np.array([2, 3, 1, 4])
    exact = [
        sums[list(c)].sum() / sizes[list(c)].sum() for c in itertools.product(range(4), repeat=4)
    ]
    got = statistics.accuracy(table, resamples=40_000)
    assert (got.low, got.high) == pytest.approx(
        np.quantile(exact, [0.025, 0.975], method="inverted_cdf"), abs=1e-9
    )


def test_all_right_is_not_certain():
    got = statistics.accuracy(table_of([1] * 60, np.arange(60) // 2))
    assert got.high == 1.0
    assert got.low == pytest.approx(scipy.stats.binomtest(30, 30).proportion_ci(method="exact").low)
    assert statistics.accuracy(table_of([0] * 60, np.arange(60) // 2)).high == pytest.approx(
        1 - got.low
    )


def test_one_photograph_gives_no_interval():
    got = statistics.accuracy(table_of([1, 0, 1], list("aaa")))
    assert (got.low, got.high, got.photographs) == (None, None, 1)


@pytest.mark.slow
def test_the_interval_holds_the_true_accuracy_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(120):
        chance = rng.beta(4, 1, 60)  # of each photograph; the mean is 0.8
        got = statistics.accuracy(
            table_of((rng.random((60, 5)) < chance[:, None]).ravel(), np.arange(300) // 5),
            1_000,
            seed=trial,
        )
        held += got.low <= 0.8 <= got.high
    assert 0.88 <= held / 120 <= 0.995


def test_repeats_are_averaged_and_widen_the_interval():
    photographs = np.arange(200) // 2
    runs = [table_of(np.arange(200) % 10 < right, photographs) for right in (4, 6, 8)]
    together, alone = statistics.accuracy(runs), statistics.accuracy(runs[1])
    assert together.value == pytest.approx(0.6)
    assert together.repeats == 3
    assert together.high - together.low > alone.high - alone.low


def test_the_paired_difference_agrees_with_scipy_and_a_sign_flip_by_hand():
    first, second = judged(trained=0), judged(trained=1, skill=1.2)
    got = statistics.difference(first, second)
    change = (
        (second["correct"].astype(int) - first["correct"].astype(int))
        .groupby(first["photograph"])
        .mean()
        .to_numpy()
    )
    expected = scipy.stats.bootstrap(
        (change,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert got.value == pytest.approx(change.mean())
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    signs = np.random.default_rng(4).choice([-1, 1], (20_000, len(change)))
    assert got.p == pytest.approx(
        (np.abs((signs * change).mean(axis=1)) >= abs(change.mean()) - 1e-12).mean(), abs=0.02
    )


def test_the_same_run_twice_is_not_significantly_different():
    got = statistics.difference(judged(), judged())
    assert (got.value, got.low, got.high, got.p, got.significant) == (
        0,
        0,
        0,
        1,
        False,
    )


def test_a_clear_difference_is_significant_and_its_sign_is_that_of_the_second():
    worse, better = judged(skill=0.2), judged(skill=3)
    assert statistics.difference(worse, better).low > 0
    assert statistics.difference(better, worse).high < 0
    assert statistics.difference(worse, better).significant


@pytest.mark.parametrize(("differing", "p"), [(1, 1), (4, 2 / 16)])
def test_few_photographs_that_differ_prove_nothing(differing, p):
    photographs = np.arange(142) // 2
    before = np.ones(142)
    before[: 2 * differing] = 0
    got = statistics.difference(table_of(before, photographs), table_of(np.ones(142), photographs))
    assert got.p == pytest.approx(p)
    assert not got.significant


def test_runs_on_different_images_are_not_compared():
    first = judged()
    for compare in (statistics.difference, statistics.mcnemar):
        with pytest.raises(StudyError, match="different images"):
            compare(first, first.iloc[1:])
    with pytest.raises(StudyError, match="disagree on the truth"):
        statistics.difference(first, first.assign(photograph=first["photograph"].to_numpy()[::-1]))


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant():
    first, second = judged(trained=0), judged(trained=1, skill=1.0)
    for a, b in ((first, second), (per_photograph(first), per_photograph(second))):
        got = statistics.mcnemar(a, b)
        assert got.both + got.only_first + got.only_second + got.neither == len(a)
        assert got.both + got.only_first == a["correct"].sum()
        discordant = got.only_first + got.only_second
        assert got.p == pytest.approx(scipy.stats.binomtest(got.only_first, discordant).pvalue)
    assert statistics.mcnemar(first, first).p == 1.0


def test_per_class_and_confusion_against_counting():
    table = judged()
    counted, classes = statistics.confusion(table), statistics.per_class(table).set_index("class")
    for truth in CLASSES:
        for prediction in CLASSES:
            assert (
                counted.loc[truth, prediction]
                == ((table["truth"] == truth) & (table["prediction"] == prediction)).sum()
            )
        precision = counted.loc[truth, truth] / counted[truth].sum()
        recall = counted.loc[truth, truth] / counted.loc[truth].sum()
        assert classes.loc[truth, ["precision", "recall", "f1"]].tolist() == pytest.approx(
            [precision, recall, 2 * precision * recall / (precision + recall)]
        )
        assert (classes.loc[truth, "units"], classes.loc[truth, "photographs"]) == (60, 10)


def test_a_class_of_one_photograph_or_none_is_noted():
    predictions, grouped = drawn(photographs=5, copies=4)
    keep = predictions["truth"] != "MONOCYTE"
    table = judge(predictions[keep], photographs=grouped)
    classes = statistics.per_class(table).set_index("class")
    assert classes.loc["LYMPHOCYTE", "photographs"] == 1
    assert classes.loc["MONOCYTE", "units"] == 0
    assert np.isnan(classes.loc["MONOCYTE", "recall"])


def test_images_are_counted_in_whole_numbers_where_no_prediction_is_right():
    table = table_of([0, 0, 0])
    classes = statistics.per_class(table)
    assert [str(images) for images in classes["units"]] == ["3", "0"]
    # Of B, which was predicted, there was no image
    assert classes["f1"].isna().tolist() == [False, True]


def test_the_reliability_curve_agrees_with_scikit_learn():
    from sklearn.calibration import calibration_curve

    table = judged(photographs=200)
    curve = statistics.reliability(table)
    accuracy, confidence = calibration_curve(table["correct"], table["confidence"], n_bins=15)
    np.testing.assert_allclose(curve["accuracy"], accuracy)
    np.testing.assert_allclose(curve["confidence"], confidence)
    assert curve["images"].sum() == len(table)
    assert ((curve["low"] < curve["confidence"]) & (curve["confidence"] <= curve["high"])).all()


def test_the_calibration_error_of_known_confidences():
    # 10 images at 0.9 of which 7 are right, 30 at 0.6 of which 21 are: 0.25 * 0.2 + 0.75 * 0.1
    sure = [0.9] * 7 + [0.1] * 3 + [0.6] * 21 + [0.4] * 9
    predictions = pd.DataFrame(
        {
            "path": [f"{i:02}" for i in range(40)],
            "split": "test",
            "truth": "A",
            "probability_A": sure,
        }
    )
    predictions["probability_B"] = 1 - predictions["probability_A"]
    assert statistics.expected_calibration_error(judge(predictions)) == pytest.approx(0.125)
    assert statistics.expected_calibration_error(table_of([1] * 9)) == 0


def test_the_most_confident_errors_come_first():
    table = judged()
    errors = statistics.most_confident_errors(table, n=5)
    wrong = sorted(
        (row.confidence for row in table.itertuples() if row.truth != row.prediction), reverse=True
    )
    assert errors["confidence"].tolist() == wrong[:5]
    assert errors["photograph"].notna().all()
    assert errors["path"].is_unique
    assert statistics.most_confident_errors(table_of([1, 1])).empty


def test_the_spread_over_repeats():
    assert statistics.spread([0.8, 0.9, 0.7]) == statistics.Spread(pytest.approx(0.8), 0.7, 0.9, 3)
    for bad in ([], [0.8, np.nan]):
        with pytest.raises(StudyError, match="spread"):
            statistics.spread(bad)


def test_ten_thousand_resamples_of_the_real_size_take_seconds_and_little_memory():
    import time
    import tracemalloc

    table = table_of(np.random.default_rng(1).random(2487) < 0.9)
    tracemalloc.start()
    started = time.monotonic()
    statistics.accuracy(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert time.monotonic() - started < 20
