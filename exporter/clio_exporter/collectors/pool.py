"""Pools: which modules run where, how they are chained, and what their cost models have learned."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from clio_client import Container, MethodModel
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
LEARNING_RATE = Family(
    "clio_pool_learning_rate",
    Kind.GAUGE,
    "Learning rate of the pool's cost models.",
    _CONTAINER + "learning_rate",
    _POOL,
)
COEFFICIENT = Family(
    "clio_method_cost_coefficient",
    Kind.GAUGE,
    "Learned cost of the method, microseconds a unit of work, by CPU or wall clock, once it has learned.",
    _CONTAINER + "methods[].coefficient, .wall_coefficient",
    (*_POOL, "method", "model"),
)
ERROR = Family(
    "clio_method_cost_error_ratio",
    Kind.GAUGE,
    "Mean absolute error of the method's cost model as a ratio of the true cost, once it has learned.",
    _CONTAINER + "methods[].mape, .wall_mape",
    (*_POOL, "method", "model"),
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
    families: ClassVar = (INFO, COMPOSED, LEARNING_RATE, COEFFICIENT, ERROR)
    reads_config = True

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """Learning rate and learned cost models of every pool."""
        for container in node.pools:
            labels = _labels(node, container)
            samples.add(LEARNING_RATE, labels, container.learning_rate)
            names = Counter(method.name for method in container.methods)
            for method in container.methods:
                name = _method_name(method, names)
                _models(method, join_labels(labels, label_text({"method": name})), samples)

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
            for container in node.pools:
                described = _described(container, composed.get(container.pool_id or ""))
                samples.add(INFO, join_labels(_labels(node, container), described), 1)


def _labels(node: NodeSnapshot, container: Container) -> str:
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


def _method_name(method: MethodModel, names: Counter[str | None]) -> str:
    """The method's name; its number where it has none, and both where the name is not its own."""
    if not method.name:
        return str(method.id)
    return method.name if names[method.name] == 1 else f"{method.name}#{method.id}"


def _models(method: MethodModel, labels: str, samples: Samples) -> None:
    for model, coefficient, error in (
        ("cpu", method.coefficient, method.mape),
        ("wall", method.wall_coefficient, method.wall_mape),
    ):
        described = join_labels(labels, label_text({"model": model}))
        samples.add(COEFFICIENT, described, coefficient)
        samples.add(ERROR, described, error)
