"""The clusters of the settings: who is in them, and what their nodes are configured to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clio_client.config.runtime_files import RuntimeConfigFiles
from clio_client.config.settings import Settings
from clio_client.membership import ClusterMembership, Member
from clio_client.transport.interface import Transport


@dataclass(frozen=True, slots=True, eq=False)
class ConfiguredCluster:
    """One cluster of the settings: who is in it, what its nodes are configured to do."""

    membership: ClusterMembership
    configs: RuntimeConfigFiles

    @property
    def name(self) -> str:
        """The cluster's name; empty when it has none."""
        return self.membership.name


def configured_clusters(
    settings: Settings, env: Mapping[str, str], home: Path
) -> tuple[ConfiguredCluster, ...]:
    """The clusters of the settings, in order.

    Raises:
        ConfigError: a cluster's source of members cannot be used.
    """
    return tuple(
        ConfiguredCluster(
            ClusterMembership(cluster, settings.runtime, env, home), RuntimeConfigFiles(cluster, env, home)
        )
        for cluster in settings.clusters
    )


async def refresh_members(
    clusters: Sequence[ConfiguredCluster], transport: Transport, deadline: float
) -> list[tuple[Member, ...]]:
    """The members of each cluster, brought up to date as far as ``deadline`` allows."""
    return await asyncio.gather(*(c.membership.refresh(transport, deadline) for c in clusters))
