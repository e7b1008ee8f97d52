"""What a table of rules consists of.

Texts may name what depends on the options: ``[[NAME]]`` in expressions and in sentences, where NAME is a
threshold (``[[NAME|words]]`` as it is spoken), the name of a scrape job (``[[exporter_job]]``), or the labels
that tell a node (``[[node]]``) or a cluster (``[[cluster]]``) from others; ``[[1h|seconds]]`` is the length
of a window. In annotations also ``[[where]]`` (the node of the alert), ``[[the_cluster]]`` and
``[[The_cluster]]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["critical", "warning", "info"]
Scope = Literal["node", "cluster", "exporter", "control"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded series.

    Attributes:
        record: its name, ``level:metric:operation``.
        what: what it tells, for docs/recorded-series.md; rules of one name have it once.
        labels: labels that the rule adds.
        comment: why the expression is as it is.
    """

    record: str
    expr: str
    what: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert; its runbook is the heading of its name in docs/runbooks.md.

    Attributes:
        scope: what it is about; decides which labels lead to the dashboard, and what holds it back.
        wait: how long the expression has to hold; "" where it looks back over a window by itself.
        dashboard: uid of the dashboard that shows most of it.
        when: when it fires, for the table in docs/alerting.md.
        comment: why the expression is as it is.
    """

    name: str
    severity: Severity
    scope: Scope
    expr: str
    summary: str
    description: str
    dashboard: str
    when: str
    wait: str = ""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are evaluated one after the other.

    Attributes:
        interval: how often; "" as Prometheus is configured.
    """

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = ""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class RuleFile:
    """One file of rules.

    Attributes:
        about: what is said at its beginning, line by line.
    """

    name: str
    about: str
    groups: tuple[Group, ...]
