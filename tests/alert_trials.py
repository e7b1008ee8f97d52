"""Puts the alerts of the kit to the test on a fast clock, and keeps the figures (`make alert-tables`)."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from clio_exporter.kit.rules import Options, render
from scripts.alert_trials import FIGURES
from tests.exporter_process import eventually
from tests.prometheus import Prometheus
from tests.unit.prometheus.rulefiles import alerts, metrics

FIRING = 'ALERTS{alertstate="firing"}'
_SELECTOR = re.compile(r"[a-z_]+[a-z0-9_:]*(?:\{[^}]*\})?")


class Figures:
    """A file of figures in a test's own directory; with CLIO_WRITE_TABLES=1 those of the repository."""

    def __init__(self, directory: Path) -> None:
        self.path = FIGURES if os.environ.get("CLIO_WRITE_TABLES") == "1" else directory / FIGURES.name

    def silent(self, kind: str, phases: dict[str, Any], unwatched: Collection[str]) -> None:
        """A kind of cluster, what it went through, and the alerts that it has nothing for."""
        self._put("silent", kind, {"phases": phases, "unwatched": sorted(unwatched)})

    def seen(
        self, alert: str, fault: str, seconds: float, besides: Collection[str], held_back: Collection[str]
    ) -> None:
        """A fault, and what it made fire."""
        at = {"fault": fault, "seconds": round(seconds), "besides": sorted(besides)}
        self._put("seen", alert, {**at, "held_back": sorted(held_back)})

    def _put(self, section: str, name: str, value: Any) -> None:
        figures = json.loads(self.path.read_text()) if self.path.exists() else {"silent": {}, "seen": {}}
        figures[section][name] = value
        self.path.write_text(json.dumps(figures, indent=1) + "\n")


class Phases:
    """What a cluster goes through without any alert, one after the other, from now on."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self._began = time.monotonic()

    def end(self, phase: str, fired: Collection[str]) -> None:
        """`fired` are all alerts that have fired until now; AssertionError if there is one."""
        now = time.monotonic()
        self.figures[phase] = {"seconds": round(now - self._began), "fired": sorted(fired)}
        self._began = now
        assert set(fired) == set(), phase


def write_rules(directory: Path, options: Options) -> list[str]:
    """The kit's rules with these options; paths of the files."""
    files = []
    for name, text in render(options).items():
        (directory / name).write_text(text)
        files.append(str(directory / name))
    return files


def fired(prometheus: Prometheus, since: float | None = None) -> set[str]:
    """Names of the alerts that fired at any time, or since a time (time.time())."""
    window = "1h" if since is None else f"{max(1, int(1000 * (time.time() - since)))}ms"
    return {sample.labels["alertname"] for sample in prometheus.query(f"max_over_time({FIRING}[{window}])")}


def evaluations(prometheus: Prometheus) -> Counter[str]:
    """By group, how many times this process has evaluated its rules; AssertionError if one failed."""
    with urllib.request.urlopen(f"{prometheus.url}/metrics", timeout=30) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    failed = {
        sample.labels["rule_group"]: sample.value
        for sample in families["prometheus_rule_evaluation_failures"].samples
        if sample.name.endswith("_total") and sample.value
    }
    assert failed == {}
    sizes = {
        sample.labels["rule_group"]: sample.value
        for sample in families["prometheus_rule_group_rules"].samples
    }
    return Counter(
        {
            sample.labels["rule_group"]: int(sample.value / sizes[sample.labels["rule_group"]])
            for sample in families["prometheus_rule_evaluations"].samples
            if sample.name.endswith("_total") and sample.labels["rule_group"] in sizes
        }
    )


def wait_for_evaluations(prometheus: Prometheus, number: int, seconds: float) -> None:
    """Wait until all rules have been evaluated so many times from now on, without an error."""
    before = evaluations(prometheus)

    def attempt() -> bool:
        now = evaluations(prometheus)
        return bool(now) and min(count - before[group] for group, count in now.items()) >= number

    eventually(f"{number} evaluations of all rules", attempt, seconds, pause=0.5)


def unwatched(prometheus: Prometheus) -> set[str]:
    """Alerts of which an expression selects what this Prometheus has never had."""
    return {
        rule.name
        for rule in alerts()
        for selector in _SELECTOR.findall(rule.expr)
        if selector.partition("{")[0] in metrics()
        and "clio_node_down_info" not in selector  # there only while a node is down
        and "scrape_timeout_seconds" not in selector  # has a stand-in
        and not prometheus.query(f"count_over_time({selector}[1h])")
    }
