"""Section 6 of the report: the effect of each factor on accuracy and time.

An effect is reported as a finding only if the data support it, and in words about the factor only
if each row was trained several times.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hemotune.markup import escaped
from hemotune.settings.study import Words
from tasks.report.comparisons import (
    FEWEST,
    LEVEL,
    Answers,
    Comparison,
    answers_of,
    compared,
    tested_alike,
)
from tasks.report.health import note_on
from tasks.report.markdown import (
    Row,
    bold,
    format_difference,
    listed,
    names_of,
    percent,
    points,
    table,
)
from tasks.report.results import FACTORS, Summary, best_of, by_series

# The factors in the order of the report: those of an experiment, one of a series.
TITLES = {"units": FACTORS["units"].title}
TITLES |= {name: factor.title for name, factor in FACTORS.items()} | {"backbone": "Backbone"}


@dataclass(frozen=True)
class Effect:
    """Two experiments of a series that differ in one factor only (backbones: of one protocol)."""

    factor: str
    series: str
    first: Summary
    second: Summary  # the one with the greater value of the factor
    change: Comparison  # accuracy of the second minus the first
    adjusted: float  # p after Holm's correction for all pairs of the study

    @property
    def supported(self) -> bool:
        """Whether the interval excludes 0 and p is below LEVEL after the correction."""
        return self.change.significant and self.adjusted < LEVEL

    @property
    def of_factor(self) -> bool:
        """Whether it is about the factor, and not about two trained models."""
        return self.change.contrast is not None

    @property
    def verdict(self) -> str:
        if not self.supported:
            return "not significantly different"
        verdict = "higher" if self.change.value > 0 else "lower"
        return verdict if self.of_factor else f"{verdict}, as trained"

    @property
    def time_ratio(self) -> float:
        """Learning time of the second over that of the first."""
        return self.second.seconds / self.first.seconds

    @property
    def values(self) -> str:
        """The factor's two values, e.g. `8 → 16`."""
        wording = FACTORS[self.factor].wording if self.factor in FACTORS else str
        first, second = (getattr(one, self.factor) for one in (self.first, self.second))
        return f"{wording(first)} → {wording(second)}"


def effects_of(summaries: Sequence[Summary]) -> list[Effect]:
    """Return the effects of all pairs of experiments that differ in one factor only."""
    finished = [summary for summary in summaries if summary.finished]
    return effects_between(finished, answers_of(finished))


def effects_between(finished: Sequence[Summary], answers: Answers) -> list[Effect]:
    """Return the same, given what the trainings answered.

    p is corrected over the whole study (Holm 1979): without correction, two dozen comparisons at
    5 % each would give a false finding in most studies.
    """
    pairs = []
    for series, group in by_series(finished).items():
        pairs += [
            (factor, series, *pair)
            for factor in TITLES
            if factor in FACTORS
            for pair in pairs_of(group, factor)
        ]
    for protocol in dict.fromkeys(summary.protocol for summary in finished):
        group = [summary for summary in finished if summary.protocol == protocol]
        pairs += [("backbone", protocol, *pair) for pair in pairs_of(group, "backbone")]
    pairs = [pair for pair in pairs if tested_alike(*pair[2:], answers)]
    changes = [compared(first, second, answers) for _, _, first, second in pairs]
    adjusted = holm([change.p for change in changes])
    return [
        Effect(*pair, change, p) for pair, change, p in zip(pairs, changes, adjusted, strict=True)
    ]


def pairs_of(summaries: Iterable[Summary], factor: str) -> list[tuple[Summary, Summary]]:
    """Return the pairs that differ in `factor` and in no other: the smaller value first, of names
    that which params.yaml has first.
    """
    summaries = list(summaries)
    places = {getattr(one, factor): place for place, one in reversed([*enumerate(summaries)])}

    def order(summary: Summary) -> float:
        value = getattr(summary, factor)
        return float(places[value] if isinstance(value, str) else value)

    others = [name for name in (*FACTORS, "backbone") if name != factor]

    def fixed(summary: Summary) -> list[object]:
        return [getattr(summary, name) for name in others]

    ordered = sorted((fixed(one), order(one), one.experiment, one) for one in summaries)
    return [
        (first, second)
        for (alike, value, _, first), (others_of, other, _, second) in itertools.combinations(
            ordered, 2
        )
        if alike == others_of and value != other
    ]


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    # statsmodels' multipletests collects garbage, which takes 0.1 s.
    order = np.argsort(ps)
    factors = np.arange(len(ps), 0, -1)
    steps = np.minimum(1, np.maximum.accumulate(np.asarray(ps)[order] * factors))
    return [float(p) for p in steps[np.argsort(order)]]


def findings_of(effects: Iterable[Effect]) -> list[str]:
    """Return a text for each factor in each series: the supported effects on accuracy, the values
    that are not significantly different, and the ratio of learning times.
    """
    found = []
    by_factor: dict[tuple[str, str], list[Effect]] = {}
    for effect in effects:
        by_factor.setdefault((effect.series, effect.factor), []).append(effect)
    for (series, factor), group in by_factor.items():
        findings = [finding(effect) for effect in group if effect.supported]
        others = [noted(effect) for effect in group if not effect.supported]
        sentences = [f"{'; '.join(findings)}."] if findings else []
        if others:
            sentences.append(f"Accuracy not significantly different: {listed(others)}.")
        if models := [effect.values for effect in group if not effect.of_factor]:
            about = "This" if len(models) == len(group) else listed(models)
            sentences.append(
                f"{about} compares trained models, not the factor: it takes {FEWEST} trainings "
                "of each row to tell the factor from the seed."
            )
        sentences.append(time_sentence(group))
        found.append(f"**{TITLES[factor]}, {series}:** {' '.join(sentences)}")
    return found


def noted(effect: Effect) -> str:
    """Return the values of an effect with the unsound trainings that it rests on."""
    unsound = note_on(effect.first, effect.second)
    return f"{effect.values} ({unsound})" if unsound else effect.values


def finding(effect: Effect) -> str:
    """Return the change in accuracy of a supported effect, with its interval and with the unsound
    trainings that it rests on.
    """
    change = effect.change
    bounds = [points(bound) for bound in (change.low, change.high) if bound is not None]
    interval = f"(95 % interval {' to '.join(bounds)})"
    size = f"{abs(100 * change.value):.2f} points"
    up = change.value > 0
    text = f"{effect.values} {'raised' if up else 'lowered'} accuracy by {size} {interval}"
    if not effect.of_factor:
        text = (
            f"{effect.values}: the second trained model is {size} {'better' if up else 'worse'} "
            f"than the first {interval}"
        )
    unsound = note_on(effect.first, effect.second)
    return f"{text}, but {unsound}" if unsound else text


def time_sentence(effects: Sequence[Effect]) -> str:
    """Return the ratio of learning times between the smallest and the largest value of a factor."""
    factor = effects[0].factor

    def values(effect: Effect) -> tuple[Any, Any]:  # Any: numbers, or names
        return getattr(effect.first, factor), getattr(effect.second, factor)

    if isinstance(values(effects[0])[0], str):  # compares the first name with the last
        first = values(effects[0])[0]
        widest = [effect for effect in effects if values(effect)[0] == first][-1]
    else:
        widest = max(effects, key=lambda effect: values(effect)[1] - values(effect)[0])
    return f"Learning time, {widest.values}: × {widest.time_ratio:.2f}."


def effects_table(effects: Iterable[Effect]) -> str:
    """Return a table of all pairs."""
    head = [
        "Factor",
        "Series",
        "Values",
        "Rows",
        "Trainings",
        "Accuracy (points) [95 %]",
        "p",
        "p, Holm",
        "Verdict",
        "Time ratio",
    ]
    rows = [
        [
            TITLES[effect.factor],
            effect.series,
            effect.values,
            escaped(f"{effect.first.experiment} → {effect.second.experiment}"),
            " and ".join(str(number) for number in effect.change.trainings),
            format_difference(effect.change),
            f"{effect.change.p:.3g}",
            f"{effect.adjusted:.3g}",
            effect.verdict,
            f"{effect.time_ratio:.2f}",
        ]
        for effect in effects
    ]
    return table(head, rows, left=4)


def needs_table(effects: Iterable[Effect], difference: float, words: Words) -> str:
    """Return a table of what it would take to find a `difference` (points) that matters, for the
    pairs that are not significantly different.
    """
    effects = list(effects)
    level = LEVEL / max(1, len(effects))
    rows = []
    for effect in effects:
        found = effect.change.contrast
        if effect.supported or found is None:
            continue
        if not found.separable:
            needs = ["unknown without repeats", "unknown without repeats"]
        else:
            photographs = found.needed_photographs(difference / 100, level)
            repeats = found.needed_repeats(difference / 100, level)
            needs = [
                f"not by {words.plural} alone" if photographs is None else f"{photographs:,}",
                "not by repeats alone" if repeats is None else f"{repeats:,}",
            ]
        rows.append(
            [TITLES[effect.factor], effect.series, effect.values, f"{found.number:,}", *needs]
        )
    numbers = [f"{words.plural.capitalize()} {what}" for what in ("now", "needed")]
    head = ["Factor", "Series", "Values", *numbers, "Repeats needed"]
    return table(head, rows, left=3) if rows else ""


def backbones_table(summaries: Iterable[Summary]) -> str:
    """Return a table of the series by accuracy, time and parameters."""
    head = [
        "Backbone, protocol",
        "Best accuracy",
        "Mean accuracy",
        "Mean learning time",
        "Parameters",
    ]
    rows: list[Row] = []
    for series, group in by_series(summaries).items():
        best = best_of(group)
        names = names_of([one.experiment for one in best])
        rows.append(
            [
                bold(series),
                f"{percent(best[0].accuracy)} ({names})",
                percent(sum(summary.accuracy for summary in group) / len(group)),
                f"{sum(summary.seconds for summary in group) / len(group):.1f} s",
                f"{best[0].finished[0].metrics.parameters / 1e6:.1f} million",
            ]
        )
    return table(head, rows)
