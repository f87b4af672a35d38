"""Sections 2 and 3 of the report, in the format of the original: a section for each experiment,
the results table.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from hemotune.evaluation.statistics import Estimate
from hemotune.markup import code, escaped
from hemotune.settings.backbone import Backbone
from hemotune.settings.experiment import architecture
from tasks.report.markdown import (
    Row,
    bold,
    duration,
    format_bounds,
    listed,
    milliseconds,
    percent,
    table,
)
from tasks.report.results import (
    FACTORS,
    Experiment,
    FailedRun,
    Summary,
    changed_factors,
    groups_of,
    shown_factors,
)

WEIGHTS = {"imagenet": "ImageNet", "random": "random"}


def initial_weights(backbone: Backbone) -> str:
    """Return with what weights the backbone of each row begins."""
    if backbone.weights == "pretrain":
        return f"pre-trained on {backbone.pretrain.images:,} freshly drawn cells"
    return WEIGHTS.get(backbone.weights) or f"from {code(backbone.weights)}"


def table_head(summaries: Iterable[Experiment]) -> list[str]:
    """Return the head of the results table."""
    factors = [FACTORS[name].column for name in shown_factors(summaries)]
    return ["Model", *factors, "Accuracy", "Learning Time(ms)"]


def title_of(experiment: Experiment, first: Experiment) -> str:
    """Return a section's title in the original's words: how the experiment differs from the
    first.
    """
    changed = changed_factors(experiment, first)
    if not changed:
        return "Basic" if experiment is first else f"The same as {escaped(first.experiment)}"
    return "Change " + listed(
        f"{FACTORS[name].phrase} to {escaped(FACTORS[name].wording(getattr(experiment, name)))}"
        for name in changed
    )


def settings_of(experiment: Experiment, factors: Iterable[str]) -> list[str]:
    """Return a line for each of `factors`, e.g. `Epochs: 20`."""
    return [
        f"{FACTORS[name].title}: {escaped(FACTORS[name].wording(getattr(experiment, name)))}"
        for name in factors
    ]


def architectures(experiment: Experiment, backbones: Sequence[str]) -> list[str]:
    """Return the experiment's architecture with each of the backbones, as code."""
    head = (experiment.layers, experiment.units, experiment.head)
    return [code(architecture(backbone, *head)) for backbone in backbones]


def runs_table(group: Sequence[Summary], axes: Sequence[str]) -> str:
    """Return a table of the runs of one experiment, with a column for each of the `axes`."""
    head = [
        *[axis.capitalize() for axis in axes],
        "Train loss, acc (dropout on)",
        "Validation loss, acc",
        "Test loss, acc",
        "Learning Time",
    ]
    rows = []
    for run in [run for summary in group for run in summary.runs]:
        if isinstance(run, FailedRun):
            cells = ["", "", "", f"failed: {escaped(run.failed)}"]
        else:
            splits = (run.metrics.train, run.metrics.validation, run.metrics.test)
            cells = [f"{figures.loss:.4f}, {figures.accuracy:.4f}" for figures in splits]
            cells.append(duration(run.metrics.learning_time_seconds))
        rows.append([*[getattr(run, axis) for axis in axes], *cells])
    return table(head, rows, left=len(axes))


def summary_table(
    summaries: Iterable[Summary], accuracies: Iterable[tuple[Summary, Estimate]]
) -> pd.DataFrame:
    """Return summary.csv, which Prefect's page shows: a row for each experiment in each series, as
    text. Times are not in it: a repetition makes the same bytes.

    Args:
        accuracies: of the rows with results, as evidence.accuracies_of returns them.
    """
    estimates = {(one.series, one.experiment): estimate for one, estimate in accuracies}
    rows = []
    for summary in summaries:
        found = estimates.get((summary.series, summary.experiment))
        rows.append(
            {
                "experiment": summary.experiment,
                "accuracy": percent(found.value) if found else "failed",
                "95 % interval": format_bounds(found) if found else "",
                "split": summary.series,
                "trainings": f"{len(summary.finished)} of {len(summary.runs)}",
            }
        )
    return pd.DataFrame(rows)


def result_rows(summaries: Sequence[Summary]) -> list[Row]:
    """Return the rows of the results table of one series; an empty row separates groups.

    Bold as in the original's table: the model, a factor that differs from the first row, the best
    accuracy, the longest and the shortest learning time. (The original also has row 5's 90.56 % in
    bold, for no apparent reason.)
    """
    finished = [summary for summary in summaries if summary.finished]
    best = percent(max((summary.accuracy for summary in finished), default=0))
    times = {milliseconds(summary.seconds) for summary in finished}
    extremes = {min(times), max(times)} if len(times) > 1 else set()
    factors = shown_factors(summaries)
    rows: list[Row] = []
    for group in groups_of(summaries):
        if rows:
            rows.append([])
        for summary in group:
            changed = changed_factors(summary, summaries[0])
            cells = [bold(summary.experiment)]
            for name in factors:
                value = FACTORS[name].wording(getattr(summary, name))
                cells.append(bold(value) if name in changed else escaped(value))
            if summary.finished:
                accuracy, time = percent(summary.accuracy), milliseconds(summary.seconds)
                cells.append(bold(accuracy) if accuracy == best else accuracy)
                cells.append(bold(time) if time in extremes else str(time))
            else:
                cells += ["failed", ""]
            rows.append(cells)
    return rows
