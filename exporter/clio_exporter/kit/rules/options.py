"""What can be said when rules are made."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clio_exporter.kit.rules.thresholds import THRESHOLDS

_JOB = re.compile(r"[\w./-]+")
_LABEL = re.compile(r"[a-zA-Z_]\w*")
_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Names, addresses and limits of a place; ValueError names the one that cannot be.

    Attributes:
        exporter_job, nodes_job, control_job, shards_job: scrape jobs of Prometheus: /metrics of exporters,
            /probe of single nodes, the control API, other servers that are federated.
        grafana_url, docs_url: what links in alerts begin with; "" for the external label of that name.
        cluster_labels: labels that together tell a cluster from others, ``cluster`` among them: more than it
            where Prometheus adds some (``site``) and clusters of one name are at several.
        thresholds: by name (`THRESHOLDS`), what differs from the default.
        waits: by alert, how long its condition has to hold, as a Prometheus duration.
        without: alerts that are left out.
        faster: what every wait, window and interval is divided by (never under a second), for trials.
    """

    exporter_job: str = "clio-exporter"
    nodes_job: str = "clio-nodes"
    control_job: str = "clio-control-api"
    shards_job: str = "clio-shards"
    grafana_url: str = ""
    docs_url: str = ""
    cluster_labels: tuple[str, ...] = ("cluster",)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    faster: float = 1.0

    def __post_init__(self) -> None:
        for name in ("exporter_job", "nodes_job", "control_job", "shards_job"):
            if not _JOB.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is no job name of letters, digits and _ . / -"
                )
        for name in ("grafana_url", "docs_url"):
            if re.search(r"[\s{}\"']", getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r} is no address")
        for label in self.cluster_labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"cluster_labels: {label!r} is no label name")
        if "cluster" not in self.cluster_labels:
            raise ValueError("cluster_labels: the exporter's own label, cluster, must be among them")
        for name, value in self.thresholds.items():
            if name not in THRESHOLDS:
                raise ValueError(f"thresholds: there is no {name}; there are {', '.join(THRESHOLDS)}")
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"thresholds: {name}: {value} is no number from 0 on")
        for name, wait in self.waits.items():
            if not _DURATION.fullmatch(wait):
                raise ValueError(f"waits: {name}: {wait!r} is no duration such as 90s or 5m")
        if not (math.isfinite(self.faster) and self.faster > 0):
            raise ValueError(f"faster: {self.faster} is no number above 0")
