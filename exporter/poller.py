"""Asking one node: which queries, in which order, and what is remembered from one scrape to the next."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Final

from exporter.history import History
from exporter.logs import DefectLog, get_logger
from exporter.membership import Member
from exporter.places import Place
from exporter.runtime.codec import (
    QUERY_WORKER_STATS,
    RuntimeIdentity,
    decode_document,
    decode_tail,
)
from exporter.runtime.errors import MalformedAnswerError, QueryFailedError, RuntimeClientError
from exporter.runtime.records import (
    ADMIN_POOL_ID,
    Container,
    SystemSample,
    read_containers,
    read_pool_stats,
    read_samples,
    read_workers,
)
from exporter.runtime.transport import MonitorAnswer, Transport
from exporter.snapshot import NodeSnapshot, Outcome, Pool, Topic

RING_ENTRIES: Final = 1024
"""Samples a runtime keeps, one a second (wire protocol, section 4)."""

STALLED_AFTER_S: Final = 3.0
"""Without a new sample for this long, the cursor is checked against the ring, every ten seconds."""

STALLED_CHECK_S: Final = 10.0

RC_POOL_NOT_FOUND: Final = 3

POOL_TOPICS: Final = frozenset({Topic.CONTAINERS, Topic.BDEVS, Topic.MODULES})
"""Topics that need the node's list of pools."""

_log = get_logger(__name__)
_defects = DefectLog(_log)


@dataclass(frozen=True, slots=True)
class PollOptions:
    """How nodes are asked.

    Attributes:
        peak_window: seconds of samples kept for peaks.
        container_interval: seconds between two ``container_stats`` of a node.
    """

    peak_window: float = 60.0
    container_interval: float = 60.0


class NodePoller:
    """Asks one node and remembers its cursor, its recent samples and its pools.

    Lives on the client's event loop. Overlapping polls of one node are harmless: what is remembered
    is merged by event id.
    """

    def __init__(self, member: Member, options: PollOptions, first_contacts: asyncio.Semaphore) -> None:
        """``first_contacts`` bounds how many nodes send their whole ring at the same time."""
        self.member = member
        self._options = options
        self._first_contacts = first_contacts
        self._reset(None)
        self._told_id_differs = False

    def _reset(self, identity: RuntimeIdentity | None) -> None:
        self._identity = identity
        self._history = History(self._options.peak_window)
        self._newest_at = 0.0
        self._checked_at = 0.0
        self._start_time: float | None = None
        self._containers: tuple[Container, ...] = ()
        self._containers_digest = b""
        self._containers_at: float | None = None
        self._without_stats: set[str] = set()

    async def poll(self, transport: Transport, topics: frozenset[Topic], deadline: float) -> NodeSnapshot:
        """Ask everything ``topics`` needs; never raises, the snapshot holds what went wrong."""
        snapshot = NodeSnapshot(self.member)
        await self.fill(snapshot, transport, topics, deadline)
        return snapshot

    async def fill(
        self, snapshot: NodeSnapshot, transport: Transport, topics: frozenset[Topic], deadline: float
    ) -> None:
        """`poll` into a snapshot that others may already be reading."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            session = await transport.session(self.member.address, deadline)
        except RuntimeClientError as error:
            snapshot.error = error
            snapshot.duration = loop.time() - started
            return
        if session.identity != self._identity:
            self._reset(session.identity)
        snapshot.session = session
        topics = snapshot.askable(topics)
        settle = _Settler(snapshot, loop, started)
        jobs: list[Awaitable[None]] = []
        if Topic.WORKERS in topics:
            jobs.append(settle(self._workers(snapshot, transport, deadline), Topic.WORKERS))
        if Topic.SYSTEM in topics:
            jobs.append(settle(self._system(snapshot, transport, deadline), Topic.SYSTEM))
        if topics & POOL_TOPICS:
            jobs.append(self._pools(snapshot, transport, topics & POOL_TOPICS, deadline, settle))
        for defect in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(defect, Exception):
                # Ours, met by this node's answer: it must not cost the other nodes their samples.
                _defects.report(defect, "a node's answer could not be handled", node=self.member.target)
                lost = RuntimeClientError(f"{self.member.address}: answer could not be handled: {defect!r}")
                settle.settled(lost, *(topics - snapshot.outcomes.keys()))
        snapshot.duration = loop.time() - started

    async def _ask(self, transport: Transport, query: str, deadline: float) -> MonitorAnswer:
        return (await transport.monitor(self.member.address, query, deadline)).raise_for_code()

    async def _document(self, transport: Transport, query: str, deadline: float) -> bytes:
        document = (await self._ask(transport, query, deadline)).sole_document()
        if document is None:
            raise MalformedAnswerError(f"{self.member.address}: {query} was answered without a result")
        return document

    # --- workers ----------------------------------------------------------------------------------

    async def _workers(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> bool:
        document = await self._document(transport, QUERY_WORKER_STATS, deadline)
        snapshot.workers = tuple(read_workers(decode_document(document)))
        return True

    # --- the 1 Hz ring ----------------------------------------------------------------------------

    async def _system(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        now = loop.time()
        fresh: list[SystemSample] = []
        if self._history.newest is not None:
            query = f"system_stats:{self._history.newest_id + 1}"
            document = await self._document(transport, query, deadline)
            fresh = read_samples(decode_tail(document, self._kept))
        # Scrapes may be far apart: what counts is that nothing has come by now, not when last asked.
        stalled = now - self._newest_at > STALLED_AFTER_S and now - self._checked_at > STALLED_CHECK_S
        if not fresh and (self._history.newest is None or stalled):
            self._checked_at = now
            async with Place(self._first_contacts):
                document = await self._document(transport, "system_stats:0", deadline)
                fresh = read_samples(decode_tail(document, self._kept))
            if (fresh[-1].event_id or 0 if fresh else -1) < self._history.newest_id:
                # The ring is behind our cursor: another runtime, even if nothing else told us.
                self._reset(self._identity)
        if self._history.add(fresh):
            self._newest_at = now
        newest = self._history.newest
        if newest is not None:
            self._check_number(newest)
            if self._start_time is None:
                self._start_time = _start_time(newest, self._identity)
        snapshot.newest, snapshot.peaks = newest, self._history.peaks()
        snapshot.start_time = self._start_time
        return True

    @property
    def _kept(self) -> int:
        return min(RING_ENTRIES, int(self._options.peak_window) + 5)

    def _check_number(self, newest: SystemSample) -> None:
        if newest.node_id not in (None, self.member.node_id) and not self._told_id_differs:
            self._told_id_differs = True
            _log.warning(
                "the runtime numbers this node differently; is the exporter's hostfile the runtime's?",
                cluster=self.member.cluster,
                node=self.member.target,
                node_id=self.member.node_id,
                runtime_node_id=newest.node_id,
            )

    # --- pools ------------------------------------------------------------------------------------

    async def _pools(
        self,
        snapshot: NodeSnapshot,
        transport: Transport,
        topics: frozenset[Topic],
        deadline: float,
        settle: _Settler,
    ) -> None:
        try:
            asked = await self._refresh_containers(transport, deadline)
        except RuntimeClientError as error:
            settle.settled(error, *topics)
            return
        jobs = []
        if Topic.CONTAINERS in topics:
            snapshot.containers = self._containers
            settle.settled(None, Topic.CONTAINERS, asked=asked)
        if Topic.BDEVS in topics:
            jobs.append(settle(self._bdevs(snapshot, transport, deadline), Topic.BDEVS))
        if Topic.MODULES in topics:
            jobs.append(settle(self._modules(snapshot, transport, deadline), Topic.MODULES))
        await asyncio.gather(*jobs)

    async def _refresh_containers(self, transport: Transport, deadline: float) -> bool:
        now = asyncio.get_running_loop().time()
        if self._containers_at is not None and now - self._containers_at < self._options.container_interval:
            return False
        document = await self._document(transport, "container_stats", deadline)
        digest = hashlib.sha256(document).digest()
        if digest != self._containers_digest:
            containers = tuple(read_containers(decode_document(document)))
            if {c.pool_id for c in containers} != {c.pool_id for c in self._containers}:
                self._without_stats.clear()
            self._containers, self._containers_digest = containers, digest
        self._containers_at = now
        return True

    async def _bdevs(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> bool:
        devices = [c for c in self._containers if is_bdev(c)]
        pools, asked, error = await self._stats_of(devices, transport, deadline)
        snapshot.bdevs = pools
        if error is not None:
            raise error
        return asked

    async def _modules(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> bool:
        others = [c for c in self._containers if not is_bdev(c) and c.pool_id != ADMIN_POOL_ID]
        pools, asked, error = await self._stats_of(others, transport, deadline)
        snapshot.modules = pools
        if error is not None:
            raise error
        return asked

    async def _stats_of(
        self, containers: Iterable[Container], transport: Transport, deadline: float
    ) -> tuple[tuple[Pool, ...], bool, RuntimeClientError | None]:
        """What the pools report, whether there was one to ask, and the first error of those that failed."""
        asked = [c for c in containers if c.pool_id not in self._without_stats]
        found = await asyncio.gather(
            *(self._stats(c, transport, deadline) for c in asked), return_exceptions=True
        )
        pools: list[Pool] = []
        error: RuntimeClientError | None = None
        for outcome in found:
            if isinstance(outcome, Pool):
                pools.append(outcome)
            elif isinstance(outcome, RuntimeClientError):
                error = error or outcome
            elif outcome is not None:
                raise outcome
        return tuple(pools), bool(asked), error

    async def _stats(self, container: Container, transport: Transport, deadline: float) -> Pool | None:
        try:
            answer = await self._ask(transport, f"pool_stats://{container.pool_id}:local:stats", deadline)
        except QueryFailedError as error:
            if error.return_code == RC_POOL_NOT_FOUND:
                # Retired since the list was read: its series end now, and the list is read again next time.
                self._containers_at = None
                return None
            raise
        document = answer.sole_document()
        if document is None:
            self._without_stats.add(container.pool_id or "")
            return None
        return Pool(container, read_pool_stats(container.chimod_name or "", decode_document(document)))


class _Settler:
    """Records in a snapshot how asking a topic ended, and when."""

    def __init__(self, snapshot: NodeSnapshot, loop: asyncio.AbstractEventLoop, started: float) -> None:
        self._snapshot = snapshot
        self._loop = loop
        self._started = started

    async def __call__(self, job: Awaitable[bool], topic: Topic) -> None:
        """Await the job, which says whether it had to ask; its error, if any, is the topic's outcome."""
        try:
            asked = await job
        except RuntimeClientError as error:
            self.settled(error, topic)
        else:
            self.settled(None, topic, asked=asked)

    def settled(self, error: RuntimeClientError | None, *topics: Topic, asked: bool = True) -> None:
        """These topics ended now."""
        outcome = Outcome(error, self._loop.time() - self._started, asked)
        self._snapshot.outcomes = {**self._snapshot.outcomes, **dict.fromkeys(topics, outcome)}


def is_bdev(container: Container) -> bool:
    """Whether the pool is a block device or an array of them."""
    return (container.chimod_name or "").endswith("_bdev")


def _start_time(sample: SystemSample, identity: RuntimeIdentity | None) -> float | None:
    """Unix time of the runtime's start: known on its monotonic clock, which a sample relates to wall time."""
    if identity is None or sample.timestamp_ns is None or sample.wall_time_ns is None:
        return None
    return (sample.wall_time_ns - (sample.timestamp_ns - identity.start_ns)) / 1e9
