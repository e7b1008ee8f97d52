"""One poll of all nodes of the clusters, shared by every scrape that comes while it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

from clio_client.client import RuntimeClient
from clio_client.clusters import ConfiguredCluster
from clio_client.config.runtime_files import ConfigFile
from clio_client.membership import Member
from clio_client.transport.interface import Transport
from clio_exporter.poller import NodePoller
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Topic

Roster = Sequence[tuple[ConfiguredCluster | None, Sequence[Member]]]
"""Who is to be asked; a target of `/probe` may be in no cluster."""

FindRoster = Callable[[Transport, float], Awaitable[Roster]]


class ClusterPoll:
    """One poll. ``groups`` is filled when the members are known, the snapshots while nodes answer."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] | None = None
        self.groups: tuple[tuple[ConfiguredCluster | None, tuple[NodeSnapshot, ...]], ...] = ()
        self._configs: dict[ConfiguredCluster, tuple[ConfigFile, ...]] = {}

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
        """Ask on the client's event loop: ``seconds`` at most in all, ``node_seconds`` for the members.

        ``poller_of`` is called on the event loop.
        """

        async def run(transport: Transport) -> None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + seconds

            async def read(cluster: ConfiguredCluster | None, nodes: Sequence[NodeSnapshot]) -> None:
                if with_configs and cluster is not None:
                    members = [node.member for node in nodes]
                    self._configs[cluster] = await cluster.configs.refresh(
                        members, min(seconds, node_seconds)
                    )

            roster = await find_roster(transport, min(deadline, loop.time() + node_seconds))
            pollers = [[poller_of(member) for member in members] for _, members in roster]
            self.groups = tuple(
                (cluster, tuple(poller.snapshot() for poller in own))
                for (cluster, _), own in zip(roster, pollers, strict=True)
            )
            nodes = [node for _, own in self.groups for node in own]
            # Without a topic there is nothing to ask, and no node is connected to.
            asked = zip(chain.from_iterable(pollers), nodes, strict=True) if topics else ()
            await asyncio.gather(
                *(poller.poll(node, transport, topics, deadline) for poller, node in asked),
                *(read(cluster, nodes) for cluster, nodes in self.groups),
            )

        self._future = client.submit(run)

    def done(self) -> bool:
        """Whether every node has answered or run out of time."""
        return self._future is not None and self._future.done()

    def add_done_callback(self, callback: Callable[[object], object]) -> None:
        """Have ``callback`` called at the end."""
        assert self._future is not None  # noqa: S101 - started before it is handed out
        self._future.add_done_callback(callback)

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
                name=cluster.name if cluster else "",
                nodes=nodes,
                configs=self._configs.get(cluster, ()) if cluster else (),
                membership_error=cluster.membership.error if cluster else None,
            )
            for cluster, nodes in self.groups
        )
