"""What a node can be asked, with typed answers. The one place where answers are decoded.

Each question is a coroutine over a `Transport`, bounded by ``deadline`` (the event loop's time), routed to
the asked node alone, and harmless to it (wire protocol, sections 4 to 7). All raise `RuntimeClientError`,
whose kind says what is wrong; a generation Z runtime can be asked for `status` and `workers` only.

Who asks one node several things together (`Transport.monitor_all`) takes them as data: a `Question` is what
is sent, and how its answer is read.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

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

_T = TypeVar("_T")

RING_ENTRIES: Final = 1024
"""Samples a runtime keeps, one a second (wire protocol, section 4)."""

_HOST_INFO: Final = "get_host_info"
DISCOVERY_QUERY: Final = f"pool_stats://1.0:broadcast:{_HOST_INFO}"
"""Asked this way, a broadcast leaves no error line in the runtime's log (section 4)."""


@dataclass(frozen=True)
class Question(Generic[_T]):
    """A question as data.

    Attributes:
        query: what is sent.
        read: makes the answer's document, None where there is none, into what was asked for.
    """

    query: str
    read: Callable[[bytes | None], _T]

    def answer(self, node: NodeAddress, answer: MonitorAnswer) -> _T:
        """What a node's answer says.

        Raises:
            QueryFailedError: the runtime's return code is not 0.
            MalformedAnswerError: it says something else.
        """
        try:
            return self.read(answer.raise_for_code().sole())
        except _NoResultError:
            raise MalformedAnswerError(f"{node}: {self.query} was answered without a result") from None

    async def ask(self, transport: Transport, node: NodeAddress, deadline: float) -> _T:
        """Ask this alone."""
        return self.answer(node, await transport.monitor(node, self.query, deadline))


class _NoResultError(Exception):
    """An answer has no document, and the question needs one."""


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


def workers_question() -> Question[tuple[WorkerStats, ...]]:
    """For the node's worker threads."""
    return Question(QUERY_WORKER_STATS, lambda raw: tuple(read_workers(decode_document(_there(raw)))))


async def workers(transport: Transport, node: NodeAddress, deadline: float) -> tuple[WorkerStats, ...]:
    """The node's worker threads."""
    return await workers_question().ask(transport, node, deadline)


def samples_question(since: int = 0, last: int = RING_ENTRIES) -> Question[tuple[SystemSample, ...]]:
    """For what the node's 1 Hz ring holds from event id ``since`` on; see `samples`."""
    return Question(f"system_stats:{since}", lambda raw: tuple(read_samples(decode_tail(_there(raw), last))))


async def samples(
    transport: Transport, node: NodeAddress, deadline: float, *, since: int = 0, last: int = RING_ENTRIES
) -> tuple[SystemSample, ...]:
    """What the node's 1 Hz ring holds from event id ``since`` on, ascending; the ``last`` ones at most."""
    return await samples_question(since, last).ask(transport, node, deadline)


async def containers(
    transport: Transport, node: NodeAddress, deadline: float, known: ContainerList | None = None
) -> ContainerList:
    """The pools with a container on the node; ``known`` itself, not decoded again, when nothing changed."""

    def read(raw: bytes | None) -> ContainerList:
        digest = hashlib.sha256(_there(raw)).digest()
        if known is not None and digest == known.digest:
            return known
        return ContainerList(tuple(read_containers(decode_document(_there(raw)))), digest)

    return await Question("container_stats", read).ask(transport, node, deadline)


def pool_stats_question(container: Container) -> Question[PoolStats | None]:
    """For what a pool's container on the node reports; None when its module reports nothing."""

    def read(raw: bytes | None) -> PoolStats | None:
        return None if raw is None else read_pool_stats(container.chimod_name or "", decode_document(raw))

    return Question(f"pool_stats://{container.pool_id}:local:stats", read)


async def pool_stats(
    transport: Transport, node: NodeAddress, container: Container, deadline: float
) -> PoolStats | None:
    """What a pool's container on the node reports; None when its module reports nothing.

    Raises:
        QueryFailedError: with ``unknown_pool`` when the pool was retired since the list was read.
    """
    return await pool_stats_question(container).ask(transport, node, deadline)


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


def host_info_question() -> Question[HostInfo]:
    """For what the runtime calls its host, and the id it has there."""
    return Question(_HOST_INFO, lambda raw: read_host_info(decode_document(_there(raw))))


async def host_info(transport: Transport, node: NodeAddress, deadline: float) -> HostInfo:
    """What the runtime calls its host, and the id it has there."""
    return await host_info_question().ask(transport, node, deadline)


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


def _there(raw: bytes | None) -> bytes:
    if raw is None:
        raise _NoResultError
    return raw
