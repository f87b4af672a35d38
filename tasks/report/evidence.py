"""Section 5 of the report: reliability of the accuracies. Intervals, both protocols, controls
without training, spread over repeats, pairs.
"""

from collections.abc import Iterable, Mapping, Sequence

from hemotune.evaluation.leaks import NAMES, Controls
from hemotune.evaluation.predictions import per_photograph, photographs_known
from hemotune.evaluation.statistics import (
    FEW_PHOTOGRAPHS,
    Estimate,
    expected_calibration_error,
    mcnemar,
    spread,
)
from hemotune.markup import escaped
from hemotune.settings.study import Words
from tasks.report.comparisons import Answers, accuracy_of, answers_of, compared, tested_alike
from tasks.report.markdown import (
    Row,
    bold,
    counted,
    format_difference,
    format_interval,
    listed,
    names_of,
    percent,
    points,
    table,
)
from tasks.report.results import Summary, best_of, by_series, judged_alike
from tasks.report.study import Study
from tasks.report.trust import NEAR


def interval_table(group: Iterable[Summary], words: Words) -> str:
    """Return a table of one series: accuracy per image and per photograph with intervals,
    calibration.
    """
    head = [
        "Model",
        "Accuracy per image [95 %]",
        f"Accuracy per {words.unit} [95 %]",
        f"Test {words.plural}",
        "Trainings",
        "Calibration error",
    ]
    group = list(group)
    images = estimates_of(group)
    known = all(photographs_known(summary.judged[0]) for summary in group)
    photographs = estimates_of(group, by_photograph=True) if known else None
    rows: list[Row] = []
    for place, summary in enumerate(group):
        errors = [expected_calibration_error(judged) for judged in summary.judged]
        rows.append(
            [
                bold(summary.experiment),
                format_interval(images[place]),
                format_interval(photographs[place]) if photographs else "unknown",
                photographs[place].photographs if photographs else "unknown",
                len(summary.finished),
                percent(sum(errors) / len(errors)),
            ]
        )
    return table(head, rows)


def estimates_of(group: Sequence[Summary], by_photograph: bool = False) -> list[Estimate]:
    """Return the accuracy of each row of one series: over photographs and trainings where it has
    several, else over photographs.
    """
    answers = answers_of(group, per_photograph if by_photograph else None)
    estimates = []
    for summary in group:
        known = photographs_known(summary.judged[0])
        found = accuracy_of(answers[summary.series, summary.experiment], known)
        if found is None:
            found = (summary.per_photograph if by_photograph else None) or summary.per_image
        estimates.append(found)
    return estimates


def accuracies_of(finished: Iterable[Summary]) -> list[tuple[Summary, Estimate]]:
    """Return each row with its accuracy as in `estimates_of`, series by series."""
    return [
        pair
        for group in by_series(finished).values()
        for pair in zip(group, estimates_of(group), strict=True)
    ]


def interval_notes(group: Iterable[Summary], words: Words) -> list[str]:
    """Return the limitations of the intervals of one series, each once."""
    found = [limitation_of(estimate, words) for estimate in estimates_of(list(group))]
    return list(dict.fromkeys(filter(None, found)))


def limitation_of(estimate: Estimate, words: Words) -> str:
    """Return a sentence on the limitation of an interval from few photographs, empty if it has
    none.
    """
    if estimate.photographs is None:
        return (
            f"The {words.plural} are unknown: the interval treats every image as independent and is"
            " too narrow if some are alike."
        )
    if estimate.photographs == 1:
        return f"There is only one {words.unit}, so there is no interval."
    if estimate.photographs < FEW_PHOTOGRAPHS:
        return f"Only {words.counted(estimate.photographs)}: the interval itself is uncertain."
    return ""


def protocols_table(study: Study, finished: Iterable[Summary]) -> str:
    """Return a table of every experiment in every protocol."""
    params, protocols = study.params, list(study.protocols)
    found = {
        (one.backbone, one.experiment, one.protocol): estimate
        for one, estimate in accuracies_of(finished)
    }
    rows = []
    for backbone in params.backbones:
        for name in params.experiments:
            each = [found.get((backbone, name, protocol)) for protocol in protocols]
            cells = [format_interval(one) if one else "failed" for one in each]
            random = found.get((backbone, name, "random"))
            held_out = found.get((backbone, name, "held-out"))
            change = points(held_out.value - random.value) if random and held_out else ""
            rows.append([bold(name), backbone, *cells, change])
    head = ["Model", "Backbone", *protocols, "Held-out minus random (points)"]
    return table(head, rows, left=2)


def controls_table(
    finished: Sequence[Summary], controls: Mapping[str, Controls], words: Words
) -> str:
    """Return a table of the controls in every protocol, beside the best model."""
    rows = []
    for protocol, control in controls.items():
        best = best_of([summary for summary in finished if summary.protocol == protocol])
        names = names_of([one.experiment for one in best])
        shared = control.shared_photographs
        rows.append(
            [
                f"`{protocol}`",
                *[percent(value) for value in control.accuracies().values()],
                f"{percent(best[0].accuracy)} ({names})" if best else "not run",
                f"{percent(shared.share)} of {shared.images:,}" if shared else "unknown",
            ]
        )
    head = [
        "Protocol",
        *[title_of(name) for name in NAMES],
        "Best model",
        f"Test images whose {words.unit} is in train",
    ]
    return table(head, rows)


def control_notes(
    finished: Sequence[Summary], controls: Mapping[str, Controls], words: Words
) -> list[str]:
    """Return the models that are not clearly above the controls, and the test images whose
    photograph is unknown.
    """
    notes = []
    for protocol, control in controls.items():
        highest = max(control.accuracies().values())
        weak = [
            escaped(summary.experiment)
            for summary in finished
            if summary.protocol == protocol and summary.accuracy - highest <= NEAR / 100
        ]
        if weak:
            notes.append(
                f"`{protocol}`: no more than {NEAR} points above the best control "
                f"({percent(highest)}): {listed(weak)}."
            )
        shared = control.shared_photographs
        if shared and shared.not_found:
            notes.append(
                f"`{protocol}`: the {words.unit} of {counted(shared.not_found, 'test image')} was "
                "not found, so the share is a lower bound."
            )
    return notes


def title_of(name: str) -> str:
    """Return the name of a control as text, e.g. `Majority class`."""
    return name.replace("_", " ").capitalize()


def repeats_table(finished: Iterable[Summary]) -> str:
    """Return a table of mean and range over repeats of the rows that have several."""
    rows: list[Row] = []
    for summary in finished:
        if len(summary.accuracies) < 2:
            continue
        found = spread(summary.accuracies)
        rows.append(
            [
                bold(summary.experiment),
                summary.series,
                *[percent(value) for value in (found.mean, found.minimum, found.maximum)],
                f"{100 * (found.maximum - found.minimum):.2f}",
                found.repeats,
            ]
        )
    head = ["Model", "Series", "Mean", "Minimum", "Maximum", "Range (points)", "Repeats"]
    return table(head, rows, left=2)


def pairs_table(group: Sequence[Summary]) -> str:
    """Return a table of one series: every row against the first and against the best, paired on the
    same photographs.
    """
    first, (best, *equal) = group[0], best_of(group)
    answers = answers_of(group)
    rows = [
        [
            bold(summary.experiment),
            against(first, summary, answers),
            p_of_majorities(first, summary, answers),
            against(best, summary, answers),
        ]
        for summary in group
    ]
    tie = f", first of {len(equal) + 1} tied" if equal else ""
    head = [
        "Model",
        f"Against the first ({escaped(first.experiment)})",
        "McNemar's p",
        f"Against the best ({escaped(best.experiment)}{tie})",
    ]
    return table(head, rows)


def against(other: Summary, summary: Summary, answers: Answers) -> str:
    """Return the difference of two summaries and its verdict."""
    if other is summary:
        return ""
    if not tested_alike(other, summary, answers):
        return "tested on other images"
    change = compared(other, summary, answers)
    verdict = "*not significantly different*"
    if change.significant:
        verdict = "better" if change.value > 0 else "worse"
    return f"{format_difference(change)}, {verdict}"


def p_of_majorities(first: Summary, second: Summary, answers: Answers) -> str:
    """Return McNemar's p of the first repeats, per photograph where photographs are known; empty
    where it compares nothing.
    """
    if first is second or not tested_alike(first, second, answers):
        return ""
    (a, *_), (b, *_) = judged_alike([first, second])
    if photographs_known(a):
        a, b = per_photograph(a), per_photograph(b)
    return f"{mcnemar(a, b).p:.3g}"
