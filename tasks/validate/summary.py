"""What was found, in words: the size of most images, and the broken rules for the terminal."""

from pathlib import Path
from typing import Any

IMAGES = Path("data/raw/images")
REPORT = Path("reports/validation")


def common_size(decoded):
    """Return 'WIDTHxHEIGHT' of most images; the smaller name where two are equally frequent."""
    return decoded["size"].value_counts().sort_index().idxmax() if len(decoded) else "any"


def told(result, severity):
    """Return the broken rules of a severity for the terminal: each in one line, with up to five
    offenders and the fix.
    """
    broken = [
        rule for rule in result["rules"] if not rule["passed"] and rule["severity"] == severity
    ]
    lines = [
        f"{IMAGES}: {len(broken)} of {len(result['rules'])} rules are broken; the pictures are in"
        f" {REPORT / 'index.html'}"
    ]
    for rule in broken:
        needed = f"Expected: {rule['expected']}. Fix: {rule['fix']}"
        lines.append(f"  {rule['rule']}: {told_rule(rule)}. {needed}")
    return "\n".join(lines)


def told_rule(rule: dict[str, Any]) -> str:
    """Return what one broken rule found, with up to five offenders."""
    if not rule["count"]:
        return rule["found"]
    pairs = list(zip(rule["offenders"], rule["details"], strict=True))[:5]
    shown = ", ".join(f"{path} ({detail})" if detail else path for path, detail in pairs)
    more = f" and {rule['count'] - len(pairs):,} more" if rule["count"] > len(pairs) else ""
    return f"{rule['count']:,} found: {shown}{more}"
