"""Which clusters and nodes there are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control_api.errors import BadRequest, NotFound
from control_api.reader import NodeReader
from exporter.config.membership_source import DiscoveredNodes
from exporter.config.settings import Settings as ExporterSettings
from exporter.config_files import ConfigFiles
from exporter.membership import ClusterMembership, Member
from exporter.runtime.transport import Transport
from exporter.snapshot import ConfigFile

_REFRESH_S: Final = 0.3
_NODE_ID = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Cluster:
    membership: ClusterMembership
    files: ConfigFiles


class Directory:
    """The clusters of the settings and their members. Thread-safe."""

    def __init__(
        self, settings: ExporterSettings, env: Mapping[str, str], home: Path, reader: NodeReader
    ) -> None:
        """Raises `ConfigError` when a cluster's source of members cannot be used."""
        self._reader = reader
        labelled = len(settings.clusters) > 1 or bool(settings.clusters[0].name)
        self._clusters: dict[str, _Cluster] = {}
        for cluster in settings.clusters:
            membership = ClusterMembership(cluster, settings.runtime, env, home, with_cluster_label=labelled)
            self._clusters[cluster.name] = _Cluster(
                membership, ConfigFiles(cluster, env, home, membership.labels)
            )
        self._refreshing: dict[str, asyncio.Task[tuple[Member, ...]]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clusters, in order; one without a name is ''."""
        return tuple(self._clusters)

    def cluster(self, name: str | None) -> str:
        """The cluster a request means; it need not be named where there is only one.

        Raises:
            BadRequest: several, and none was named.
            NotFound: none of that name.
        """
        if name is None:
            if len(self._clusters) > 1:
                raise BadRequest(f"which cluster? Add ?cluster= with one of: {', '.join(self._clusters)}")
            return next(iter(self._clusters))
        if name not in self._clusters:
            raise NotFound(f"there is no cluster of that name; use one of: {', '.join(self._clusters)}")
        return name

    def members(self, cluster: str) -> tuple[Member, ...]:
        """The current members; asks the runtime for them where that is their source."""
        membership = self._clusters[cluster].membership
        if isinstance(membership.source, DiscoveredNodes):
            self._discover(cluster, membership)
        members = membership.members()
        self._reader.retain(
            frozenset(m.address for c in self._clusters.values() for m in c.membership.members())
        )
        return members

    def member(self, cluster: str, node_id: str) -> Member:
        """The member a path names.

        Raises:
            BadRequest: not a number.
            NotFound: no such member.
        """
        if not _NODE_ID.fullmatch(node_id):
            raise BadRequest("a node id is a whole number, as /api/topology lists it")
        members = self.members(cluster)
        for member in members:
            if member.node_id == int(node_id):
                return member
        raise NotFound(f"there is no node {int(node_id)}; /api/topology lists the {len(members)} there are")

    def config_files(self, cluster: str) -> Sequence[ConfigFile]:
        """The runtimes' configuration files that can be found on this host."""
        entry = self._clusters[cluster]
        return entry.files.read(entry.membership.members())

    def _discover(self, cluster: str, membership: ClusterMembership) -> None:
        """Refresh in the background; a read waits for it only a moment."""

        async def work(transport: Transport) -> None:
            task = self._refreshing.get(cluster)
            if task is None or task.done():
                deadline = asyncio.get_running_loop().time() + 1.5
                task = asyncio.get_running_loop().create_task(membership.refresh(transport, deadline))
                self._refreshing[cluster] = task
            await asyncio.wait((task,), timeout=_REFRESH_S)

        self._reader.client.call(work, _REFRESH_S + 0.4)
