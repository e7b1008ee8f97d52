"""The tables of docs/alerting.md and docs/recorded-series.md."""

from __future__ import annotations

from clio_exporter.kit.rules.options import Options
from clio_exporter.kit.rules.render import alerts, expand, recordings
from clio_exporter.kit.rules.thresholds import THRESHOLDS, promql, words

_DEFAULTS = Options()


def alerts_table() -> str:
    """Every alert: severity, condition, how long."""
    rows = [
        f"| [{alert.name}](runbooks.md#{alert.name.lower()}) | {alert.severity} "
        f"| {expand(alert.when, _DEFAULTS)} | {alert.wait or 'at once'} |"
        for alert in alerts()
    ]
    return _table("| alert | severity | fires when | for |", rows)


def series_table() -> str:
    """Every recorded series, once."""
    rows = [f"| `{rule.record}` | {rule.what} |" for rule in recordings() if rule.what]
    return _table("| series | what |", rows)


def thresholds_table() -> str:
    """Every threshold that can be set."""
    rows = []
    for threshold in THRESHOLDS.values():
        value, spoken = promql(threshold, threshold.value), words(threshold, threshold.value)
        both = value if spoken == value else f"{value} ({spoken})"
        rows.append(f"| `{threshold.name}` | {both} | {threshold.meaning} |")
    return _table("| threshold | value | what is beyond it |", rows)


def _table(head: str, rows: list[str]) -> str:
    rule = "|" + "---|" * (head.count("|") - 1)
    return "\n".join((head, rule, *rows)) + "\n"
