"""A look at the services around the exporter, over HTTP: nothing is changed, every wait is bounded."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from clio_exporter.service_client import Answer, Service, text_labels

NOT_ASKED: Final = Answer()
_BUILD: Final = re.compile(rb'^clio_exporter_build_info\{[^}\n]*version="([^"\n]*)"', re.MULTILINE)
_NODE_UP: Final = re.compile(rb"^clio_node_up(?:\{[^\n]*\})? ([01])$", re.MULTILINE)
_QUERY: Final = "count by (job, instance) (clio_exporter_build_info or clio_node_up)"


@dataclass(frozen=True, slots=True)
class ExporterLook:
    """A running exporter.

    Attributes:
        version: as it says; "" where it does not.
        nodes, up: how many nodes its metrics have, and how many of them are up.
    """

    url: str
    metrics: Answer
    version: str = ""
    nodes: int = 0
    up: int = 0


@dataclass(frozen=True, slots=True)
class PrometheusLook:
    """A Prometheus: its targets, which of them have our metrics, rules and Alertmanagers."""

    url: str
    targets: Answer
    having: frozenset[tuple[str, str]] = frozenset()
    rules: Answer = NOT_ASKED
    alertmanagers: Answer = NOT_ASKED


@dataclass(frozen=True, slots=True)
class GrafanaLook:
    """A Grafana: its health, its data sources, and the health of each by its name."""

    url: str
    health: Answer
    sources: Answer = NOT_ASKED
    asked: Mapping[str, Answer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlLook:
    """A control API: what it says of the system."""

    url: str
    system: Answer


def look_at_exporter(service: Service) -> ExporterLook:
    """One scrape."""
    metrics = service.get("/metrics")
    build = _BUILD.search(metrics.body) if metrics.ok else None
    states = _NODE_UP.findall(metrics.body) if metrics.ok else []
    version = build[1].decode(errors="replace") if build else ""
    return ExporterLook(service.url, metrics, version, len(states), states.count(b"1"))


def look_at_prometheus(service: Service) -> PrometheusLook:
    """Targets, rules, Alertmanagers and one query."""
    targets = service.get("/api/v1/targets", state="active")
    if not targets.ok:
        return PrometheusLook(service.url, targets)
    found = [
        text_labels(r.get("metric")) for r in service.get("/api/v1/query", query=_QUERY).rows("result") or ()
    ]
    having = frozenset((labels.get("job", ""), labels.get("instance", "")) for labels in found)
    rules, alertmanagers = service.get("/api/v1/rules"), service.get("/api/v1/alertmanagers")
    return PrometheusLook(service.url, targets, having, rules, alertmanagers)


def look_at_grafana(service: Service) -> GrafanaLook:
    """Health, and that of every data source that this viewer may see."""
    health = service.get("/api/health")
    if not health.ok:
        return GrafanaLook(service.url, health)
    sources = service.get("/api/datasources")
    listed = sources.document if sources.ok else None
    asked = {
        str(source.get("name") or source["uid"]): service.get(
            f"/api/datasources/uid/{urllib.parse.quote(str(source['uid']), safe='', errors='replace')}/health"
        )
        for source in (listed if isinstance(listed, list) else ())
        if isinstance(source, dict) and source.get("uid")
    }
    return GrafanaLook(service.url, health, sources, asked)


def look_at_control_api(service: Service) -> ControlLook:
    """What it says of the system."""
    return ControlLook(service.url, service.get("/api/system"))
