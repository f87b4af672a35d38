"""Judge the tables by the rules, with Great Expectations.

It takes ten seconds to import, so it is imported only inside functions.
"""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hemotune.settings.validation import Severity
from tasks.validate.rules import Rule
from tasks.validate.tables import Tables

OFFENDERS = 20  # listed for each rule
NOT_JUDGED = "this is a bug in tasks/validate/expectations.py or in Great Expectations: report it"
Verdict = Literal["passed", "warnings", "failed"]


@dataclass(frozen=True)
class RuleResult:
    """The result of one rule; the fields are the keys of result.json."""

    rule: str
    severity: Severity
    description: str
    expected: str
    found: str
    passed: bool  # Great Expectations reported success, or the rule is turned off
    count: int  # number of offenders
    offenders: list[str]  # the paths of the first OFFENDERS
    details: list[str]  # what is wrong with each of these
    fix: str

    @property
    def state(self) -> Literal["failed", "warnings", "passed", "off"]:
        if self.severity == "off":
            return "off"
        return "passed" if self.passed else "failed" if self.severity == "error" else "warnings"


@dataclass(frozen=True)
class Result:
    """The results of all rules; the fields are the keys of result.json."""

    verdict: Verdict
    rules: list[RuleResult]
    great_expectations: dict[str, dict[str, Any]]  # by table: its statistics, as JSON values


@dataclass(frozen=True)
class Outcome:
    """What Great Expectations reported for one rule.

    A rule that it could not judge did not succeed and has no offenders.
    """

    success: bool
    offending: list[int]  # row numbers
    problem: str | None  # why it could not be judged


def load_great_expectations() -> Any:  # a module without types
    """Import Great Expectations, with its usage statistics off; it takes ten seconds."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def judge(tables: Tables, rules: list[Rule]) -> Result:
    """Judge the tables by the rules. The same data gives the same result."""
    context = load_great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    outcomes: dict[str, Outcome] = {}
    statistics = {}
    for name in ("images", "decoded", "folders"):
        applied = [rule for rule in rules if rule.table == name and rule.severity != "off"]
        report = run_expectations(context, name, getattr(tables, name), applied)
        outcomes |= outcomes_of(report)
        statistics[name] = statistics_of(report)
    results = [result_of(rule, getattr(tables, rule.table), outcomes) for rule in rules]
    states = {result.state for result in results}
    verdict: Verdict = (
        "failed" if "failed" in states else "warnings" if "warnings" in states else "passed"
    )
    return Result(verdict, results, statistics)


def run_expectations(
    context: Any, name: str, table: pd.DataFrame, rules: list[Rule]
) -> Any:  # what Great Expectations takes and returns has no types
    """Run Great Expectations on one table; return its report.

    Args:
        context: of Great Expectations; the table and its suite are added to it.
        name: of the table.
    """
    gx = load_great_expectations()
    # The meta of an expectation is returned with its result. The suite is added with all its
    # expectations: adding them later would store the suite again for each.
    expectations = [
        getattr(gx.expectations, rule.expectation.type)(
            column=rule.column,
            **rule.expectation.arguments,
            description=rule.description,
            meta={"rule": rule.name},
        )
        for rule in rules
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
    # Great Expectations copies the whole table for every rule, so it gets only the judged columns.
    columns = list(dict.fromkeys(rule.column for rule in rules))
    return context.validation_definitions.add(definition).run(
        # An offender is identified by the index.
        batch_parameters={"dataframe": table[columns].reset_index(drop=True)},
        result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
    )


def outcomes_of(report: Any) -> dict[str, Outcome]:  # a report of Great Expectations has no types
    """Return what Great Expectations reported for each rule, by the rule's name."""
    outcomes = {}
    for one in report.results:
        offending = sorted(one.result.get("unexpected_index_list") or [])
        problem = problem_of(one.exception_info) if not one.success and not offending else None
        rule = one.expectation_config.meta["rule"]
        outcomes[rule] = Outcome(bool(one.success), offending, problem)
    return outcomes


def statistics_of(report: Any) -> dict[str, Any]:  # in and out: Great Expectations' JSON values
    """Return the statistics of a table for result.json, without what differs from run to run."""
    totals = (
        "evaluated_expectations",
        "successful_expectations",
        "unsuccessful_expectations",
        "success_percent",
    )
    counts = ("element_count", "unexpected_count", "unexpected_percent")
    expectations = []
    for one in report.results:
        config = one.expectation_config
        kwargs = {key: value for key, value in config.kwargs.items() if key != "batch_id"}
        kept = {key: one.result[key] for key in counts if key in one.result}
        expectations.append({"type": config.type, "kwargs": kwargs, "success": one.success, **kept})
    return {key: report.statistics[key] for key in totals} | {
        "version": load_great_expectations().__version__,
        "expectations": expectations,
    }


def problem_of(exception_info: dict[str, Any]) -> str:  # JSON values of Great Expectations
    """Return why Great Expectations could not judge a rule: its messages, in one line.

    Args:
        exception_info: of one result: with exception_message, or a dict of such dicts by metric.
    """
    nested = "exception_message" not in exception_info
    parts = exception_info.values() if nested else [exception_info]
    messages = [str(part["exception_message"]) for part in parts if part.get("raised_exception")]
    return " ".join("; ".join(messages or ["no offenders are listed"]).split())


def result_of(rule: Rule, table: pd.DataFrame, outcomes: dict[str, Outcome]) -> RuleResult:
    """Return the result of one rule. It passes only if Great Expectations reported success, or if
    it is turned off.
    """
    missing = Outcome(rule.severity == "off", [], "Great Expectations returned no result")
    outcome = outcomes.get(rule.name, missing)
    rows = table.iloc[outcome.offending]
    details = [""] * len(rows)
    if rule.detail:
        details = [rule.detail_format.format(value) for value in rows[rule.detail]]
    things = "class folders" if rule.table == "folders" else "images"
    fix = rule.fix
    if rule.severity == "off":
        found = "not judged: turned off in the profile"
    elif not outcome.success and rows.empty:
        found, fix = f"could not be judged: {outcome.problem}", NOT_JUDGED
    elif rows.empty:
        found = f"all {len(table):,} {things}"
    else:
        found = f"{len(rows):,} of {len(table):,} {things}"
        if rule.name in ("unreadable", "mode", "size"):
            kinds = Counter(details).most_common(4)
            found += ": " + "; ".join(
                f"{kind} ({count:,})" if count > 1 else kind for kind, count in kinds
            )
    return RuleResult(
        rule=rule.name,
        severity=rule.severity,
        description=rule.description,
        expected=rule.expected,
        found=found,
        passed=outcome.success,
        count=len(rows),
        offenders=rows["path"].tolist()[:OFFENDERS],
        details=details[:OFFENDERS],
        fix=fix,
    )
