"""The software that made each run: rows made by different versions or in another precision may
differ by that alone.
"""

from typing import Any

from tasks.report.markdown import bullets

MOST = 5  # runs that are named of each


def software_of(run: dict[str, Any]) -> str:
    """Return what decides a training beside its settings: `keras 3.10.0, tensorflow 2.19.0,
    float32`.

    That of the pre-training follows where it was another.
    """
    own, before = described(run), described(run["pretraining"]) if run.get("pretraining") else None
    return own if before in (None, own) else f"{own} (pre-trained with {before})"


def described(made: dict[str, Any]) -> str:
    versions = {name: number for name, number in made["versions"].items() if name != "python"}
    return ", ".join(
        [*(f"{name} {number}" for name, number in sorted(versions.items())), made["precision"]]
    )


def software_warnings(runs: list[dict[str, Any]]) -> list[str]:
    """Return a block of Markdown that says which runs were made by which software, or nothing where
    all were made by the same.
    """
    made: dict[str, list[str]] = {}
    for run in runs:
        if not run["failed"]:
            made.setdefault(software_of(run), []).append(f"`{run['key']}`")
    if len(made) < 2:
        return []
    lines = [
        f"{software}: {', '.join(keys[:MOST])}"
        + (f" and {len(keys) - MOST} more" if keys[MOST:] else "")
        for software, keys in sorted(made.items())
    ]
    return [
        "**Rows were made by different software**, which may account for a difference between"
        " them:\n" + bullets(lines)
    ]
