"""Pools: which modules run where, how they are chained, and how far off their learned cost models are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import ClassVar

from clio_client import Container
from clio_client.config.runtime_conf import ComposedPool
from clio_exporter.collectors.base import Collector
from clio_exporter.exposition import Family, Kind, Samples, Scope, join_labels, label_text
from clio_exporter.labels import cluster_labels, node_labels
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Topic

_CONTAINER = "container_stats."
_POOL = ("pool_id", "pool_name")

INFO = Family(
    "clio_pool_info",
    Kind.INFO,
    "A pool with a container on the node: its module and the container's id; and, where the compose section "
    "has it, its routing and the next pool of its chain.",
    _CONTAINER + "chimod_name, .container_id; compose[]",
    (*_POOL, "module", "container_id", "pool_query", "next_pool_id"),
)
COST_ERROR = Family(
    "clio_pool_cost_error_ratio",
    Kind.GAUGE,
    "Error of the pool's learned CPU cost models as a ratio of the true cost: the median of its methods that "
    "have learned. Collector `cost` has each method.",
    "median of " + _CONTAINER + "methods[].mape",
    _POOL,
)
COMPOSED = Family(
    "clio_composed_pool_info",
    Kind.INFO,
    "A pool of the compose section of the runtime's configuration, whether it runs or not.",
    "compose[] of the runtime configuration",
    (*_POOL, "module", "pool_query", "next_pool_id"),
    Scope.CLUSTER,
)


class PoolCollector(Collector):
    """The pools of every node; their list is asked for once a minute unless configured otherwise."""

    topics = frozenset({Topic.CONTAINERS})
    families: ClassVar = (INFO, COMPOSED, COST_ERROR)
    reads_config = True

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """How far off the learned cost models of every pool are."""
        pools = node.pools
        samples.add_kept(node.kept, "cost", pools, (COST_ERROR,), lambda own: _costs(node, pools, own))

    def collect_cluster(self, cluster: ClusterSnapshot, samples: Samples) -> None:
        """The pools that run, and those that are composed: once a cluster, however many files there are."""
        composed = {
            pool.pool_id: pool for file in cluster.configs if file.config for pool in file.config.compose
        }
        for pool in composed.values():
            named = {"pool_id": pool.pool_id, "pool_name": pool.pool_name, "module": pool.mod_name}
            samples.add(
                COMPOSED,
                join_labels(cluster_labels(cluster.name), label_text({**named, **_routing(pool)})),
                1,
            )
        for node in cluster.nodes:
            pools = [(container, composed.get(container.pool_id or "")) for container in node.pools]
            samples.add_kept(node.kept, "pools", pools, (INFO,), partial(_infos, node, pools))


def _costs(node: NodeSnapshot, pools: Sequence[Container], samples: Samples) -> None:
    for container in pools:
        errors = [method.mape for method in container.methods if method.mape is not None]
        if errors:
            samples.add(COST_ERROR, container_labels(node, container), median(errors))


def _infos(
    node: NodeSnapshot, pools: Sequence[tuple[Container, ComposedPool | None]], samples: Samples
) -> None:
    for container, composed in pools:
        labels = join_labels(container_labels(node, container), _described(container, composed))
        samples.add(INFO, labels, 1)


def container_labels(node: NodeSnapshot, container: Container) -> str:
    """Labels of the node, and ``pool_id`` and ``pool_name`` of a pool with a container on it."""
    pool = {"pool_id": container.pool_id or "", "pool_name": container.pool_name or ""}
    return join_labels(node_labels(node.member), label_text(pool))


def _described(container: Container, composed: ComposedPool | None) -> str:
    number = "" if container.container_id is None else str(container.container_id)
    module = {"module": container.chimod_name or "", "container_id": number}
    return label_text({**module, **_routing(composed)})


def _routing(pool: ComposedPool | None) -> dict[str, str]:
    return {
        "pool_query": pool.pool_query if pool else "",
        "next_pool_id": (pool.next_pool_id or "") if pool else "",
    }
