"""What a node can be asked, with typed answers. The one place where answers are decoded.

Each question is a coroutine over a `Transport`, bounded by ``deadline`` (the event loop's time), routed to
the asked node alone, and harmless to it (wire protocol, sections 4 to 7). All raise `RuntimeClientError`,
whose kind says what is wrong; a generation Z runtime can be asked for `status` and `workers` only.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from clio_client.errors import MalformedAnswerError, QueryFailedError
from clio_client.protocol.codec import QUERY_WORKER_STATS, Generation, decode_document, decode_tail
from clio_client.protocol.records import (
    Container,
    HostInfo,
    Pool,
    PoolStats,
    SystemSample,
    WorkerStats,
    read_containers,
    read_host_info,
    read_pool_stats,
    read_samples,
    read_workers,
)
from clio_client.transport.interface import MonitorAnswer, NodeAddress, NodeSession, Transport

RING_ENTRIES: Final = 1024
"""Samples a runtime keeps, one a second (wire protocol, section 4)."""

_HOST_INFO: Final = "get_host_info"
DISCOVERY_QUERY: Final = f"pool_stats://1.0:broadcast:{_HOST_INFO}"
"""Asked this way, a broadcast leaves no error line in the runtime's log (section 4)."""


@dataclass(frozen=True, slots=True)
class ContainerList:
    """The pools with a container on a node, and the digest of the answer they were read from."""

    containers: tuple[Container, ...] = ()
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The runtime that answers at a node.

    Attributes:
        session: its protocol generation and what tells this run of it from the next.
        host: what it calls its host; None for generation Z, which does not tell.
        round_trip_seconds: time that one small question took.
    """

    session: NodeSession
    host: HostInfo | None
    round_trip_seconds: float


async def status(transport: Transport, node: NodeAddress, deadline: float) -> NodeStatus:
    """Whether the node is up, and which runtime answers there now.

    A question is always asked: a connection alone may be that of a runtime that has just died.
    """
    clock = asyncio.get_running_loop().time
    before = await transport.session(node, deadline)
    host = None
    started = clock()
    if before.generation is Generation.Z:
        await workers(transport, node, deadline)
    else:
        host = await host_info(transport, node, deadline)
    seconds = clock() - started
    # Asked again: the answer may have come from a runtime that was started meanwhile.
    return NodeStatus(await transport.session(node, deadline), host, seconds)


async def workers(transport: Transport, node: NodeAddress, deadline: float) -> tuple[WorkerStats, ...]:
    """The node's worker threads."""
    raw = await _result(transport, node, QUERY_WORKER_STATS, deadline)
    return tuple(read_workers(decode_document(raw)))


async def samples(
    transport: Transport, node: NodeAddress, deadline: float, *, since: int = 0, last: int = RING_ENTRIES
) -> tuple[SystemSample, ...]:
    """What the node's 1 Hz ring holds from event id ``since`` on, ascending; the ``last`` ones at most."""
    raw = await _result(transport, node, f"system_stats:{since}", deadline)
    return tuple(read_samples(decode_tail(raw, last)))


async def containers(
    transport: Transport, node: NodeAddress, deadline: float, known: ContainerList | None = None
) -> ContainerList:
    """The pools with a container on the node; ``known`` itself, not decoded again, when nothing changed."""
    raw = await _result(transport, node, "container_stats", deadline)
    digest = hashlib.sha256(raw).digest()
    if known is not None and digest == known.digest:
        return known
    return ContainerList(tuple(read_containers(decode_document(raw))), digest)


async def pool_stats(
    transport: Transport, node: NodeAddress, container: Container, deadline: float
) -> PoolStats | None:
    """What a pool's container on the node reports; None when its module reports nothing.

    Raises:
        QueryFailedError: with ``unknown_pool`` when the pool was retired since the list was read.
    """
    raw = (await _ask(transport, node, f"pool_stats://{container.pool_id}:local:stats", deadline)).sole()
    return None if raw is None else read_pool_stats(container.chimod_name or "", decode_document(raw))


async def pools(
    transport: Transport, node: NodeAddress, deadline: float, *, devices_only: bool = False
) -> tuple[Pool, ...]:
    """The pools with a container on the node and what each reports, or only its block devices.

    Devices are asked one by one: ``bdev_stats`` is never answered on many clusters (section 6).
    """
    found = [
        container
        for container in (await containers(transport, node, deadline)).containers
        if container.is_bdev or not devices_only
    ]

    async def one(container: Container) -> Pool | None:
        if container.is_admin:
            return Pool(container, None)
        try:
            return Pool(container, await pool_stats(transport, node, container, deadline))
        except QueryFailedError as error:
            if error.unknown_pool:
                return None
            raise

    return tuple(pool for pool in await asyncio.gather(*map(one, found)) if pool is not None)


async def host_info(transport: Transport, node: NodeAddress, deadline: float) -> HostInfo:
    """What the runtime calls its host, and the id it has there."""
    return read_host_info(decode_document(await _result(transport, node, _HOST_INFO, deadline)))


async def every_host(transport: Transport, seed: NodeAddress, deadline: float) -> tuple[HostInfo, ...]:
    """What all nodes of the seed's cluster call their hosts: the one question that is sent across nodes.

    Never answered while one of them is dead (section 6).
    """
    answer = await _ask(transport, seed, DISCOVERY_QUERY, deadline)
    return tuple(read_host_info(decode_document(raw)) for raw in answer.documents.values())


async def document(transport: Transport, node: NodeAddress, query: str, deadline: float) -> Any:
    """The decoded answer in the runtime's own field names; None when the node has nothing to say."""
    raw = (await _ask(transport, node, query, deadline)).sole()
    return None if raw is None else decode_document(raw)


async def _ask(transport: Transport, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
    return (await transport.monitor(node, query, deadline)).raise_for_code()


async def _result(transport: Transport, node: NodeAddress, query: str, deadline: float) -> bytes:
    raw = (await transport.monitor(node, query, deadline)).raise_for_code().sole()
    if raw is None:
        raise MalformedAnswerError(f"{node}: {query} was answered without a result")
    return raw
