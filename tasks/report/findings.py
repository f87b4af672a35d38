"""Section 6 of the report: what each factor did to accuracy and time, said only where the data
support it.
"""

from hemotune.evaluation.statistics import factor_effects
from hemotune.markup import escaped
from tasks.report.markdown import (
    bold,
    bullets,
    listed,
    names_of,
    percent,
    points,
    points_between,
    table,
)
from tasks.report.results import FACTORS, best_of, by_series, results_table

# What may differ between two experiments, in the order in which it is told, and between two series.
TITLES = {
    "units": "Units of the hidden layers",
    "layers": "Hidden layers",
    "learning_rate": "Learning rate",
    "backbone": "Backbone",
}
LEVEL = 0.05


def effects_of(summaries):
    """Return one dict for each pair of experiments of a series that differ in one factor alone, and
    of backbones in a protocol.

    Keys: those of statistics.factor_effects, series, and adjusted: p after Holm's correction for
    all pairs of the series (two dozen comparisons at 5 % each would give a false finding in most
    studies).
    """
    runs = [run for summary in summaries for run in summary["runs"]]
    judged = {run["key"]: run["judged"] for run in runs}
    done = by_series([summary for summary in summaries if summary["runs"]])
    factors = [factor for factor in TITLES if factor in FACTORS]
    asked = [
        (name, [run for summary in group for run in summary["runs"]], factors)
        for name, group in done.items()
    ]
    if len({run["backbone"] for run in runs}) > 1:
        for protocol in dict.fromkeys(run["protocol"] for run in runs):
            asked.append(
                (protocol, [run for run in runs if run["protocol"] == protocol], ["backbone"])
            )
    effects = []
    for series, members, factors in asked:
        table_of = results_table(members).astype(
            {"learning_time_seconds": float, "learning_rate": float}
        )
        found = [
            row
            for factor in factors
            for row in factor_effects(table_of, judged, factor).to_dict("records")
        ]
        effects += [
            row | {"series": series, "adjusted": p}
            for row, p in zip(found, holm([row["p"] for row in found]), strict=True)
        ]
    return effects


def holm(ps):
    """Return p-values corrected for their number (Holm 1979)."""
    if not ps:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(ps, alpha=LEVEL, method="holm")[1]]


def supported(effect):
    """Whether the interval excludes 0 and the p stays below 5 % after the correction."""
    return effect["verdict"] != "not distinguishable" and effect["adjusted"] < LEVEL


def values_of(effect):
    wording = FACTORS[effect["factor"]][2] if effect["factor"] in FACTORS else str
    return f"{wording(effect['first'])} → {wording(effect['second'])}"


def sentences(effects):
    """Return one sentence or more for each series and factor, phrased from the numbers; no finding
    where the interval forbids it.
    """
    found = []
    for series in dict.fromkeys(effect["series"] for effect in effects):
        for factor in dict.fromkeys(
            effect["factor"] for effect in effects if effect["series"] == series
        ):
            pairs = [
                effect
                for effect in effects
                if effect["series"] == series and effect["factor"] == factor
            ]
            name = TITLES[factor]
            held = [effect for effect in pairs if supported(effect)]
            told = [
                f"{values_of(effect)} {'raised' if effect['difference'] > 0 else 'lowered'}"
                f" accuracy by {abs(100 * effect['difference']):.2f} points (95 % interval"
                f" {points(effect['low'])} to {points(effect['high'])})"
                for effect in held
            ]
            open_pairs = [values_of(effect) for effect in pairs if not supported(effect)]
            text = f"**{name}, {series}:** " + (
                "; ".join(told) + "."
                if told
                else "no finding on accuracy: the data do not support one."
            )
            if told and open_pairs:
                text += f" Not told apart: {listed(open_pairs)}."
            found.append(f"{text} {time_sentence(pairs)}".strip())
    return found


def time_sentence(pairs):
    """Return what the factor did to the learning time, from its smallest to its largest value."""
    widest = (
        max(pairs, key=lambda effect: effect["second"])
        if pairs[0]["factor"] == "backbone"
        else max(pairs, key=lambda effect: effect["second"] - effect["first"])
    )
    return f"Learning time, {values_of(widest)}: × {widest['time_ratio']:.2f}."


def findings_section(summaries):
    """Return the blocks of section 6."""
    effects = effects_of(summaries)
    if not effects:
        return ["No two experiments differ in one factor alone, so no factor's effect can be told."]
    rows = []
    for effect in effects:
        change = {"value": effect["difference"], "low": effect["low"], "high": effect["high"]}
        p = [f"{effect['p']:.3g}", f"{effect['adjusted']:.3g}"]
        name, where = (
            TITLES[effect["factor"]],
            escaped(f"{effect['first_experiment']} → {effect['second_experiment']}"),
        )
        corrected = (
            effect["verdict"]
            if supported(effect) or effect["verdict"] == "not distinguishable"
            else "not after correction"
        )
        rows.append(
            [
                name,
                effect["series"],
                values_of(effect),
                where,
                points_between(change),
                *p,
                corrected,
                f"{effect['time_ratio']:.2f}",
            ]
        )
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
    return [
        (
            "A finding is written only where the paired 95 % interval excludes 0 and p stays below"
            " 0.05 after Holm's correction for all pairs of the series. Learning times have no"
            " interval: they are what this machine took."
        ),
        bullets(sentences(effects)),
        "All pairs that differ in one factor alone:",
        table(head, rows, left=4),
        *backbone_overview(summaries),
    ]


def backbone_overview(summaries):
    """Return a table of backbones by accuracy, time and parameters, where more than one was run."""
    done = [summary for summary in summaries if summary["runs"]]
    if len({summary["backbone"] for summary in done}) < 2:
        return []
    rows = []
    for series, group in by_series(done).items():
        best = best_of(group)
        mean = sum(summary["accuracy"] for summary in group) / len(group)
        seconds = sum(summary["seconds"] for summary in group) / len(group)
        parameters = f"{best[0]['runs'][0]['parameters'] / 1e6:.1f} million"
        top = f"{percent(best[0]['accuracy'])} ({names_of(best)})"
        rows.append([bold(series), top, percent(mean), f"{seconds:.1f} s", parameters])
    head = [
        "Backbone, protocol",
        "Best accuracy",
        "Mean accuracy",
        "Mean learning time",
        "Parameters",
    ]
    return ["### 6.1. Backbones", table(head, rows)]
