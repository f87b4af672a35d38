"""Contrasts over photographs and trainings: against planted variances and textbook tests."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from hemotune.errors import StudyError
from hemotune.evaluation.contrasts import (
    Term,
    components_of,
    components_over_cuts,
    contrast,
    overlap,
)
from hemotune.evaluation.moderation import moderated
from hemotune.evaluation.trainings import (
    Spread,
    Training,
    Trainings,
    paired_rows,
    rows_of,
    spreads_of,
)
from tests.hemotune.drawn_predictions import judged, table_of

ALL = (88, 33, 20, 207)  # photographs of each class in the real data; classes have as many images


def drawn_rows(
    rng, folds, repeats, photograph, training, crossed, rows=7, own=0.0, change=0.0, times=1.0
):
    """Rows with planted standard deviations (fractions) of a photograph, of a training's level, of
    training x photograph and of row x photograph; the second row is better by `change`. There are
    `times` as many photographs as in the real data.
    """
    counts = [round(times * n) for n in ALL]
    sizes = np.concatenate([np.full(n, round(3120 * times / n)) for n in counts])
    places = np.concatenate([rng.permutation(np.arange(n) % folds) for n in counts])
    shared = rng.normal(0, photograph, len(sizes))
    return [
        Trainings(
            np.arange(len(sizes)).astype(object),
            sizes,
            places,
            0.8
            + change * (row == 1)
            + (shared + rng.normal(0, own, len(sizes)))[:, None]
            + rng.normal(0, training, (folds, repeats))[places]
            + rng.normal(0, crossed, (len(sizes), repeats)),
        )
        for row in range(rows)
    ]


def compared(rows, first=0, second=1):
    spreads = spreads_of(rows)
    return contrast([Term(1, rows[second], spreads[second]), Term(-1, rows[first], spreads[first])])


def test_right_answers_of_folds_and_repeats_with_a_missing_training():
    fold = [table_of([1, 0, 1, 1], list("aabb")), table_of([1, 1, 1, 0], list("ccdd"))]
    again = table_of([0, 0, 1, 1], list("aabb"))
    row, other = rows_of(
        [
            [Training(1, 1, fold[0]), Training(1, 2, again), Training(2, 1, fold[1])],
            [Training(2, 2, fold[1])],
        ]
    )
    assert list(row.photographs) == list("abcd")
    assert list(row.folds) == [0, 0, 1, 1]
    np.testing.assert_array_equal(row.shares, [[0.5, 0], [1, 1], [1, np.nan], [0.5, np.nan]])
    np.testing.assert_array_equal(row.accuracies, [[0.75, 0.5], [0.75, np.nan]])
    assert (list(row.repeats), list(other.repeats)) == ([2, 1], [0, 1])
    spread = Spread(0.0, 1.0, np.zeros(2))
    found = contrast([Term(1, other, spread), Term(-1, row, spread)])
    assert (found.value, found.number, found.images, found.repeats) == (0, 2, 4, (1, 1))


def test_a_photograph_in_two_folds_is_refused():
    table = table_of([1, 0, 1, 1], list("aabb"))
    with pytest.raises(StudyError, match="tested in two folds"):
        rows_of([[Training(1, 1, table), Training(2, 1, table)]])


def test_repeats_alone_give_students_t_test_where_photographs_do_not_vary():
    """Two rows with equal variances: pooled, so Student's test with 2 x 9 degrees of freedom."""
    rng = np.random.default_rng(2)
    levels = [rng.normal(0.8, 0.02, 10), rng.normal(0.83, 0.02, 10)]
    levels[1] = levels[1].mean() + (levels[0] - levels[0].mean())
    rows = [
        Trainings(np.arange(50), np.full(50, 4), np.zeros(50, int), np.tile(level, (50, 1)))
        for level in levels
    ]
    spreads = [Spread(float(level.var(ddof=1)), 9.0, np.zeros(1)) for level in levels]
    found = contrast([Term(1, rows[1], spreads[1]), Term(-1, rows[0], spreads[0])])
    expected = scipy.stats.ttest_ind(levels[1], levels[0])
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert found.half_width() == pytest.approx((high - low) / 2)


def test_photographs_alone_give_the_paired_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.8, 0.1, (2, 60, 1))
    rows = [Trainings(np.arange(60), np.full(60, 5), np.zeros(60, int), part) for part in (a, b)]
    nothing = Spread(0.0, 1.0, np.zeros(1))
    found = contrast([Term(1, rows[1], nothing), Term(-1, rows[0], nothing)])
    assert found.p == pytest.approx(scipy.stats.ttest_rel(b[:, 0], a[:, 0]).pvalue)


def test_one_repeat_in_folds_of_two_rows_gives_the_paired_t_test_over_folds():
    rng = np.random.default_rng(4)
    levels = rng.normal(0.8, 0.02, (2, 5))
    folds = np.repeat(np.arange(5), 10)
    rows = [
        Trainings(np.arange(50), np.full(50, 4), folds, level[folds][:, None]) for level in levels
    ]
    found = compared(rows)
    assert found.p == pytest.approx(scipy.stats.ttest_rel(levels[1], levels[0]).pvalue)


def test_identical_predictions_are_no_evidence():
    row = drawn_rows(np.random.default_rng(5), 5, 3, 0.2, 0.01, 0.1, rows=1)[0]
    found = compared([row, row])
    assert (found.value, found.p) == (0, 1)


def test_a_single_photograph_has_no_interval():
    rows = [
        Trainings(np.arange(1), np.array([9]), np.zeros(1, int), np.array([s]))
        for s in ([[0.5, 0.6, 0.7]], [[0.9, 0.8, 0.9]])
    ]
    found = compared([Trainings(r.photographs, r.sizes, r.folds, r.shares[0]) for r in rows])
    assert (found.half_width(), found.p) == (None, 1)


def test_variances_that_differ_are_kept_apart_and_none_is_drawn_down():
    freedoms = np.full(7, 10.0)
    apart = moderated(np.array([130, 1, 1.2, 0.9, 1.1, 0.8, 1.0]), freedoms)
    assert apart[0][0] >= 130
    assert max(variance for variance, _ in apart[1:]) < 65
    assert all(10 < freedom <= 35 for _, freedom in apart)
    alike = moderated(np.ones(7), freedoms)
    assert [variance for variance, _ in alike] == pytest.approx([1] * 7)
    assert alike[0][1] > apart[0][1]
    assert moderated(np.array([0.0, 4.0]), np.array([0.0, 2.0]))[0][0] == pytest.approx(4)


@pytest.mark.slow
def test_estimated_shares_of_variance_are_the_planted_ones():
    rng = np.random.default_rng(6)
    estimates = []
    planted = np.array([0.2**2, 0, 0.2**2])
    for _ in range(400):
        rows = drawn_rows(rng, 5, 3, 0.2, 0.03, 0.2, rows=3)
        found = components_of(rows, spreads_of(rows))
        estimates.append(np.array([found.photographs, found.training, found.crossed]) / found.total)
    weights = rows[0].sizes / rows[0].sizes.sum()
    planted *= (weights**2).sum()
    planted[1] = 0.03**2 * (rows[0].weights_of_folds ** 2).sum()
    planted /= planted.sum()
    assert planted.min() > 0.1
    assert np.mean(estimates, axis=0) == pytest.approx(planted, rel=0.2)
    rows = drawn_rows(rng, 5, 1, 0.2, 0.03, 0.2)
    assert components_of(rows, spreads_of(rows)) is None


@pytest.mark.slow
def test_the_choice_of_the_split_has_the_planted_share():
    rng = np.random.default_rng(9)
    photograph, training, crossed, split = 0.2, 0.03, 0.2, 0.02
    estimates = []
    for _ in range(400):
        hard = rng.normal(0, photograph, sum(ALL))[:, None]
        cuts = []
        for _ in range(5):
            rows = drawn_rows(rng, 1, 3, 0, training, crossed, rows=3)
            level = hard + rng.normal(0, split)
            rows = [dataclasses.replace(row, shares=row.shares + level) for row in rows]
            cuts.append((rows, spreads_of(rows)))
        found = components_over_cuts(cuts)
        parts = np.array([found.photographs, found.training, found.crossed, found.split])
        estimates.append(parts / found.total)
    squares = ((rows[0].sizes / rows[0].sizes.sum()) ** 2).sum()
    planted = np.array([photograph**2 * squares, training**2, crossed**2 * squares, split**2])
    planted /= planted.sum()
    assert planted.min() > 0.1
    assert np.mean(estimates, axis=0) == pytest.approx(planted, rel=0.2)


def test_cuts_without_repeats_have_no_share_of_the_split():
    rows = drawn_rows(np.random.default_rng(9), 1, 1, 0.2, 0.03, 0.2, rows=3)
    spread = Spread(0.0, 1.0, np.zeros(1))
    assert components_over_cuts([(rows, [spread] * 3)] * 2) is None


def test_cuts_share_the_variance_of_the_photographs_that_all_of_them_test():
    a, b, other = (
        Trainings(np.array(names, object), np.array([2, 1]), np.zeros(2, int), np.ones((2, 1)))
        for names in (["a", "b"], ["b", "a"], ["c", "d"])
    )
    assert [overlap(a, a), overlap(a, b), overlap(a, other)] == pytest.approx([1, 0.8, 0])


def test_the_leak_is_measured_on_the_images_that_both_series_tested():
    random = [table_of([1, 1, 1, 1, 0, 1], list("aabbcc")) for _ in range(3)]
    folds = [
        table_of([1, 0, 0, 1, 0, 1], list("aabbcc")).iloc[part] for part in ([0, 1, 2, 3], [4])
    ]
    (first,), (second,) = paired_rows(
        [[Training(0, repeat, table) for repeat, table in enumerate(random)]],
        [[Training(2, 1, folds[0]), Training(1, 1, folds[1])]],
    )
    assert list(first.photographs) == list(second.photographs) == list("abc")
    assert (list(first.sizes), list(second.sizes)) == ([2, 2, 1], [2, 2, 1])
    terms = [
        Term(factor, row, Spread(0.0, 1.0, np.zeros(len(row.repeats))))
        for factor, row in ((1, first), (-1, second))
    ]
    assert contrast(terms).value == pytest.approx(2 / 5)


def test_rows_tested_on_other_images_are_refused():
    with pytest.raises(StudyError, match="different images"):
        rows_of([[Training(0, 1, judged())], [Training(0, 1, judged(photographs=39))]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "own", "change", "more"),
    [(0.01, 0.25, 0.05, "photographs"), (0.05, 0.05, 0.04, "repeats")],
)
def test_the_number_that_a_difference_needs_finds_it_in_four_of_five_studies(
    training, own, change, more
):
    """200 studies that plant the difference, each tested with the number that a first one names."""
    rng = np.random.default_rng(8)
    spreads = {"photograph": 0.2, "training": training, "crossed": 0.1, "own": own}
    found, named = 0, 0
    for _ in range(200):
        first = compared(drawn_rows(rng, 5, 3, rows=3, change=change, **spreads))
        if more == "photographs":
            number = first.needed_photographs(change, 0.05)
            settings = {"repeats": 3, "times": number and number / first.number}
        else:
            number = first.needed_repeats(change, 0.05)
            settings = {"repeats": number}
        if number:
            named += 1
            rows = drawn_rows(rng, 5, rows=3, change=change, **settings, **spreads)
            found += compared(rows).p < 0.05
    assert named >= 180
    assert 0.7 <= found / named <= 0.9
