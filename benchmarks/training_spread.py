"""The spread between the trainings of each row of a finished study, and how often each rule of
unsoundness names one.

    python -m benchmarks.training_spread [FOLDER]

Reads the results below FOLDER (default: this folder), where the study was run with several repeats,
and prints a table for each series: mean and standard deviation of accuracy over trainings, in
points, with the 95 % interval of the latter, for validation and test. In folds the deviation is
that within a fold, over its repeats: different photographs are no difference between trainings.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from tasks.report.health import RULES
from tasks.report.results import FinishedRun, Summary, by_series, summaries_of
from tasks.report.runs import read_runs
from tasks.report.study import read_study

HEAD = ["row", "trainings", "validation: mean, sd [95 %]", "test: mean, sd [95 %]"]


def spread_of(groups: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Pool accuracies of trainings on the same images.

    Args:
        groups: lists of accuracies (fractions), one for each set of images.

    Returns:
        Mean, standard deviation within a group, and the bounds of its 95 % interval (from
        chi-squared, for normal spread), all in points; NaN where no group has two.
    """
    freedom = sum(len(group) - 1 for group in groups)
    mean = 100 * float(np.mean(np.concatenate(groups)))
    if not freedom:
        return mean, math.nan, math.nan, math.nan
    squares = sum(np.square(np.subtract(group, np.mean(group))).sum() for group in groups)
    deviation = 100 * math.sqrt(squares / freedom)
    low, high = np.sqrt(freedom / chi2.ppf([0.975, 0.025], freedom))
    return mean, deviation, low * deviation, high * deviation


def spread_cell(runs: Sequence[FinishedRun], part: str) -> str:
    """Return the cell of one row: mean, standard deviation and its interval on `part`."""
    groups: dict[int | None, list[float]] = {}
    for run in runs:
        groups.setdefault(run.fold, []).append(getattr(run.metrics, part).accuracy)
    mean, deviation, low, high = spread_of(list(groups.values()))
    if math.isnan(deviation):
        return f"{mean:.2f}, one training"
    return f"{mean:.2f}, {deviation:.2f} [{low:.2f}, {high:.2f}]"


def row_of(summary: Summary) -> list[str | int]:
    """Return the cells of one row of a study in one series."""
    runs = summary.finished
    broken = Counter(problem.rule for run in runs for problem in run.problems)
    named = [broken[rule] for rule in RULES]
    any_rule = sum(bool(run.problems) for run in runs)
    parts = [spread_cell(runs, part) for part in ("validation", "test")]
    return [summary.experiment, len(runs), *parts, *named, any_rule]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_spread", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    root = parser.parse_args().folder
    summaries = summaries_of(read_runs(root, read_study(root), incomplete=True))
    head = [*HEAD, *RULES.values(), "unsound"]
    for series, group in by_series(s for s in summaries if s.finished).items():
        print(f"\n{series}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for summary in group:
            print(f"| {' | '.join(map(str, row_of(summary)))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
