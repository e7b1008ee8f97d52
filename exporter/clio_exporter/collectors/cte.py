"""The context transfer engine, and every other module that reports statistics."""

from __future__ import annotations

from typing import ClassVar

from clio_client import CteStats, ModuleStats
from clio_exporter.collectors.base import Collector, FieldMap, FieldTable
from clio_exporter.collectors.bdev import labels_of
from clio_exporter.exposition import Family, Kind, Samples, join_labels, label_text
from clio_exporter.snapshot import NodeSnapshot, Topic

_POOL = ("pool_id", "pool_name")


def _family(name: str, text: str, field: str) -> Family:
    return Family(f"clio_cte_{name}", Kind.GAUGE, text, f"cte_core stats.{field}", _POOL)


_FIELDS = FieldTable(
    FieldMap("num_targets", _family("targets", "Storage targets registered with the engine.", "num_targets")),
    FieldMap(
        "num_tags", _family("tags", "Tags (buckets of blobs) whose metadata the node holds.", "num_tags")
    ),
    FieldMap("num_blobs", _family("blobs", "Blobs whose metadata the node holds.", "num_blobs")),
)

STAT = Family(
    "clio_module_stat",
    Kind.GAUGE,
    "A number reported by a module this exporter has no families for, by the module's own name for it.",
    "stats of any other module",
    ("pool_id", "pool_name", "module", "stat"),
)


class CteCollector(Collector):
    """What modules other than block devices report of themselves."""

    topics = frozenset({Topic.MODULES})
    families: ClassVar = (*_FIELDS.families, STAT)

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """One set of samples a pool that reports statistics."""
        for pool, labels in zip(node.modules, labels_of("modules", node, node.modules), strict=True):
            if isinstance(pool.stats, CteStats):
                _FIELDS.add([pool.stats], [labels], samples)
            elif isinstance(pool.stats, ModuleStats):
                for stat, value in pool.stats.values.items():
                    described = label_text({"module": pool.container.chimod_name or "", "stat": stat})
                    samples.add(STAT, join_labels(labels, described), value)
