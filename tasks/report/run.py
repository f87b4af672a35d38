"""What the stage report does: read the study, draw the figures, write the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemotune.evaluation import statistics
from hemotune.evaluation.leaks import NAMES
from hemotune.evaluation.statistics import Estimate
from hemotune.files import new_file, new_folder, write_text
from hemotune.markup import code, escaped
from hemotune.paths import INVENTORY, PIXELS
from hemotune.prediction.knowledge import Use
from tasks.report import (
    best_model,
    evidence,
    experiments,
    figures,
    findings,
    health,
    label_errors,
    mistakes,
    protocols,
    reproduction,
    variation,
)
from tasks.report.best_model import write_best
from tasks.report.markdown import bullets, listed, plain, plain_table, render, table
from tasks.report.model_card import write_card
from tasks.report.reproduction import original_accuracies
from tasks.report.results import (
    ORIGINAL_FACTORS,
    TIMES,
    FailedRun,
    FinishedRun,
    Summary,
    by_series,
    results_table,
    shown_factors,
    summaries_of,
)
from tasks.report.runs import read_runs
from tasks.report.software import WARNING, different_software
from tasks.report.study import Rule, Study, read_study
from tasks.report.trust import warnings_of

# Names in section 1 for fields of Metrics.
MACHINE = {"CPU": "processor", "Threads": "threads", "Device": "device", "Precision": "precision"}
# Modules whose functions study.md.j2 calls, by name.
MODULES = {
    "best_model": best_model,
    "evidence": evidence,
    "experiments": experiments,
    "figures": figures,
    "findings": findings,
    "health": health,
    "label_errors": label_errors,
    "mistakes": mistakes,
    "protocols": protocols,
    "reproduction": reproduction,
    "statistics": statistics,
    "variation": variation,
}
Runs = Sequence[FinishedRun | FailedRun]


def write_report(incomplete: bool, with_images: bool) -> None:
    """Write all files of the report, and print the results table.

    Args:
        incomplete: report the finished runs and list the others as failed.
        with_images: show images of the data set.

    Raises:
        StudyError: an input is missing or cannot be read, or a run is missing.
    """
    root, reports = Path("."), Path("reports")
    study = read_study(root)
    runs = read_runs(root, study, incomplete)
    summaries = summaries_of(runs)
    finished = [summary for summary in summaries if summary.finished]
    inventory = pd.read_parquet(root / INVENTORY, columns=["path"])
    images = read_images() if with_images else None
    show(0.1, "intervals")
    warnings = warnings_of(summaries, study.controls, study.words)
    accuracies = evidence.accuracies_of(finished)
    suspects = label_errors.find_in_folds(finished)

    with new_folder(reports / "figures") as folder:
        show(0.3, "figures")
        draw_figures(folder, study, finished, accuracies)
        show(0.6, "errors of the models")
        paths = inventory["path"].to_list()
        mistakes.draw_mistakes(folder, finished, paths, images, study.words)
        label_errors.draw_sheets(folder, suspects, finished, paths, images, study.words)
    show(0.8, "comparisons")
    best = best_model.choose(run for one in finished for run in one.finished)
    use = write_best(best, study.words)
    text = write_study(
        study, runs, summaries, warnings, suspects, use, with_images=images is not None
    )
    write_text(reports / "study.md", text)
    held_out = [summary for summary in summaries if summary.protocol == "held-out"]
    card = write_card(study, held_out, warnings_of(held_out, study.controls, study.words))
    write_text(reports / "model_card.md", card)
    results = results_table(runs)
    write_csv(reports / "results.csv", results[results.columns.difference([*TIMES], sort=False)])
    write_csv(reports / "times.csv", results[["key", *TIMES]])
    write_csv(reports / "summary.csv", experiments.summary_table(summaries, accuracies))

    text = summary_of(study, runs, summaries, warnings)
    write_text(reports / "summary.txt", text)
    print(f"\n{text}", end="")


def show(share: float, step: str) -> None:
    """Print the progress in the format that flows/ reads."""
    print(f"[{share:4.0%}] report: {step}", flush=True)


def write_csv(path: Path, values: pd.DataFrame) -> None:
    with new_file(path) as temporary:
        values.to_csv(temporary, index=False, lineterminator="\n")


def draw_figures(
    folder: Path,
    study: Study,
    finished: Sequence[Summary],
    accuracies: Sequence[tuple[Summary, Estimate]],
) -> None:
    """Draw the curves of each experiment and series, and the comparison, into `folder`."""
    for summary in finished:
        name = f"{summary.experiment}-{figures.name_of(summary)}"
        figures.draw_curves(folder / name, summary.finished, summary.series)
    for series, group in by_series(finished).items():
        runs = [summary.finished[0] for summary in group]
        name = f"validation-{figures.name_of(group[0])}"
        figures.draw_validation_curves(folder / name, runs, series)
    if accuracies:
        compared, estimates = zip(*accuracies, strict=True)
        # Accuracies on drawn images are not comparable.
        rows = study.original.rows if study.original and not study.is_sample else []
        originals = original_accuracies(rows, compared)
        figures.draw_comparison(folder / "result.png", compared, estimates, originals)


def read_images() -> NDArray[np.uint8] | None:
    """Return the images (N, size, size, 3) of the inventory, memory-mapped, None if missing."""
    return np.load(PIXELS, mmap_mode="r") if PIXELS.exists() else None


def write_study(
    study: Study,
    runs: Runs,
    summaries: Sequence[Summary],
    warnings: Sequence[str],
    suspects: Mapping[str, pd.DataFrame],
    use: Use | None,
    with_images: bool,
) -> str:
    """Return the text of study.md, with or without images of the data set and links to them."""
    finished = [summary for summary in summaries if summary.finished]
    finished_runs = [run for summary in finished for run in summary.finished]
    by_experiment = {
        name: [summary for summary in summaries if summary.experiment == name]
        for name in study.params.experiments
    }
    return render(
        "study.md.j2",
        study=study,
        runs=runs,
        finished_runs=finished_runs,
        summaries=summaries,
        finished=finished,
        by_experiment=by_experiment,
        factors=[name for name in shown_factors(summaries) if name not in ORIGINAL_FACTORS],
        axes=[a for a in ("backbone", "training") if len(getattr(study.params, f"{a}s")) > 1],
        warnings=warnings,
        suspects=suspects,
        best_use=use,
        failures=failures_of(runs),
        unsound=health.unsound_trainings(finished_runs),
        broken_rules=broken_rules(study.rules),
        rules_off=[rule.rule for rule in study.rules if rule.severity == "off"],
        software=different_software(summaries),
        software_warning=WARNING,
        machine={
            word: sorted({escaped(getattr(run.metrics, name)) for run in finished_runs})
            for word, name in MACHINE.items()
        },
        effects=findings.effects_of(finished),
        controls=NAMES,
        with_images=with_images,
        by_series=by_series,
        different_software=different_software,
        table=table,
        **MODULES,
    )


def failures_of(runs: Runs) -> list[str]:
    """Return a line for each run without results."""
    return [f"`{run.key}`: {escaped(run.failed)}" for run in runs if isinstance(run, FailedRun)]


def broken_rules(rules: Sequence[Rule]) -> list[str]:
    """Return a line for each broken rule, with some of the files, or why it could not be judged."""
    lines = []
    for rule in rules:
        if rule.passed or rule.severity == "off":
            continue
        names = [code(path) for path in rule.offenders[:3]]
        more = ", …" if len(rule.offenders) > 3 else ""
        found = f"{rule.count} found: {listed(names)}{more}" if rule.count else escaped(rule.found)
        lines.append(f"{rule.severity}: {escaped(rule.description)} ({found})")
    return lines


def summary_of(
    study: Study, runs: Runs, summaries: Sequence[Summary], warnings: Sequence[str]
) -> str:
    """Return the results tables and the paths of the report, as plain text for a terminal."""
    lines = []
    for name, group in by_series(summaries).items():
        lines += [
            name + (" (sample: drawn images)" if study.is_sample else ""),
            plain_table(experiments.table_head(group), experiments.result_rows(group)),
            *[plain(line) for line in health.unsound_rows(group)],
            "",
        ]
    lines += [plain(f"failed: {reason}") for reason in failures_of(runs)]
    finished = [run for run in runs if isinstance(run, FinishedRun)]
    lines += [plain(f"unsound: {line}") for line in health.unsound_trainings(finished)]
    lines += [plain(warning) for warning in warnings]
    if software := different_software(summaries):
        lines.append(plain(f"{WARNING}\n{bullets(software)}"))
    lines.append(
        "Report: reports/study.md; results: reports/results.csv; figures: reports/figures/"
    )
    return "\n".join(lines) + "\n"
