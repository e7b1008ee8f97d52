"""Puts the alerts of the kit to the test on a fast clock, and keeps the figures (`make alert-tables`)."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from clio_exporter.kit.rules import THRESHOLDS, Options, render
from clio_exporter.kit.rules import alerts as table
from scripts.alert_trials import FIGURES
from tests.exporter_process import ExporterProcess, eventually
from tests.prometheus import Prometheus
from tests.unit.prometheus.rulefiles import alerts, held_back_by, metrics

FIRING = 'ALERTS{alertstate="firing"}'
FASTER = 20
"""What windows and waits are divided by."""
PATIENCE = 3
"""Minutes of the rules' clock that a fault is waited for."""
FORECASTS = ("ClioBdevFillsWithin4Hours", "ClioBdevFillsWithin3Days")
"""Alerts that tell a burst from a fill by their wait, and are never hurried."""
IN_REAL_TIME = (
    "ClioNodeDown",
    "ClioNodeHung",
    "ClioClusterNoLeader",
    "ClioExporterDown",
    "ClioExporterScrapeSlow",
)
"""Alerts about what is down or late; a process takes its own time to be there again."""
_SELECTOR = re.compile(r"[a-z_]+[a-z0-9_:]*(?:\{[^}]*\})?")


class Figures:
    """A file of figures in a test's own directory; with CLIO_WRITE_TABLES=1 those of the repository."""

    def __init__(self, directory: Path) -> None:
        self.path = FIGURES if os.environ.get("CLIO_WRITE_TABLES") == "1" else directory / FIGURES.name

    def silent(self, kind: str, phases: dict[str, Any], unwatched: Collection[str]) -> None:
        """A kind of cluster, what it went through, and the alerts that it has nothing for."""
        self._put("silent", kind, {"phases": phases, "unwatched": sorted(unwatched)})

    def seen(
        self,
        alert: str,
        fault: str,
        seconds: float,
        fired: Collection[str],
        with_it: frozenset[str] = frozenset(),
    ) -> set[str]:
        """A fault, and what it made fire; returns what should not have, held back by nothing.

        `with_it` are alerts that are meant to fire beside the fault's own.
        """
        besides = set(fired) - {alert}
        held_back = besides & held_back_by(alert)
        print(f"{alert} | {fault} | {seconds:.0f} s | {besides or 'nothing'}", flush=True)
        if besides <= held_back | with_it:
            at = {"fault": fault, "seconds": round(seconds), "besides": sorted(besides)}
            self._put("seen", alert, {**at, "held_back": sorted(held_back)})
        return besides - held_back - with_it

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


def minutes_of_waits() -> dict[str, int]:
    """How long the alerts of the kit wait; all whole minutes or an hour."""
    units = {"m": 1, "h": 60}
    return {alert.name: int(alert.wait[:-1]) * units[alert.wait[-1]] for alert in table() if alert.wait}


def in_real_time(*also: str) -> dict[str, str]:
    """Waits of a healthy cluster: `IN_REAL_TIME` keep theirs, and those in ``also``."""
    kept = {*IN_REAL_TIME, *also}
    return {name: f"{FASTER * minutes}m" for name, minutes in minutes_of_waits().items() if name in kept}


def impatient(*, but: Collection[str] = ()) -> dict[str, str]:
    """Waits of at most `PATIENCE`; the alerts in `but` wait as long as they do in real time.

    So do two that follow from many faults: a scrape with a node that hangs lasts as long as the node is
    given, and a runtime that was stopped takes its own time to the next sample.
    """
    real = {"ClioExporterScrapeSlow", "ClioNodeStatisticsStale", *but}
    return {
        name: f"{FASTER * minutes if name in real else min(minutes, PATIENCE)}m"
        for name, minutes in minutes_of_waits().items()
        if name not in FORECASTS
    }


def options(waits: Mapping[str, str], scrape_timeout: float, faster: int = FASTER) -> Options:
    """The kit's rules on the fast clock, on which what lasts four hours lasts twelve minutes."""
    forecasts = {name: THRESHOLDS[name].value / faster for name in ("forecast_soon", "forecast_later")}
    return Options(faster=faster, waits=waits, thresholds={**forecasts, "scrape_timeout": scrape_timeout})


def write_rules(directory: Path, options: Options) -> list[str]:
    """The kit's rules with these options; paths of the files."""
    files = []
    for name, text in render(options).items():
        (directory / name).write_text(text)
        files.append(str(directory / name))
    return files


def fired(prometheus: Prometheus, since: float | None = None, of: str = "") -> set[str]:
    """Names of the alerts that fired at any time, or since a time (time.time()); `of` are more matchers."""
    window = "1h" if since is None else f"{max(1, int(1000 * (time.time() - since)))}ms"
    firing = f"{FIRING[:-1]}, {of}}}" if of else FIRING
    return {sample.labels["alertname"] for sample in prometheus.query(f"max_over_time({firing}[{window}])")}


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


class Watch:
    """An exporter and a Prometheus with the kit's rules, each of which can be ended and started again.

    A subclass sets `nodes`, `seconds` (how long is waited for anything) and what its `_config` needs, then
    calls `_begin`.

    Attributes:
        exporter, prometheus: those that run now.
    """

    nodes: int
    seconds: float
    exporter: ExporterProcess
    prometheus: Prometheus

    def _begin(
        self,
        running: ExitStack,
        directory: Path,
        flags: Sequence[str],
        waits: dict[str, str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Start both; with `tls` the exporter's flags name a web configuration that this context trusts."""
        self._running = running
        self.directory = directory
        self._flags = tuple(flags)
        self._waits = waits
        self._tls = tls
        self._jobs: dict[str, dict[str, Any]] = {}
        self.exporter = running.enter_context(ExporterProcess(directory, *self._flags, tls=tls))
        self.prometheus = self._prometheus()

    def scrape_also(self, job: str, targets: list[str]) -> None:
        """Let Prometheus scrape these targets too; without any, the job itself stays.

        Prometheus forgets the targets of a job that is gone only after five minutes.
        """
        self._jobs[job] = {"job_name": job, "static_configs": [{"targets": targets}] if targets else []}
        self.prometheus.reload(self._config())

    def restart_prometheus(self) -> None:
        self.prometheus.stop()
        self.prometheus = self._prometheus()

    def restart_exporter(self) -> None:
        self.exporter.stop()
        self.exporter = self._running.enter_context(
            ExporterProcess(self.directory, *self._flags, tls=self._tls)
        )
        self.prometheus.reload(self._config())
        self.prometheus.wait_for(f'up{{instance="{self.exporter.address}"}} == 1', seconds=self.seconds)

    def look(self, scrapes: int) -> None:
        """Wait until this Prometheus has scraped so many times, and evaluated all rules."""
        self.prometheus.wait_for_scrapes(scrapes, 'up{job="clio-exporter"}', self.seconds)
        wait_for_evaluations(self.prometheus, 1, self.seconds)

    def wait_ready(self) -> None:
        self.prometheus.wait_for(f"sum(clio_node_up) == {self.nodes}", seconds=self.seconds)

    def fires(self, alert: str) -> None:
        self.prometheus.wait_for(f'{FIRING[:-1]}, alertname="{alert}"}}', seconds=self.seconds)

    def rules(self, waits: dict[str, str]) -> None:
        """Put rules with these waits in force; those of the others are divided as the clock is."""
        self._waits = waits
        self.prometheus.reload(self._config())

    def _prometheus(self) -> Prometheus:
        return self._running.enter_context(Prometheus(self.directory, self._config()))

    def _job(self) -> dict[str, Any]:
        return {"job_name": "clio-exporter", "static_configs": [{"targets": [self.exporter.address]}]}

    def _config(self) -> dict[str, Any]:
        raise NotImplementedError
