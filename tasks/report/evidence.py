"""Section 5 of the report: what the accuracies are worth. Intervals, both protocols, controls
without training, spread, pairs.
"""

from hemotune.evaluation.leaks import NAMES, accuracies
from hemotune.evaluation.predictions import per_photograph, photographs_known
from hemotune.evaluation.statistics import (
    accuracy,
    difference,
    expected_calibration_error,
    mcnemar,
    spread,
)
from hemotune.markup import escaped
from tasks.report.markdown import (
    between,
    bold,
    bullets,
    counted,
    listed,
    names_of,
    percent,
    points,
    points_between,
    table,
)
from tasks.report.results import best_of, by_series
from tasks.report.trust import NEAR


def add_intervals(summaries):
    """Add to each summary that has runs per_image and per_photograph (None if unknown):
    statistics.accuracy of all its repeats.
    """
    for summary in summaries:
        if summary["runs"]:
            judged = [run["judged"] for run in summary["runs"]]
            known = photographs_known(judged[0])
            summary["per_image"] = accuracy(judged)
            summary["per_photograph"] = (
                accuracy([per_photograph(one) for one in judged]) if known else None
            )


def evidence_section(study, summaries, controls):
    """Return the blocks of section 5.

    Args:
        study: report.study.Study.
        summaries: what results.summaries_of returns, after add_intervals.
        controls: data/controls.json, or {} where no control was computed.
    """
    done = [summary for summary in summaries if summary["runs"]]
    if not done:
        return ["No run has results."]
    blocks = [
        "### 5.1. Accuracy with its 95 % interval",
        *interval_blocks(done),
        "### 5.2. Both protocols side by side",
    ]
    blocks += protocol_blocks(study, done)
    blocks += ["### 5.3. Controls without training", *control_blocks(done, controls)]
    blocks += ["### 5.4. Spread over repeats", *repeat_blocks(study, done)]
    blocks += ["### 5.5. Rows compared on the same test images", *pair_blocks(done)]
    return blocks


def interval_blocks(done):
    """Return a table a series: accuracy per image and per photograph with intervals,
    calibration.
    """
    blocks = [
        "Images of one photograph are copies, not independent, so the intervals come from"
        " resampling photographs. Where the data names no photographs, a group of images that"
        " resemble each other counts as one. Per photograph, the majority of its images decides."
        " The calibration error (expected, 15 bins) is the mean distance between confidence and"
        " accuracy."
    ]
    for series, group in by_series(done).items():
        rows = []
        for summary in group:
            photographs = summary["per_photograph"]
            error = sum(expected_calibration_error(run["judged"]) for run in summary["runs"]) / len(
                summary["runs"]
            )
            known = (
                [between(photographs), photographs["photographs"]]
                if photographs
                else ["unknown", "unknown"]
            )
            rows.append(
                [bold(summary["experiment"]), between(summary["per_image"]), *known, percent(error)]
            )
        head = [
            "Model",
            "Accuracy per image [95 %]",
            "Accuracy per photograph [95 %]",
            "Test photographs",
            "Calibration error",
        ]
        notes = dict.fromkeys(note for summary in group for note in summary["per_image"]["notes"])
        blocks += [
            f"**{series}**",
            table(head, rows),
            bullets(f"{note[0].upper()}{note[1:]}." for note in notes),
        ]
    return blocks


def protocol_blocks(study, done):
    """Return a table of every experiment in both protocols."""
    protocols = study.params.protocols
    if len(protocols) < 2:
        return [
            f"Only `{protocols[0]}` was run; `protocols: [random, held-out]` in params.yaml runs"
            " both."
        ]
    head, rows = ["Model", "Backbone", *protocols, "Difference (points)"], []
    for backbone in study.params.backbones:
        for name in study.params.experiments:
            found = {
                s["protocol"]: s
                for s in done
                if s["experiment"] == name and s["backbone"] == backbone
            }
            cells = [
                between(found[protocol]["per_image"]) if protocol in found else "failed"
                for protocol in protocols
            ]
            both = len(found) == 2
            change = (
                points(found["held-out"]["accuracy"] - found["random"]["accuracy"]) if both else ""
            )
            rows.append([bold(name), backbone, *cells, change])
    return [
        "Accuracy per image with its 95 % interval; the difference is held-out minus random.",
        table(head, rows, left=2),
    ]


def control_blocks(done, controls):
    """Return a table of the controls in every protocol, and which models do not rise above them."""
    if not controls:
        return ["No control was computed: data/controls.json is missing; run `dvc repro`."]
    rows, near = [], []
    for protocol, control in controls.items():
        best = best_of([summary for summary in done if summary["protocol"] == protocol])
        model = f"{percent(best[0]['accuracy'])} ({names_of(best)})" if best else "not run"
        shared = control["shared_photographs"]
        told = f"{percent(shared['share'])} of {shared['images']:,}" if shared else "unknown"
        rows.append(
            [
                f"`{protocol}`",
                *[percent(value) for value in accuracies(control).values()],
                model,
                told,
            ]
        )
        highest = max(accuracies(control).values())
        weak = [
            escaped(s["experiment"])
            for s in done
            if s["protocol"] == protocol and s["accuracy"] - highest <= NEAR / 100
        ]
        if weak:
            near.append(
                f"`{protocol}`: not {NEAR} points above the best control ({percent(highest)}):"
                f" {listed(weak)}."
            )
        if shared and shared["not_found"]:
            near.append(
                f"`{protocol}`: the photograph of {counted(shared['not_found'], 'test image')} was"
                " not found; shared ones may hide there."
            )
    head = [
        "Protocol",
        *[words(name) for name in NAMES],
        "Best model",
        "Test images whose photograph is in train",
    ]
    return [
        "; ".join(f"{words(key)}: {text}" for key, text in NAMES.items()) + ".",
        table(head, rows),
        bullets(near),
    ]


def words(name):
    return name.replace("_", " ").capitalize()


def repeat_blocks(study, done):
    """Return a table of mean and range over repeats."""
    if len(study.params.repeats) == 1:
        return [
            "Every experiment was trained once, as in the published study: how much the seed"
            " decides is not known."
        ]
    rows = []
    for summary in done:
        found = spread([run["test_accuracy"] for run in summary["runs"]])
        bounds = [percent(found[name]) for name in ("mean", "minimum", "maximum")]
        width = f"{100 * (found['maximum'] - found['minimum']):.2f}"
        rows.append(
            [bold(summary["experiment"]), summary["series"], *bounds, width, found["repeats"]]
        )
    return [
        table(
            ["Model", "Series", "Mean", "Minimum", "Maximum", "Range (points)", "Repeats"],
            rows,
            left=2,
        )
    ]


def pair_blocks(done):
    """Return a table a series: every row against the first and against the best, paired on the same
    photographs.
    """
    blocks = [
        "Differences are in percentage points, this row minus the other, with the paired 95 %"
        " interval. *Not told apart*: the difference is within its interval, or p of the sign-flip"
        " test is above 0.05. Each row is compared by itself; section 6 corrects for the number of"
        " comparisons. McNemar's exact test compares this row with the first, photograph by"
        " photograph (image by image where photographs are unknown: its p is then too small if"
        " images are copies), on the first repeat of each."
    ]
    for series, group in by_series(done).items():
        first, (best, *equal) = group[0], best_of(group)
        rows = []
        for summary in group:
            test = "" if summary is first else f"{compare_majorities(first, summary):.3g}"
            rows.append(
                [bold(summary["experiment"]), against(first, summary), test, against(best, summary)]
            )
        tie = f", first of {len(equal) + 1} that tie" if equal else ""
        names = [escaped(summary["experiment"]) for summary in (first, best)]
        head = [
            "Model",
            f"Against the first ({names[0]})",
            "McNemar's p",
            f"Against the best ({names[1]}{tie})",
        ]
        blocks += [f"**{series}**", table(head, rows)]
    return blocks


def against(other, summary):
    """Return the difference of two summaries in words for a cell."""
    if other is summary:
        return ""
    change = difference(
        [run["judged"] for run in other["runs"]], [run["judged"] for run in summary["runs"]]
    )
    verdict = (
        ("better" if change["value"] > 0 else "worse")
        if change["distinguishable"]
        else "*not told apart*"
    )
    return f"{points_between(change)}, {verdict}"


def compare_majorities(first, second):
    """Return McNemar's p of the first repeats, per photograph where photographs are known."""
    tables = [summary["runs"][0]["judged"] for summary in (first, second)]
    if photographs_known(tables[0]):
        tables = [per_photograph(one) for one in tables]
    return mcnemar(*tables)["p"]
