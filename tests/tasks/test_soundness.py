"""The rules by which the report calls a training unsound, on made-up predictions."""

import numpy
import pandas
import pytest

from hemotune.errors import StudyError
from hemotune.settings.report import Unsound
from hemotune.training.records import Health, HiddenLayer, Metrics, Scores
from tasks.report.soundness import problems_of, right, standard_error

PHOTOGRAPHS, COPIES = 50, 8
IMAGES = PHOTOGRAPHS * COPIES
FACTORS = {
    "head": "flatten",
    "initialization": "random",
    "freeze": "none",
    "batch_norm": "trained",
    "keep": "last",
    "averages": "recomputed",
}
EPOCHS = [f"epoch_{epoch}" for epoch in range(8, 13)]
NUMBERS = numpy.arange(IMAGES)
TRUTHS = numpy.where(NUMBERS // COPIES % 2, "A", "B")
WRONG = numpy.where(TRUTHS == "A", "B", "A")


def predicted(correct):
    """The classes predicted where the images `correct` are recognised and no others."""
    return numpy.where(correct, TRUTHS, WRONG)


def judged(correct):
    """The judged predictions of all photographs' copies."""
    names = [f"p{number // COPIES:02}" for number in NUMBERS]
    return pandas.DataFrame({"photograph": names, "truth": TRUTHS, "correct": correct})


def rules(delivered, others=None, last=None, train=0.95, fit=0.90, dead=0, **factors):
    """The rules that a training breaks, and its problems.

    Args:
        delivered: of each image, whether the delivered weights recognise it.
        others: the same under other averages.
        last: the same after each of the last epochs, five at most.
    """
    epochs = [delivered] * 5 if last is None else last
    columns = [("other_averages", delivered if others is None else others)]
    columns += zip(EPOCHS[-len(epochs) :], epochs, strict=True)
    metrics = Metrics.model_construct(
        epochs=12,
        validation=Scores(loss=0.5, accuracy=delivered.mean(), images=IMAGES),
        health=Health.model_construct(
            hidden=[HiddenLayer(name="dense", units=8, dead=dead)],
            train=Scores(loss=0.2, accuracy=train, images=900),
            fit_accuracy=fit,
            delivered_epoch=12,
            last_epochs=[float(epoch.mean()) for epoch in epochs],
        ),
        **FACTORS | factors,
    )
    table = pandas.DataFrame({name: predicted(values) for name, values in columns})
    found = problems_of(metrics, judged(delivered), table, Unsound())
    return [problem.rule for problem in found], found


def all_but(images):
    """True for every image but the given numbers."""
    return ~numpy.isin(NUMBERS, images)


SOUND = all_but(NUMBERS[::10])  # 90 %, errors spread over the photographs


def test_a_good_training_breaks_no_rule():
    assert rules(SOUND)[0] == []
    # Chance decides a few images of each epoch and of the averages
    shifted = [all_but(NUMBERS[offset::10]) for offset in range(5)]
    assert rules(SOUND, others=shifted[1], last=[*shifted[1:], SOUND])[0] == []


@pytest.mark.parametrize(("dead", "expected"), [(3, []), (4, ["dead_units"]), (8, ["dead_units"])])
def test_half_of_the_units_may_not_be_dead(dead, expected):
    found, problems = rules(SOUND, dead=dead)
    assert found == expected
    if problems:
        assert problems[0].found == f"{dead} of 8 units of dense are zero on every training image"
        assert "`head: average`" in problems[0].remedies
        _, (problem,) = rules(SOUND, dead=dead, head="average")
        assert problem.remedies == ["`warm_up`", "a lower rate"]


def test_averages_that_matter_are_named_whether_they_gain_or_lose():
    better = numpy.ones(IMAGES, dtype=bool)
    found, (problem,) = rules(SOUND, others=better, averages="as_trained")
    assert found == ["averages"] and "by +10.00 points" in problem.found
    assert problem.remedies == ["`averages: recomputed`"]
    worse = SOUND & all_but(NUMBERS[1::10])
    found, (problem,) = rules(SOUND, others=worse)
    assert found == ["averages"] and "by -10.00 points" in problem.found
    # Neither three images nor all copies of one photograph
    assert rules(SOUND, others=SOUND & all_but([1, 81, 161]))[0] == []
    assert rules(SOUND, others=SOUND & all_but(NUMBERS[:8]))[0] == []


def test_an_epoch_that_was_bad_luck_is_named():
    unlucky = SOUND & all_but(NUMBERS[1::10])
    found, (problem,) = rules(unlucky, last=[SOUND] * 4 + [unlucky])
    assert found == ["below_median"] and problem.remedies == ["`keep: best`", "a lower rate"]
    assert "epoch 12 (80.00%) lies below the median of the last 5 (90.00%)" in problem.found
    # A lucky one is not; nor one below the median by the errors of a single photograph.
    assert rules(SOUND, last=[unlucky] * 4 + [SOUND])[0] == []
    one = SOUND & all_but(NUMBERS[:8])
    assert rules(one, last=[SOUND] * 4 + [one])[0] == []
    # The median of three epochs is one of them, that of two is their mean.
    assert rules(unlucky, last=[SOUND, SOUND, unlucky])[0] == ["below_median"]
    assert rules(unlucky, last=[SOUND, unlucky])[0] == []


def test_training_images_recognised_worse_than_the_fit_reported_are_named():
    assert rules(SOUND, train=0.875, fit=0.89)[0] == []
    found, (problem,) = rules(SOUND, train=0.34, fit=0.44, averages="as_trained")
    assert found == ["below_fit"] and problem.remedies == ["`averages: recomputed`"]


def test_one_class_for_everything_is_chance():
    found, (problem,) = rules(TRUTHS == "A", freeze="backbone")
    assert found == ["chance"] and "freeze less" in problem.remedies
    assert "validation (50.00%)" in problem.found
    # 55 % of 50 photographs are within the error of 50 %.
    whole = NUMBERS // COPIES < 0.55 * PHOTOGRAPHS
    assert rules(whole)[0] == ["chance"]


def test_copies_of_a_photograph_are_no_independent_images():
    by_image = standard_error(SOUND.astype(float), judged(SOUND).assign(photograph=None))
    whole = NUMBERS // COPIES >= 5  # 90 %, errors in five whole photographs
    by_photograph = standard_error(whole.astype(float), judged(whole))
    assert by_image == pytest.approx((0.9 * 0.1 / (IMAGES - 1)) ** 0.5)
    assert by_photograph == pytest.approx((0.9 * 0.1 / (PHOTOGRAPHS - 1)) ** 0.5)


def test_predictions_without_other_averages_are_refused():
    table = judged(SOUND)
    with pytest.raises(StudyError, match="lack values of other_averages"):
        right(pandas.DataFrame({"path": table.index}), "other_averages", table)
