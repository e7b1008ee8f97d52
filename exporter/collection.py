"""One round of questions to a set of nodes, shared by everyone who asks while it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from exporter.config_files import ConfigFiles
from exporter.membership import ClusterMembership, Member
from exporter.places import Place
from exporter.poller import NodePoller
from exporter.runtime.client import RuntimeClient
from exporter.runtime.transport import Transport
from exporter.snapshot import ClusterSnapshot, ConfigFile, NodeSnapshot, Topic

NODES_AT_ONCE: Final = 256
"""Nodes asked at the same time, so that a node's time is not spent on waiting for our own processor."""


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A configured cluster: who is in it, what its nodes are configured to do.

    ``membership`` and ``configs`` are None for a target of `/probe` that is in no cluster.
    """

    membership: ClusterMembership | None = None
    configs: ConfigFiles | None = None


Roster = Sequence[tuple[Cluster, Sequence[Member]]]
"""Who is to be asked."""

FindRoster = Callable[[Transport, float], Awaitable[Roster]]


class Collection:
    """One round. ``groups`` is filled when the members are known, the snapshots while nodes answer."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] | None = None
        self.groups: tuple[tuple[Cluster, tuple[NodeSnapshot, ...]], ...] = ()
        self._configs: dict[Cluster, tuple[ConfigFile, ...]] = {}

    def start(
        self,
        client: RuntimeClient,
        find_roster: FindRoster,
        poller_of: Callable[[Member], NodePoller],
        topics: frozenset[Topic],
        seconds: float,
        node_seconds: float,
        *,
        with_configs: bool,
    ) -> None:
        """Ask on the client's event loop: ``seconds`` at most in all, ``node_seconds`` for each node.

        ``poller_of`` is called on the event loop.
        """

        async def run(transport: Transport) -> None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + seconds
            places = asyncio.Semaphore(NODES_AT_ONCE)

            async def ask(node: NodeSnapshot) -> None:
                async with Place(places):
                    node_deadline = min(deadline, loop.time() + node_seconds)
                    await poller_of(node.member).fill(node, transport, topics, node_deadline)

            async def read(cluster: Cluster, nodes: Sequence[NodeSnapshot]) -> None:
                if with_configs and cluster.configs is not None:
                    members = [node.member for node in nodes]
                    self._configs[cluster] = await cluster.configs.refresh(
                        members, min(seconds, node_seconds)
                    )

            roster = await find_roster(transport, min(deadline, loop.time() + node_seconds))
            self.groups = tuple(
                (cluster, tuple(NodeSnapshot(member) for member in members)) for cluster, members in roster
            )
            # Without a topic there is nothing to ask, and no node is connected to.
            asked = [node for _, nodes in self.groups for node in nodes] if topics else []
            await asyncio.gather(
                *map(ask, asked),
                *(read(cluster, nodes) for cluster, nodes in self.groups),
            )

        self._future = client.submit(run)

    @property
    def done(self) -> bool:
        """Whether every node has answered or run out of time."""
        return self._future is not None and self._future.done()

    def wait(self, seconds: float) -> None:
        """Wait for the end, or ``seconds``; then what has arrived is what there is."""
        assert self._future is not None  # noqa: S101 - started before it is handed out
        concurrent.futures.wait((self._future,), seconds)
        if self._future.done():
            self._future.result()

    def snapshots(self) -> tuple[ClusterSnapshot, ...]:
        """What is known by now, by cluster."""
        return tuple(
            ClusterSnapshot(
                labels=cluster.membership.labels if cluster.membership else "",
                nodes=nodes,
                configs=self._configs.get(cluster, ()),
                membership_error=cluster.membership.error if cluster.membership else None,
            )
            for cluster, nodes in self.groups
        )


class SingleFlight:
    """At most one collection at a time for each key; who asks meanwhile shares it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Collection] = {}

    def join(self, key: Hashable, start: Callable[[Collection], None]) -> tuple[Collection, bool]:
        """The collection under way for ``key``, or a new one that ``start`` was called with.

        Returns the collection and whether it is shared.
        """
        with self._lock:
            self._under_way = {k: flight for k, flight in self._under_way.items() if not flight.done}
            found = self._under_way.get(key)
            if found is not None:
                return found, True
            collection = Collection()
            start(collection)
            self._under_way[key] = collection
            return collection, False

    def land(self, seconds: float) -> None:
        """Wait until the collections under way now have ended, ``seconds`` at most."""
        end = time.monotonic() + seconds
        with self._lock:
            flights = list(self._under_way.values())
        for flight in flights:
            flight.wait(max(0.0, end - time.monotonic()))
