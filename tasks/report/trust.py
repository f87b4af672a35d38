"""What a reader must know of a series before its accuracies: what was counted in its split, then
what needs no training.
"""

from hemotune.evaluation.leaks import MOST_SHARED, NAMES, accuracies, known_share
from hemotune.evaluation.predictions import classes_of
from tasks.report.markdown import names_of, percent
from tasks.report.results import best_of, by_series

NEAR = 5  # percentage points between a control and the model up to which the report warns
COMPARED = {
    "nearest_histogram": "A comparison of colours",
    "nearest_thumbnail": "A comparison of thumbnails",
}


def warnings_of(summaries: list[dict], controls: dict) -> list[str]:
    """Return Markdown sentences for the top of the report, series by series.

    Args:
        summaries: what results.summaries_of returns, after evidence.add_intervals.
        controls: data/controls.json, or {}.
    """
    found = []
    for series, group in by_series(summaries).items():
        best, control = best_of(group), controls.get(group[0]["protocol"])
        if best and control:
            found += warnings_of_series(series, best, control)
    return found


def warnings_of_series(series: str, best: list[dict], control: dict) -> list[str]:
    """Return the warnings of one series.

    Args:
        best: the summaries with the best test accuracy.
        control: the entry of the series' protocol in data/controls.json.
    """
    shared, scores = known_share(control["shared_photographs"]), accuracies(control)
    reached = f"{percent(best[0]['accuracy'])} ({names_of(best)})"
    copies = []
    if shared is not None and shared > MOST_SHARED:
        copies.append(
            f"**Do not trust the accuracies of `{series}`.** {percent(shared)} of the test images"
            " come from photographs that are in train too: the accuracies measure how well copies"
            " are recognised."
        )
    if at_chance(best[0], scores["majority_class"]):
        chance = (
            f"**The models of `{series}` are at chance.** The best test accuracy is {reached};"
            f" {NAMES['majority_class']} scores {percent(scores['majority_class'])}. They have"
            " learnt nothing that this test can show."
        )
        return [chance, *copies]
    margin = best[0]["accuracy"] - NEAR / 100 - 1e-9
    return copies + [
        near(series, name, score, reached, shared)
        for name, score in scores.items()
        if score >= margin
    ]


def at_chance(summary: dict, majority: float) -> bool:
    """Return whether the interval of an accuracy reaches down to what a guess scores."""
    guess = max(majority, 1 / len(classes_of(summary["runs"][0]["judged"])))
    interval = summary["per_image"]
    return (interval["value"] if interval["low"] is None else interval["low"]) <= guess


def near(series: str, name: str, score: float, reached: str, shared: float | None) -> str:
    """Return the warning that a control without training comes near the best model, or beats it.

    Args:
        name: a key of controls.NAMES; score: its accuracy.
        reached: the best model's accuracy, in words.
        shared: what controls.known_share returns.
    """
    scores = f"scores {percent(score)} on this split; the best model reaches {reached}."
    if name == "majority_class":
        return (
            f"**The models of `{series}` add little to a constant answer.**"
            f" {NAMES[name].capitalize()} {scores}"
        )
    text = (
        f"**{COMPARED[name]} comes near the models of `{series}`, or beats them.** Without any"
        f" training, {NAMES[name]} {scores}"
    )
    if shared is None:
        return f"{text} It is not known whether copies of the same photographs are on both sides."
    if shared > MOST_SHARED:
        return text
    few = (
        f"Only {percent(shared)} of the test images share a photograph with train"
        if shared
        else "No photograph is on both sides"
    )
    return f"{text} {few}: this is no leak, but the models add little to such a comparison."
