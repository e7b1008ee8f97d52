"""Series of Prometheus's recording rules that the dashboards use, with their labels; a test compares."""

from __future__ import annotations

from typing import Final

_NODE: Final = ("cluster", "node_id", "hostname")
_BDEV: Final = (*_NODE, "pool_id", "pool_name")

RECORDED: Final[dict[str, tuple[str, ...]]] = {
    "node:clio_node_up:max": _NODE,
    "node:clio_health:score": _NODE,
    "node:clio_health_component:ratio": (*_NODE, "component"),
    "node:clio_worker_busy:ratio5m": _NODE,
    "worker:clio_worker_stuck:bool10m": (*_NODE, "worker_id"),
    "bdev:clio_bdev_used:ratio": _BDEV,
    "bdev:clio_bdev_full_seconds:forecast1h": _BDEV,
    "bdev:clio_bdev_fill_steadiness:ratio1h": _BDEV,
    "safe_bdev:clio_safe_bdev_unavailable_members:count": _BDEV,
    "cluster:clio_health:score": ("cluster",),
    "cluster:clio_node_up:sum": ("cluster",),
    "cluster:clio_nodes:count": ("cluster",),
    "cluster:clio_node_up:avg1h": ("cluster",),
    "cluster:clio_node_up:avg1d": ("cluster",),
    "cluster:clio_node_up:avg30d": ("cluster",),
    "cluster:clio_worker_tasks_processed:rate5m": ("cluster",),
    "cluster:clio_worker_queued_tasks:sum": ("cluster",),
    "cluster:clio_worker_blocked_tasks:sum": ("cluster",),
    "cluster:clio_node_memory_used:ratio": ("cluster",),
    "cluster:clio_bdev_used:ratio": ("cluster",),
}
