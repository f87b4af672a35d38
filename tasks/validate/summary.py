"""The rules as text: the broken ones for the terminal, all of them for Prefect's page."""

import pandas as pd

from hemotune.paths import RAW_IMAGES, VALIDATION
from hemotune.settings.validation import Severity
from tasks.validate.expectations import Result, RuleResult

OFFENDERS = 5  # listed for each rule


def describe_broken_rules(result: Result, severity: Severity) -> str:
    """Return the broken rules of a severity, each in one line with its first offenders and the
    fix.
    """
    broken = [rule for rule in result.rules if not rule.passed and rule.severity == severity]
    lines = [
        f"{RAW_IMAGES}: {len(broken)} of {len(result.rules)} rules are broken; see the images in "
        f"{VALIDATION / 'index.html'}"
    ]
    for rule in broken:
        found = describe_offenders(rule) if rule.count else rule.found
        lines.append(f"  {rule.rule}: {found}. Expected: {rule.expected}. Fix: {rule.fix}")
    return "\n".join(lines)


def rules_table(result: Result) -> pd.DataFrame:
    """Return rules.csv, which Prefect's page shows: a row for each rule, the broken ones first."""
    order = ["failed", "warnings", "passed", "off"]
    return pd.DataFrame(
        [
            {
                "verdict": "warning" if rule.state == "warnings" else rule.state,
                "rule": rule.rule,
                "found": describe_offenders(rule) if rule.count else rule.found,
                "expected": rule.expected,
                "fix": "" if rule.passed else rule.fix,
            }
            for rule in sorted(result.rules, key=lambda rule: order.index(rule.state))
        ]
    )


def describe_offenders(rule: RuleResult) -> str:
    """Return the number of offenders of a broken rule, and the first of them."""
    pairs = list(zip(rule.offenders, rule.details, strict=True))[:OFFENDERS]
    shown = ", ".join(f"{path} ({detail})" if detail else path for path, detail in pairs)
    more = f" and {rule.count - len(pairs):,} more" if rule.count > len(pairs) else ""
    return f"{rule.count:,} found: {shown}{more}"
