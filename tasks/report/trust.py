"""Warnings at the top of the report: photographs on two sides, and controls that score close to the
models.
"""

from collections.abc import Iterable, Mapping

from hemotune.evaluation.leaks import MOST_SHARED, NAMES, Controls, known_share
from hemotune.evaluation.predictions import classes_of
from hemotune.settings.study import Words
from tasks.report.markdown import names_of, percent
from tasks.report.results import Summary, best_of, by_series

NEAR = 5  # percentage points; the report warns if a control is this close to the best model
COMPARED = {
    "nearest_histogram": "Matching colours alone",
    "nearest_thumbnail": "Matching thumbnails alone",
}


def warnings_of(
    summaries: Iterable[Summary], controls: Mapping[str, Controls], words: Words
) -> list[str]:
    """Return Markdown sentences for the top of the report, series by series.

    `controls` are by protocol; without any, a series has no warnings.
    """
    found: list[str] = []
    for series, group in by_series(summaries).items():
        best, control = best_of(group), controls.get(group[0].protocol)
        if best and control:
            found += warnings_of_series(series, best, control, words)
    return found


def warnings_of_series(
    series: str, best: list[Summary], controls: Controls, words: Words
) -> list[str]:
    """Return the warnings of one series; `best` are the summaries with the best test accuracy."""
    shared, scores = known_share(controls.shared_photographs), controls.accuracies()
    reached = f"{percent(best[0].accuracy)} ({names_of([one.experiment for one in best])})"
    copies = []
    if shared is not None and shared > MOST_SHARED:
        copies.append(
            f"**Do not trust the accuracies of `{series}`.** {percent(shared)} of the test images "
            f"come from {words.plural} that are also in train: the accuracies measure how well "
            f"known {words.plural} are recognised."
        )
    if at_chance(best[0], scores["majority_class"]):
        chance = (
            f"**The models of `{series}` are at chance.** The best test accuracy is {reached}; "
            f"{NAMES['majority_class']} scores {percent(scores['majority_class'])}. There "
            "is no sign that they have learnt anything."
        )
        return [chance, *copies]
    margin = best[0].accuracy - NEAR / 100 - 1e-9
    return copies + [
        near(series, name, score, reached, shared, words)
        for name, score in scores.items()
        if score >= margin
    ]


def at_chance(summary: Summary, majority: float) -> bool:
    """Return whether the interval of an accuracy includes the accuracy of guessing."""
    guess = max(majority, 1 / len(classes_of(summary.judged[0])))
    reached = summary.per_image
    return (reached.value if reached.low is None else reached.low) <= guess


def near(
    series: str, name: str, score: float, reached: str, shared: float | None, words: Words
) -> str:
    """Return the warning that a control without training is close to the best model, or beats it.

    Args:
        name: a key of leaks.NAMES.
        score: the control's accuracy.
        reached: the best model's accuracy as text.
        shared: what leaks.known_share returns.
    """
    scores = f"scores {percent(score)} on this split; the best model reaches {reached}."
    if name == "majority_class":
        return (
            f"**The models of `{series}` are hardly better than a constant prediction.** "
            f"{NAMES[name].capitalize()} {scores}"
        )
    text = (
        f"**{COMPARED[name]} is close to the models of `{series}`, or beats them.** Without any "
        f"training, {NAMES[name]} {scores}"
    )
    if shared is None:
        return f"{text} It is not known whether train and test share {words.plural}."
    if shared > MOST_SHARED:
        return text
    few = (
        f"Only {percent(shared)} of the test images come from {words.plural} that are also in train"
        if shared
        else f"Train and test share no {words.unit}"
    )
    return f"{text} {few}: this is not a leak, but the models add little to such matching."
