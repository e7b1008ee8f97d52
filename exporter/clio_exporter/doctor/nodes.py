"""A look at the nodes, by the client that the exporter asks them with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clio_client import questions
from clio_client.client import RuntimeClient
from clio_client.clusters import ConfiguredCluster, configured_clusters, refresh_members
from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import hostfile_warnings, read_hostfile_text
from clio_client.config.membership_source import HostfileNodes, MembershipSource
from clio_client.errors import RuntimeClientError
from clio_client.membership import Member
from clio_client.questions import NodeStatus
from clio_client.transport.choice import check_transport, make_transport
from clio_client.transport.greeting import Greeting, resolve
from clio_client.transport.interface import Transport
from clio_client.transport.zeromq import ZmqTransport
from clio_exporter.settings import Settings

_GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class NodeLook:
    """What was seen of one node.

    Attributes:
        local: address of this host that leads to the node; None where TCP does not reach it.
        greets: whether what listens there greets as ZeroMQ does, which a stopped process does not.
        status: the runtime that answers; None where none does, and `error` says why.
        skew: seconds by which this host's clock is ahead of the node's newest sample, which is up to a second
            old; None where there is no sample.
    """

    member: Member
    local: str | None = None
    greets: bool = False
    status: NodeStatus | None = None
    error: RuntimeClientError | None = None
    skew: float | None = None

    @property
    def name(self) -> str:
        """The node, as findings call it."""
        cluster = f"{self.member.cluster}/" if self.member.cluster else ""
        return f"{cluster}{self.member.node_id} ({self.member.target})"

    @property
    def dials(self) -> str | None:
        """The address that the node is told to answer to."""
        return self.member.address.reply_address or self.local


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """One cluster: where its members come from, and the nodes.

    Attributes:
        error: why the membership may be out of date.
        warnings: what in its hostfile the runtime reads differently.
    """

    name: str
    source: MembershipSource
    nodes: tuple[NodeLook, ...]
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodesLook:
    """All clusters.

    Attributes:
        problem: why nobody could be asked; then there are no clusters.
        endpoints: address to port at which answers arrive; an address that is not this host's is there
            together with 0.0.0.0.
        reply_port: the port that was asked for, 0 for any.
    """

    clusters: tuple[ClusterLook, ...] = ()
    problem: ConfigError | RuntimeClientError | None = None
    endpoints: Mapping[str, int] = field(default_factory=dict)
    reply_port: int = 0

    @property
    def nodes(self) -> tuple[NodeLook, ...]:
        """Every node of every cluster."""
        return tuple(node for cluster in self.clusters for node in cluster.nodes)


def look(
    settings: Settings,
    env: Mapping[str, str],
    home: Path,
    seconds: float,
    meanwhile: Callable[[NodesLook], None],
) -> NodesLook:
    """Ask every node, ``seconds`` at most each; ``meanwhile`` is called while answers can still arrive."""
    try:
        check_transport(settings.runtime)
        clusters = configured_clusters(settings, env, home)
        client = RuntimeClient(lambda: make_transport(settings.runtime, "doctor"))
    except (ConfigError, RuntimeClientError) as error:
        return NodesLook(problem=error)
    try:
        seen = client.call(lambda transport: _ask(transport, clusters, seconds), 3 * seconds + _GRACE_S)
        seen = NodesLook(seen.clusters, None, seen.endpoints, settings.runtime.reply_port)
        meanwhile(seen)
        return seen
    except RuntimeClientError as error:
        return NodesLook(problem=error)
    finally:
        client.close()


async def _ask(transport: Transport, clusters: Sequence[ConfiguredCluster], seconds: float) -> NodesLook:
    loop = asyncio.get_running_loop()
    groups = await refresh_members(clusters, transport, loop.time() + seconds)
    looks = await asyncio.gather(
        *(asyncio.gather(*(_one(transport, m, seconds) for m in members)) for members in groups)
    )
    seen = tuple(
        ClusterLook(
            cluster.name,
            cluster.membership.source,
            tuple(nodes),
            cluster.membership.error,
            _warnings(cluster),
        )
        for cluster, nodes in zip(clusters, looks, strict=True)
    )
    endpoints = transport.reply.endpoints() if isinstance(transport, ZmqTransport) else {}
    return NodesLook(seen, endpoints=endpoints)


async def _one(transport: Transport, member: Member, seconds: float) -> NodeLook:
    deadline = asyncio.get_running_loop().time() + seconds
    (local, greets), answered = await asyncio.gather(
        _greeted(member, seconds), _answered(transport, member, deadline)
    )
    status, error, skew = answered
    return NodeLook(member, local, greets, status, error, skew)


async def _answered(
    transport: Transport, member: Member, deadline: float
) -> tuple[NodeStatus | None, RuntimeClientError | None, float | None]:
    try:
        status = await questions.status(transport, member.address, deadline)
    except RuntimeClientError as error:
        return None, error, None
    try:
        samples = await questions.samples(transport, member.address, deadline, last=1)
    except RuntimeClientError:  # generation Z has none
        return status, None, None
    wall = samples[-1].wall_time_ns if samples else None
    return status, None, None if wall is None else time.time() - wall / 1e9


async def _greeted(member: Member, seconds: float) -> tuple[str | None, bool]:
    """Our address on the way to the node, and whether it greets."""
    try:
        greeting = Greeting(await resolve(member.address.host), member.address.client_port)
    except RuntimeClientError:
        return None, False
    try:
        return await asyncio.wait_for(greeting.wait(), seconds), True
    except (RuntimeClientError, TimeoutError, asyncio.TimeoutError):
        return None, False
    finally:
        greeting.close()


def _warnings(cluster: ConfiguredCluster) -> tuple[str, ...]:
    """Of a hostfile that the runtime reads too: another one is the exporter's own."""
    source = cluster.membership.source
    if not isinstance(source, HostfileNodes):
        return ()
    try:
        return tuple(hostfile_warnings(*read_hostfile_text(source.path)))
    except ConfigError:
        return ()  # the membership's own error says so
