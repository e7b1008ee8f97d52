"""From the tables to the text of Prometheus's rule files. Pure functions."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml

from clio_exporter.kit.rules.model import Alert, Group, Recording, RuleFile
from clio_exporter.kit.rules.options import Options
from clio_exporter.kit.rules.tables import FILES
from clio_exporter.kit.rules.thresholds import THRESHOLDS, promql, words

MADE: Final = "Made by `make rules` from exporter/clio_exporter/kit/rules: change it there."
_WIDTH: Final = 120
_PLACEHOLDER: Final = re.compile(r"\[\[(\w+)(?:\|(\w+))?\]\]")
_WINDOW: Final = re.compile(r"(\[|\boffset |:)(\d+)(ms|[smhd])(?=[\]:\s)])")
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}

_OF_CLUSTER: Final = "{{ with $labels.cluster }} of {{ . }}{{ end }}"
_IN_ANNOTATIONS: Final = {
    "where": "{{ $labels.hostname }} (node {{ $labels.node_id }}" + _OF_CLUSTER + ")",
    "the_cluster": "{{ with $labels.cluster }}cluster {{ . }}{{ else }}the cluster{{ end }}",
    "The_cluster": "{{ with $labels.cluster }}Cluster {{ . }}{{ else }}The cluster{{ end }}",
}
_DASHBOARD_OF: Final = {
    "node": "?var-cluster={{ $labels.cluster | urlquery }}&var-node={{ $labels.node_id | urlquery }}",
    "cluster": "?var-cluster={{ $labels.cluster | urlquery }}",
    "exporter": "",
    "control": "",
}


def render(options: Options | None = None, made: str = MADE) -> dict[str, str]:
    """Every rule file by name, as text; `made` is its first line, and says by what.

    Raises ValueError when the options name alerts that are not there.
    """
    options = options or Options()
    known = {alert.name for alert in alerts()}
    if unknown := (set(options.waits) | options.without) - known:
        raise ValueError(f"there is no alert {', '.join(sorted(unknown))}")
    return {file.name: _file(file, options, made) for file in FILES}


def alerts() -> Iterator[Alert]:
    """Every alert, in the order of the files."""
    return (rule for rule in _rules() if isinstance(rule, Alert))


def recordings() -> Iterator[Recording]:
    """Every recording rule, in the order of the files."""
    return (rule for rule in _rules() if isinstance(rule, Recording))


def expand(text: str, options: Options) -> str:
    """A text of the tables with its placeholders replaced; KeyError names one that nobody knows."""

    def value(match: re.Match[str]) -> str:
        name, form = match.groups()
        if form == "seconds":
            return f"{_seconds(_faster(name, options)):g}"
        if name in THRESHOLDS:
            threshold = THRESHOLDS[name]
            write = words if form == "words" else promql
            return write(threshold, options.thresholds.get(name, threshold.value))
        return _names(options)[name]

    return _PLACEHOLDER.sub(value, text)


def wait(alert: Alert, options: Options) -> str:
    """How long the alert's expression has to hold; "" for not at all."""
    return options.waits.get(alert.name, alert.wait)


def _names(options: Options) -> Mapping[str, str]:
    cluster = ", ".join(options.cluster_labels)
    return {
        "cluster": cluster,
        "node": f"{cluster}, node_id, hostname",
        "exporter_job": options.exporter_job,
        "nodes_job": options.nodes_job,
        "control_job": options.control_job,
        "shards_job": options.shards_job,
        **_IN_ANNOTATIONS,
    }


def _rules() -> Iterator[Recording | Alert]:
    return (rule for file in FILES for group in file.groups for rule in group.rules)


def _file(file: RuleFile, options: Options, made: str) -> str:
    head = f"{made}\n\n{file.about.strip()}"
    groups = "\n".join(_group(group, options) for group in file.groups)
    return f"{_comment(head)}groups:\n{groups}"


def _group(group: Group, options: Options) -> str:
    head: dict[str, Any] = {"name": group.name}
    if group.interval:
        head["interval"] = _faster(group.interval, options)
    rules = [
        _comment(_fill(rule.comment, 6)) + _yaml([_rule(rule, options)])
        for rule in group.rules
        if not (isinstance(rule, Alert) and rule.name in options.without)
    ]
    if not rules:
        head["rules"] = []
    text = _yaml([head])
    if rules:
        text += "  rules:\n" + "\n".join(textwrap.indent(rule, "    ") for rule in rules)
    return textwrap.indent(_comment(_fill(group.comment, 2)) + text, "  ")


def _rule(rule: Recording | Alert, options: Options) -> dict[str, Any]:
    expr = _windows(expand(_block(rule.expr), options), options)
    if isinstance(rule, Recording):
        labels = {"labels": dict(rule.labels)} if rule.labels else {}
        return {"record": rule.record, **labels, "expr": expr}
    held = wait(rule, options)
    return {
        "alert": rule.name,
        "expr": expr,
        **({"for": _faster(held, options)} if held else {}),
        "labels": {"severity": rule.severity, "scope": rule.scope},
        "annotations": {
            "summary": expand(rule.summary, options),
            "description": expand(rule.description, options),
            "runbook_url": f"{_base('docs_url', options.docs_url)}/runbooks.md#{rule.name.lower()}",
            "dashboard_url": _base("grafana_url", options.grafana_url)
            + f"/d/{rule.dashboard}{_DASHBOARD_OF[rule.scope]}",
        },
    }


def _base(label: str, address: str) -> str:
    return address.rstrip("/") or f"{{{{ $externalLabels.{label} }}}}"


def _block(text: str) -> str:
    """An expression as it is written in the file; one of several lines ends with a newline."""
    lines = textwrap.dedent(text).strip("\n").rstrip()
    return f"{lines}\n" if "\n" in lines else lines


def _faster(duration: str, options: Options) -> str:
    if options.faster == 1:
        return duration
    return f"{max(1000, round(1000 * _seconds(duration) / options.faster))}ms"


def _seconds(duration: str) -> float:
    return sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def _windows(expr: str, options: Options) -> str:
    return _WINDOW.sub(lambda match: match[1] + _faster(match[2] + match[3], options), expr)


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def _fill(text: str, indent: int) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH - indent - 2)


class _Dumper(yaml.SafeDumper):
    """Writes lists as people do, and what has several lines as a block."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _text)


def _yaml(document: Any) -> str:
    dump: Callable[..., str] = yaml.dump
    return dump(document, Dumper=_Dumper, sort_keys=False, width=math.inf, allow_unicode=True)
