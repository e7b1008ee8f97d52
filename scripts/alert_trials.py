"""What alerts did when they were put to the test: figures that tests leave, as text of the documents.

`make alert-tables` runs the tests that leave figures (`tests/alert_trials.py`) and writes the documents.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from clio_exporter.kit import rules

ROOT: Final = Path(__file__).parent.parent
FIGURES: Final = ROOT / "tests" / "integration" / "alert_trials.json"
RULE_TESTS: Final = ROOT / "prometheus" / "rules" / "tests"
_SECTION: Final = re.compile(r"^## (Clio\w+)\n(.*?)(?=^#{1,2} |\Z)", re.MULTILINE | re.DOTALL)
_TRIED: Final = re.compile(r"^\*\*Tried\.\*\* .*?\n(?:\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Trials:
    """Figures of all tests.

    Attributes:
        silent: by kind of cluster ("4 real nodes"): `phases`, seconds and alerts that fired by what the
            cluster went through; `unwatched`, alerts that nothing in it could have made fire.
        seen: by alert: the fault, seconds until it fired, what else fired and what of that is held back.
        fires, stays_silent: by alert, the file of promtool's tests in which it fires, and just does not.
    """

    silent: Mapping[str, Any]
    seen: Mapping[str, Any]
    fires: Mapping[str, str]
    stays_silent: Mapping[str, str]

    @classmethod
    def read(cls) -> Trials:
        """The figures of the repository."""
        figures = json.loads(FIGURES.read_text(encoding="utf-8"))
        return cls(figures["silent"], figures["seen"], simulated(fires=True), simulated(fires=False))

    def silent_table(self) -> str:
        """Kinds of clusters, what they went through, and what fired."""
        rows = [
            f"| {kind} | {phase} | {at['seconds']} | {_names(at['fired'], 'none')} |"
            for kind, trial in self.silent.items()
            for phase, at in trial["phases"].items()
        ]
        return _table("| on | while it goes through | seconds | alerts |", rows)

    def seen_table(self) -> str:
        """Every alert: how it was seen."""
        return _table("| alert | fault | seconds | besides |", map(self._seen, names()))

    def tried(self, alert: str) -> str:
        """What was done to see that an alert stays silent, in a paragraph."""
        silent = [
            f"on {kind} ({', '.join(trial['phases'])})"
            for kind, trial in self.silent.items()
            if alert not in trial["unwatched"]
        ]
        just = f"in simulated series just short of it (`prometheus/rules/tests/{self.stays_silent[alert]}`)"
        text = f"**Tried.** Silent {'; '.join((*silent, just))}. "
        if alert in self.seen:
            text += f"Fired at: {self.seen[alert]['fault']}. "
        text += "[Figures](alerting.md#put-to-the-test)."
        return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"

    def runbooks(self, markdown: str) -> str:
        """The runbooks with a paragraph of every alert's trial at its end."""

        def tried(match: re.Match[str]) -> str:
            rest = _TRIED.sub("", match[2]).strip("\n")
            return f"## {match[1]}\n\n{rest}\n\n{self.tried(match[1])}\n"

        return _SECTION.sub(tried, markdown).rstrip("\n") + "\n"

    def _seen(self, alert: str) -> str:
        if alert not in self.seen:
            return f"| {alert} | promtool: {self.fires[alert]} | | |"
        at = self.seen[alert]
        besides = [
            f"{name} ({'held back' if name in at['held_back'] else 'meant'})" for name in at["besides"]
        ]
        return f"| {alert} | {at['fault']} | {at['seconds']} | {_names(besides, 'nothing')} |"


def names() -> list[str]:
    """Every alert of the kit."""
    return [alert.name for alert in rules.alerts()]


def simulated(*, fires: bool) -> dict[str, str]:
    """By alert, the first file of promtool's tests with a case in which it fires, or does not."""
    found: dict[str, str] = {}
    for path in sorted(RULE_TESTS.glob("*.yml")):
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in test.get("alert_rule_test", ()):
                if bool(check.get("exp_alerts")) == fires:
                    found.setdefault(check["alertname"], path.name)
    return found


def _names(alerts: Iterable[str], none: str) -> str:
    return ", ".join(alerts) or none


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join((head, "|" + "---|" * (head.count("|") - 1), *rows)) + "\n"
