"""The software that made each run: different versions or precision alone may change the results."""

from collections.abc import Iterable

from tasks.report.results import Summary

WARNING = "**Rows were made with different software**, which may explain differences between them:"
MOST = 5  # runs listed for each software


def different_software(summaries: Iterable[Summary]) -> list[str]:
    """Return a line for each software with its runs, or none if all runs used the same."""
    made: dict[str, list[str]] = {}
    for run in [run for summary in summaries for run in summary.finished]:
        made.setdefault(run.metrics.software, []).append(f"`{run.key}`")
    if len(made) < 2:
        return []
    return [
        f"{software}: {', '.join(keys[:MOST])}"
        + (f" and {len(keys) - MOST} more" if keys[MOST:] else "")
        for software, keys in sorted(made.items())
    ]
