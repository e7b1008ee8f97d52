"""All rules, file by file, in the order in which they are written."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import RuleFile
from clio_exporter.kit.rules.tables import (
    alerts_clusters,
    alerts_memory,
    alerts_monitoring,
    alerts_nodes,
    alerts_storage,
    alerts_work,
    series_clusters,
    series_health,
    series_nodes,
    series_storage,
)

FILES: Final = (
    RuleFile(
        name="recording.yml",
        about="""
Series of nodes, and of what is in them, that dashboards and alerts share; those of clusters are made from them in
recording-cluster.yml, so that several Prometheus servers can each have a part of the nodes (examples/). Names are
level:metric:operation, where the level says the labels:

  worker     cluster, node_id, hostname, worker_id
  bdev       cluster, node_id, hostname, pool_id, pool_name
  safe_bdev  the same
  node       cluster, node_id, hostname
  node_tier  cluster, node_id, hostname, type (kind of block device)
  tier       cluster, type
  cluster    cluster

A cluster without a name has no `cluster` label; every rule works with and without it.
Where several exporters see a node, or /metrics and /probe both have it, every figure is the highest of theirs: `max by`
comes before any sum or count.
What a runtime does not report has no series here either. Documented in docs/recorded-series.md.
""",
        groups=(
            series_nodes.WORKERS,
            series_nodes.MEMORY,
            series_storage.STORAGE,
            series_health.HEALTH,
            series_health.AVAILABILITY,
            series_storage.FORECAST,
            series_storage.LATENCY,
        ),
    ),
    RuleFile(
        name="recording-cluster.yml",
        about="""
Series of clusters and tiers, made from those of nodes (recording.yml) alone: where nodes are spread over several
Prometheus servers, these rules belong on the one that has all of them (examples/prometheus-global.yml).
""",
        groups=series_clusters.GROUPS,
    ),
    RuleFile(
        name="alerts.yml",
        about="""
Alerts. Each has a heading of its name in docs/runbooks.md, and in tests/ a case that fires and one that just does not.
Thresholds and how to change them: docs/alerting.md.

severity  critical: somebody has to act now; warning: today; info: worth knowing
scope     node, cluster, exporter or control: what the alert is about; alertmanager.yml holds back by it

The links need two external labels of Prometheus, grafana_url and docs_url (prometheus.yml), unless the rules were
made with these addresses. Without either they are paths on whatever host shows the alert.
""",
        groups=(
            *alerts_nodes.GROUPS,
            *alerts_work.GROUPS,
            *alerts_memory.GROUPS,
            *alerts_storage.GROUPS,
            *alerts_monitoring.GROUPS,
        ),
    ),
    RuleFile(
        name="alerts-cluster.yml",
        about="""
Alerts about whole clusters, from the series of recording-cluster.yml; they belong where those are. See alerts.yml.
""",
        groups=alerts_clusters.GROUPS,
    ),
)
