"""The rule files and their promtool tests, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.paths import ROOT
from tests.promql import Findings, Metric, lint, scraped_metrics

PROMETHEUS = ROOT / "prometheus"
RULES = PROMETHEUS / "rules"
RULE_FILES = tuple(
    RULES / f"{name}.yml" for name in ("recording", "recording-cluster", "alerts", "alerts-cluster")
)
TEST_FILES = tuple(sorted((RULES / "tests").glob("*.yml")))
CONFIG_FILES = (PROMETHEUS / "prometheus.yml", *sorted((PROMETHEUS / "examples").glob("prometheus*.yml")))

LEVELS: Mapping[str, frozenset[str]] = {
    "cluster": frozenset({"cluster"}),
    "node": frozenset({"cluster", "node_id", "hostname"}),
    "worker": frozenset({"cluster", "node_id", "hostname", "worker_id"}),
    "bdev": frozenset({"cluster", "node_id", "hostname", "pool_id", "pool_name"}),
    "safe_bdev": frozenset({"cluster", "node_id", "hostname", "pool_id", "pool_name"}),
    "node_tier": frozenset({"cluster", "node_id", "hostname", "type"}),
    "tier": frozenset({"cluster", "type"}),
}
"""Labels of recorded series by the level in their name."""


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule, compared by identity; `name` is that of the alert or of the recorded series."""

    name: str
    group: str
    is_alert: bool
    document: Mapping[str, Any]

    @property
    def expr(self) -> str:
        return str(self.document["expr"])

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self.document.get("labels", {}))

    @property
    def annotations(self) -> Mapping[str, str]:
        return dict(self.document.get("annotations", {}))


def load(path: Path) -> Any:
    """The YAML document in a file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def rules() -> tuple[Rule, ...]:
    """All rules of all files, in order."""
    return tuple(
        Rule(rule.get("alert") or rule["record"], group["name"], "alert" in rule, rule)
        for path in RULE_FILES
        for group in load(path)["groups"]
        for rule in group["rules"]
    )


@cache
def alerts() -> tuple[Rule, ...]:
    return tuple(rule for rule in rules() if rule.is_alert)


@cache
def recordings() -> tuple[Rule, ...]:
    return tuple(rule for rule in rules() if not rule.is_alert)


@cache
def metrics() -> dict[str, Metric]:
    """Everything a rule or a dashboard can select: what is scraped and what is recorded."""
    known = scraped_metrics()
    for rule in recordings():
        level = rule.name.split(":")[0]
        labels = LEVELS.get(level, frozenset()) | frozenset(rule.labels)
        known[rule.name] = Metric(rule.name, False, labels)
    return known


@cache
def linted(rule: Rule) -> Findings:
    return lint(rule.expr, metrics())


@cache
def rule_tests() -> tuple[Mapping[str, Any], ...]:
    """Every test group of every test file."""
    return tuple(test for path in TEST_FILES for test in load(path)["tests"])


def untested_alerts(names: Iterable[str], tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is missing of "each alert has a test group in which it fires and one in which it never does"."""
    names = list(names)
    fires: set[str] = set()
    quiet: set[str] = set()
    for test in tests:
        by_alert: dict[str, bool] = {}
        for check in test.get("alert_rule_test", ()):
            name = check["alertname"]
            by_alert[name] = by_alert.get(name, False) or bool(check.get("exp_alerts"))
        fires |= {name for name, fired in by_alert.items() if fired}
        quiet |= {name for name, fired in by_alert.items() if not fired and test["input_series"]}
    return [f"{name}: no test in which it fires" for name in names if name not in fires] + [
        f"{name}: no test in which it does not fire" for name in names if name not in quiet
    ]


def untested_recordings(names: Iterable[str], tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Recorded series for which no test expects a value."""
    tested: set[str] = set()
    for test in tests:
        for check in test.get("promql_expr_test", ()):
            if check.get("exp_samples"):
                tested |= lint(check["expr"], metrics()).metrics
    return [name for name in dict.fromkeys(names) if name not in tested]


def matchers(texts: list[str]) -> list[tuple[str, str, str]]:
    """(label, operator, value) of matchers in Alertmanager's syntax."""
    found = [re.fullmatch(r'(\w+)(=~|!~|!=|=)"([^"]*)"', text) for text in texts]
    return [(match[1], match[2], match[3]) for match in found if match]


def chosen(texts: list[str]) -> list[Rule]:
    """Alerts whose name, severity and scope fit all matchers."""
    parsed = matchers(texts)
    assert len(parsed) == len(texts), texts

    def fits(rule: Rule) -> bool:
        labels = {"alertname": rule.name, **rule.labels}
        for label, operator, value in parsed:
            actual = labels.get(label, "")
            same = bool(re.fullmatch(value, actual)) if "~" in operator else actual == value
            if same == operator.startswith("!"):
                return False
        return True

    return [rule for rule in alerts() if fits(rule)]


def held_back_by(alert: str) -> set[str]:
    """Alerts that Alertmanager holds back while this one fires, as far as it is about the same thing."""
    return {
        target.name
        for inhibition in load(PROMETHEUS / "alertmanager.yml")["inhibit_rules"]
        if alert in {rule.name for rule in chosen(inhibition["source_matchers"])}
        for target in chosen(inhibition["target_matchers"])
    }
