"""Pools: which modules run where, how they are chained, and how far off their learned cost models are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import ClassVar

from clio_client import Container
from clio_client.config.runtime_files import ConfigFile
from clio_client.membership import Member
from clio_exporter.collectors.base import Collector
from clio_exporter.exposition import Family, Kind, Samples, Scope, join_labels, label_text
from clio_exporter.labels import cluster_labels, node_labels
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Topic

_CONTAINER = "container_stats."
_POOL = ("pool_id", "pool_name")

_Routing = tuple[str, str]
"""``pool_query`` and ``next_pool_id`` of a composed pool, "" where its file does not say."""
_NO_ROUTING: _Routing = ("", "")

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
    "A pool of the compose section of the runtime's configuration, whether it runs or not; without a name "
    "where each node's file gives it one of its own.",
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
        composed = _Composed(cluster.configs)
        for labels in composed.series():
            samples.add(COMPOSED, join_labels(cluster_labels(cluster.name), label_text(labels)), 1)
        for node in cluster.nodes:
            pools = [(container, composed.routing(node, container)) for container in node.pools]
            samples.add_kept(node.kept, "pools", pools, (INFO,), partial(_infos, node, pools))


class _Composed:
    """The compose sections of a cluster's files: one for all nodes, or one of each node's own."""

    def __init__(self, files: Iterable[ConfigFile]) -> None:
        self._own: dict[Member | None, dict[str, _Routing]] = {}
        self._names: dict[tuple[str, str, _Routing], set[str]] = {}
        self._everywhere: dict[str, set[_Routing]] = {}
        for file in files:
            own = self._own.setdefault(file.member, {})
            for pool in file.config.compose if file.config else ():
                own[pool.pool_id] = routing = (pool.pool_query, pool.next_pool_id or "")
                self._names.setdefault((pool.pool_id, pool.mod_name, routing), set()).add(pool.pool_name)
                self._everywhere.setdefault(pool.pool_id, set()).add(routing)

    def series(self) -> Iterator[dict[str, str]]:
        """Labels of every pool once; without a name where files give it different ones.

        A file device is often named by a path of the node's own: a series a name would be one a node.
        """
        for (pool_id, module, routing), names in self._names.items():
            name = next(iter(names)) if len(names) == 1 else ""
            yield {"pool_id": pool_id, "pool_name": name, "module": module, **_routed(routing)}

    def routing(self, node: NodeSnapshot, container: Container) -> _Routing:
        """What the node's own file says of the pool; else what all files say that have it, if it is the same.

        By id, not by name: a pool can be composed in one file for all nodes.
        """
        pool_id = container.pool_id or ""
        own = self._own.get(node.member, {}).get(pool_id)
        if own is not None:
            return own
        said = self._everywhere.get(pool_id, set())
        return next(iter(said)) if len(said) == 1 else _NO_ROUTING


def _costs(node: NodeSnapshot, pools: Sequence[Container], samples: Samples) -> None:
    for container in pools:
        errors = [method.mape for method in container.methods if method.mape is not None]
        if errors:
            samples.add(COST_ERROR, container_labels(node, container), median(errors))


def _infos(node: NodeSnapshot, pools: Sequence[tuple[Container, _Routing]], samples: Samples) -> None:
    for container, routing in pools:
        labels = join_labels(container_labels(node, container), _described(container, routing))
        samples.add(INFO, labels, 1)


def container_labels(node: NodeSnapshot, container: Container) -> str:
    """Labels of the node, and ``pool_id`` and ``pool_name`` of a pool with a container on it."""
    pool = {"pool_id": container.pool_id or "", "pool_name": container.pool_name or ""}
    return join_labels(node_labels(node.member), label_text(pool))


def _described(container: Container, routing: _Routing) -> str:
    number = "" if container.container_id is None else str(container.container_id)
    return label_text({"module": container.chimod_name or "", "container_id": number, **_routed(routing)})


def _routed(routing: _Routing) -> dict[str, str]:
    pool_query, next_pool_id = routing
    return {"pool_query": pool_query, "next_pool_id": next_pool_id}
