"""Learned cost models: what the scheduler expects of each method of each pool. Off unless switched on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from clio_client import Container, MethodModel
from clio_exporter.collectors.base import Collector
from clio_exporter.collectors.pool import container_labels
from clio_exporter.exposition import Family, Kind, Samples, join_labels, label_text
from clio_exporter.snapshot import NodeSnapshot, Topic

_CONTAINER = "container_stats."
_POOL = ("pool_id", "pool_name")

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


class CostCollector(Collector):
    """The cost models of every method: as many series as all other collectors of a node have together."""

    topics = frozenset({Topic.CONTAINERS})
    families: ClassVar = (LEARNING_RATE, COEFFICIENT, ERROR)
    on_by_default = False

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """Learning rate of every pool, and the models of its methods that have learned."""
        pools = node.pools
        samples.add_kept(node.kept, "models", pools, self.families, lambda own: _pools(node, pools, own))


def _pools(node: NodeSnapshot, pools: Sequence[Container], samples: Samples) -> None:
    for container in pools:
        labels = container_labels(node, container)
        samples.add(LEARNING_RATE, labels, container.learning_rate)
        names = Counter(method.name for method in container.methods)
        for method in container.methods:
            name = _method_name(method, names)
            _models(method, join_labels(labels, label_text({"method": name})), samples)


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
