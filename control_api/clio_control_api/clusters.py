"""Which clusters and nodes a request means."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clio_client.clusters import ConfiguredCluster, configured_clusters, refresh_members
from clio_client.config.runtime_files import ConfigFile
from clio_client.config.settings import Settings as ExporterSettings
from clio_client.errors import HungError
from clio_client.membership import Member, MembershipError
from clio_client.single_flight import SingleFlight
from clio_client.transport.interface import Transport
from clio_control_api.errors import BadRequest, NotFound, Unavailable
from clio_control_api.queries import NodeQueries

_READ_S: Final = 0.3
"""How long a read waits for the members; then it takes those known before."""

_ACTION_S: Final = 3.0
"""How long an action waits for the members; then it is refused."""

_FILES_S: Final = 1.0
_GRACE_S: Final = 0.4
_NODE_ID = re.compile(r"[0-9]{1,9}", re.ASCII)


class Clusters:
    """The clusters of the settings and their members, by the names and numbers of requests. Thread-safe."""

    def __init__(
        self, settings: ExporterSettings, env: Mapping[str, str], home: Path, queries: NodeQueries
    ) -> None:
        """Raises `ConfigError` when a cluster's source of members cannot be used."""
        self._queries = queries
        self._refreshes: SingleFlight[concurrent.futures.Future[None]] = SingleFlight()
        self._clusters: Mapping[str, ConfiguredCluster] = {
            cluster.name: cluster for cluster in configured_clusters(settings, env, home)
        }

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
        """The members for a read: as they are now, or as last known where that cannot be found out soon."""

        async def work(transport: Transport) -> None:
            deadline = asyncio.get_running_loop().time() + _READ_S
            await refresh_members(tuple(self._clusters.values()), transport, deadline)

        # One for all who read meanwhile, none of whom may cancel it.
        refresh, shared = self._refreshes.join(None, lambda: self._queries.client.submit(work))
        # A host short of processor time does not fail a read for it.
        with contextlib.suppress(concurrent.futures.TimeoutError, HungError):
            refresh.result(_READ_S + _GRACE_S)
            if not shared:
                self._drop_others()
        return self._clusters[cluster].membership.members()

    def member(self, cluster: str, node_id: str) -> Member:
        """The member that the path of a read names.

        Raises:
            BadRequest: not a number.
            NotFound: no such member.
        """
        number = _number(node_id)
        return _numbered(self.members(cluster), number)

    def current_member(self, cluster: str, node_id: str) -> Member:
        """The member that the path of an action names, by the members as they are now.

        Raises:
            BadRequest: not a number.
            NotFound: no such member.
            Unavailable: the members cannot be brought up to date, so it may be another node by now.
        """
        number = _number(node_id)
        return _numbered(self.current_members(cluster), number)

    def current_members(self, cluster: str) -> tuple[Member, ...]:
        """The members as they are now.

        Raises:
            Unavailable: they cannot be brought up to date, so a number may be another node's by now.
        """
        membership = self._clusters[cluster].membership

        async def work(transport: Transport) -> tuple[Member, ...]:
            return await membership.confirmed(transport, asyncio.get_running_loop().time() + _ACTION_S)

        try:
            members = self._queries.client.call(work, _ACTION_S + _GRACE_S)
        except MembershipError as error:
            raise Unavailable(f"who the nodes are cannot be told now: {error}") from None
        self._drop_others()
        return members

    def config_files(self, cluster: str) -> Sequence[ConfigFile]:
        """The runtimes' configuration files that can be found on this host.

        Raises:
            Unavailable: reading them takes too long.
        """
        members = self.members(cluster)
        configs = self._clusters[cluster].configs

        async def work(_transport: Transport) -> Sequence[ConfigFile] | None:
            try:
                return await configs.read_within(members, _FILES_S)
            except TimeoutError:
                return None

        found = self._queries.client.call(work, _FILES_S + _GRACE_S)
        if found is None:
            raise Unavailable(
                f"reading the runtime's configuration takes longer than {_FILES_S:g} s; try again later"
            )
        return found

    def _drop_others(self) -> None:
        """End what leads to nodes that are no members, and to members by another address."""
        memberships = [cluster.membership for cluster in self._clusters.values()]
        self._queries.retain(frozenset(m.address for found in memberships for m in found.members()))


def _number(node_id: str) -> int:
    if not _NODE_ID.fullmatch(node_id):
        raise BadRequest("a node id is a whole number, as /api/topology lists it")
    return int(node_id)


def _numbered(members: Sequence[Member], number: int) -> Member:
    for member in members:
        if member.node_id == number:
            return member
    raise NotFound(f"there is no node {number}; /api/topology lists the {len(members)} there are")
