"""Section 6 of the report: the effect of each factor on accuracy and time.

An effect is reported as a finding only if the data support it.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hemotune.evaluation.statistics import Difference, difference
from hemotune.markup import escaped
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
from tasks.report.results import FACTORS, Summary, best_of, by_series, paired

# The factors in the order of the report: those of an experiment, one of a series.
TITLES = {"units": FACTORS["units"].title}
TITLES |= {name: factor.title for name, factor in FACTORS.items()} | {"backbone": "Backbone"}
LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """Two experiments of a series that differ in one factor only (backbones: of one protocol)."""

    factor: str
    series: str
    first: Summary
    second: Summary  # the one with the greater value of the factor
    change: Difference  # accuracy of the second minus the first
    adjusted: float  # p after Holm's correction for all pairs of the series

    @property
    def supported(self) -> bool:
        """Whether the interval excludes 0 and p is below LEVEL after the correction."""
        return self.change.significant and self.adjusted < LEVEL

    @property
    def verdict(self) -> str:
        if self.supported:
            return "higher" if self.change.value > 0 else "lower"
        return "not significantly different"

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
    """Return the effects of all pairs of experiments that differ in one factor only.

    p is corrected within a series: without correction, two dozen comparisons at 5 % each would
    give a false finding in most studies.
    """
    finished = [summary for summary in summaries if summary.finished]
    effects = []
    for series, group in by_series(finished).items():
        pairs = [
            (factor, *pair)
            for factor in TITLES
            if factor in FACTORS
            for pair in pairs_of(group, factor)
        ]
        effects += compared(series, pairs)
    for protocol in dict.fromkeys(summary.protocol for summary in finished):
        group = [summary for summary in finished if summary.protocol == protocol]
        pairs = [("backbone", *pair) for pair in pairs_of(group, "backbone")]
        effects += compared(protocol, pairs)
    return effects


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

    ordered = sorted(summaries, key=lambda one: (*fixed(one), order(one), one.experiment))
    return [
        (first, second)
        for first, second in itertools.combinations(ordered, 2)
        if fixed(first) == fixed(second) and getattr(first, factor) != getattr(second, factor)
    ]


def compared(series: str, pairs: Sequence[tuple[str, Summary, Summary]]) -> list[Effect]:
    """Return the effects of `pairs`, a factor and two summaries each, with p corrected."""
    changes = [difference(*paired(first, second)) for _, first, second in pairs]
    adjusted = holm([change.p for change in changes])
    return [
        Effect(factor, series, first, second, change, p)
        for (factor, first, second), change, p in zip(pairs, changes, adjusted, strict=True)
    ]


def holm(ps: list[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    if not ps:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(ps, alpha=LEVEL, method="holm")[1]]


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
        others = [effect.values for effect in group if not effect.supported]
        sentences = [f"{'; '.join(findings)}."] if findings else []
        if others:
            sentences.append(f"Accuracy not significantly different: {listed(others)}.")
        sentences.append(time_sentence(group))
        found.append(f"**{TITLES[factor]}, {series}:** {' '.join(sentences)}")
    return found


def finding(effect: Effect) -> str:
    """Return the change in accuracy of a supported effect, with its interval."""
    change = effect.change
    bounds = [points(bound) for bound in (change.low, change.high) if bound is not None]
    return (
        f"{effect.values} {'raised' if change.value > 0 else 'lowered'} accuracy by "
        f"{abs(100 * change.value):.2f} points (95 % interval {' to '.join(bounds)})"
    )


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
            format_difference(effect.change),
            f"{effect.change.p:.3g}",
            f"{effect.adjusted:.3g}",
            effect.verdict,
            f"{effect.time_ratio:.2f}",
        ]
        for effect in effects
    ]
    return table(head, rows, left=4)


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
