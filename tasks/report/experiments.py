"""Sections 2 and 3 of the report, in the published study's shape: settings, a section for each
experiment, the results table.
"""

from hemotune.markup import escaped
from hemotune.settings.experiment import architecture
from tasks.report.markdown import bold, duration, image, listed, milliseconds, percent, rate, table
from tasks.report.results import FACTORS, by_series, changed_factors, groups_of
from tasks.report.software import software_warnings

TABLE_HEAD = [
    "Model",
    "Hidden Layer",
    "Dense Count",
    "Learning Rate",
    "Accuracy",
    "Learning Time(ms)",
]
TRAIN_NOTE = (
    "The train figures are those the fit reports, averaged over the last epoch with dropout on, as"
    " the published study's are."
)


def basic_settings(study):
    training, backbone = study.profile.training, study.profile.backbone
    weights = {
        "imagenet": "imagenet",
        "pretrain": f"pre-trained on {backbone.pretrain.images:,} freshly drawn cells",
        "random": "random",
    }[backbone.weights]
    scale = (
        ""
        if training.learning_rate_scale == 1
        else f", every rate times {training.learning_rate_scale:g}"
    )
    return "\n".join(
        [
            f"- weight: {weights}",
            f"- Dropout: {training.dropout:g}",
            f"- optimizer: Adam{scale}",
            "- All layers are trained.",
            (
                f"- Epochs: {training.epochs}, batch size {training.batch_size}, seed"
                f" {training.seed} in repeat 1, one more in each further"
            ),
            f"- {TRAIN_NOTE}",
        ]
    )


def title_of(experiment, first):
    """Return a section's title as the published study words it: what the experiment changes of the
    first one.
    """
    changed = changed_factors(experiment, first)
    if not changed:
        return "Basic" if experiment is first else f"The same as {escaped(first['experiment'])}"
    return "Change " + listed(
        f"{FACTORS[factor][1]} to {FACTORS[factor][2](experiment[factor])}" for factor in changed
    )


def experiment_sections(study, summaries, links):
    """Return the blocks of the sections 2.1, 2.2, ...: one for each experiment, with a row for each
    of its runs.
    """
    blocks = []
    for number, name in enumerate(study.params.experiments, 1):
        group = [summary for summary in summaries if summary["experiment"] == name]
        first, own = summaries[0], group[0]
        names = listed(
            f"`{architecture(backbone, own['layers'], own['units'])}`"
            for backbone in study.params.backbones
        )
        scale = study.profile.training.learning_rate_scale
        applied = "" if scale == 1 else f" (applied: {rate(own['learning_rate'] * scale)})"
        blocks.append(f"### 2.{number}. {title_of(own, first)}")
        blocks.append(
            f"- Model: {escaped(name)}\n- Model Architecture: {names}\n- Learning Rate:"
            f" {rate(own['learning_rate'])}{applied}"
        )
        for summary in group:
            link = links.get((name, summary["series"]))
            blocks.append(
                image(f"Loss and accuracy of {name} over the epochs, {summary['series']}", link)
                if link
                else ""
            )
        runs = [run for summary in group for run in summary["every"]]
        blocks.append(run_figures(runs[0]) if len(runs) == 1 else runs_table(runs, study.params))
    return blocks


def run_figures(run):
    """Return a single run's figures as the published study lists them."""
    if run["failed"]:
        return f"- Failed: {escaped(run['failed'])}"
    return "\n".join(
        [
            (
                f"- Train: [loss: {run['train_loss']:.4f}, acc: {run['train_accuracy']:.4f}] (as"
                " the fit reports them, dropout on)"
            ),
            (
                f"- Validation: [loss: {run['validation_loss']:.4f}, val_acc:"
                f" {run['validation_accuracy']:.4f}]"
            ),
            f"- Test: [loss: {run['test_loss']:.4f}, acc: {run['test_accuracy']:.4f}]",
            f"- Learning Time: {duration(run['learning_time_seconds'])}",
        ]
    )


def runs_table(runs, params):
    """Return a table of several runs of one experiment."""
    axes = [
        axis for axis in ("protocol", "backbone", "repeat") if len(getattr(params, f"{axis}s")) > 1
    ]
    head = [
        *[axis.capitalize() for axis in axes],
        "Train loss, acc (dropout on)",
        "Validation loss, acc",
        "Test loss, acc",
        "Learning Time",
    ]
    rows = []
    for run in runs:
        pairs = [
            "" if run["failed"] else f"{run[f'{split}_loss']:.4f}, {run[f'{split}_accuracy']:.4f}"
            for split in ("train", "validation", "test")
        ]
        time = (
            f"failed: {escaped(run['failed'])}"
            if run["failed"]
            else duration(run["learning_time_seconds"])
        )
        rows.append([*[run[axis] for axis in axes], *pairs, time])
    return table(head, rows, left=len(axes))


def result_rows(summaries):
    """Return the rows of the results table of one series, in its groups and with its marks; an
    empty row separates groups.

    The marks are the published table's: the model, a factor that differs from the first row, the
    best accuracy, the longest and the shortest learning time. (There row 5's 90.56 % is bold too,
    which no rule explains: it is neither extreme.)
    """
    done = [summary for summary in summaries if summary["runs"]]
    best = max(
        (percent(summary["accuracy"]) for summary in done),
        key=lambda text: float(text[:-1]),
        default=None,
    )
    times = [milliseconds(summary["seconds"]) for summary in done]
    rows = []
    for group in groups_of(summaries):
        rows += [[]] if rows else []
        for summary in group:
            changed = changed_factors(summary, summaries[0])
            values = [FACTORS[factor][2](summary[factor]) for factor in FACTORS]
            marked = [
                bold(value) if factor in changed else value
                for factor, value in zip(FACTORS, values, strict=True)
            ]
            if summary["runs"]:
                accuracy, time = percent(summary["accuracy"]), milliseconds(summary["seconds"])
                extreme = len(set(times)) > 1 and time in (min(times), max(times))
                marked += [
                    bold(accuracy) if accuracy == best else accuracy,
                    bold(time) if extreme else str(time),
                ]
            else:
                marked += ["failed", ""]
            rows.append([bold(summary["experiment"]), *marked])
    return rows


def result_section(study, summaries, links):
    blocks = (
        [image("Test accuracy and learning time of all experiments", links["comparison"])]
        if "comparison" in links
        else []
    )
    repeats = len(study.params.repeats)
    for series, group in by_series(summaries).items():
        caption = f"**Results, {series}**" + (
            " — **sample** (drawn images)" if study.profile.dataset.source == "sample" else ""
        )
        caption += f", means of {repeats} repeats" if repeats > 1 else ""
        blocks += [caption, table(TABLE_HEAD, result_rows(group))]
        blocks += software_warnings([run for summary in group for run in summary["runs"]])
        if (None, series) in links:
            blocks.append(
                image(
                    f"Validation loss and accuracy of all experiments, {series}",
                    links[None, series],
                )
            )
    blocks.append(
        "Bold: the model, a factor that differs from the first row, the best accuracy, the longest"
        " and the shortest learning time. Accuracy is that of the test images; the time is that of"
        " the fit alone, cut off at whole milliseconds as in the published table. All runs with all"
        " figures: [results.csv](results.csv), [times.csv](times.csv)."
    )
    return blocks
