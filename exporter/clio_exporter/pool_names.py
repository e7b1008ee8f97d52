"""Which pools and devices are told of, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clio_exporter.settings import CollectorSettings
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot


@dataclass(frozen=True, slots=True)
class Names:
    """Names that match `include`, if it is given, and do not match `exclude`. Both are matched as a whole."""

    include: re.Pattern[str] | None = None
    exclude: re.Pattern[str] | None = None

    def has(self, name: str) -> bool:
        """Whether `name` is one of them."""
        if self.include is not None and not self.include.fullmatch(name):
            return False
        return self.exclude is None or not self.exclude.fullmatch(name)

    @property
    def all(self) -> bool:
        """Whether every name is one of them."""
        return self.include is None and self.exclude is None


def only_chosen(
    clusters: Sequence[ClusterSnapshot], settings: CollectorSettings
) -> tuple[ClusterSnapshot, ...]:
    """What was learned, without the pools and devices that the settings leave out."""
    devices = Names(settings.bdev_include, settings.bdev_exclude)
    pools = Names(settings.pool_include, settings.pool_exclude)
    if devices.all and pools.all:
        return tuple(clusters)
    return tuple(
        replace(cluster, nodes=tuple(_only(node, devices, pools) for node in cluster.nodes))
        for cluster in clusters
    )


def _only(node: NodeSnapshot, devices: Names, pools: Names) -> NodeSnapshot:
    return replace(
        node,
        containers=tuple(each for each in node.containers if pools.has(each.pool_name or "")),
        modules=tuple(each for each in node.modules if pools.has(each.name)),
        bdevs=tuple(each for each in node.bdevs if devices.has(each.name)),
    )
