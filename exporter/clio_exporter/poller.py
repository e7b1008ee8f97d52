"""Asking one node: which queries, in which order, and what is remembered from one scrape to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from clio_client import Container, Pool, RuntimeIdentity, SystemSample, questions
from clio_client.errors import QueryFailedError, RuntimeClientError
from clio_client.membership import Member
from clio_client.questions import RING_ENTRIES, ContainerList
from clio_client.transport.interface import Transport
from clio_exporter.exposition import KeptTexts
from clio_exporter.peaks import RecentSamples
from clio_exporter.probe_targets import NO_NUMBER
from clio_exporter.slots import Slots
from clio_exporter.snapshot import NodeSnapshot, Topic, TopicResult
from clio_web.logs import get_logger
from clio_web.state_log import DefectLog

STALLED_AFTER_S: Final = 3.0
"""Without a new sample for this long, the cursor is checked against the ring, every ten seconds."""

STALLED_CHECK_S: Final = 10.0

HEAD_START_S: Final = 0.25
"""For this long a scrape's first question is the only one, so that its time is that of a round trip."""

STATE_TOPICS: Final = frozenset({Topic.SYSTEM, Topic.WORKERS})
"""Where not both are asked, the state is: a scrape of little must see the same nodes up as one of all."""

POOL_TOPICS: Final = frozenset({Topic.CONTAINERS, Topic.BDEVS, Topic.MODULES})
"""Topics that need the node's list of pools."""

_log = get_logger(__name__)
_defects = DefectLog(_log)


@dataclass(frozen=True, slots=True)
class PollOptions:
    """How nodes are asked.

    Attributes:
        timeout: seconds a node has for its answers, waiting for our own slots not counted.
        peak_window: seconds of samples kept for peaks.
        container_interval: seconds between two ``container_stats`` of a node.
    """

    timeout: float = 3.0
    peak_window: float = 60.0
    container_interval: float = 60.0


NODES_AT_ONCE: Final = 128
"""Nodes asked at the same time, so that a node's time is not spent on waiting for our own processor."""

LISTS_AT_ONCE: Final = 64
"""Nodes that may send their list of pools (45 KB) at the same time."""

RINGS_AT_ONCE: Final = 32
"""Nodes that may send their whole ring (0.3 MB) at the same time."""


class PollSlots:
    """How many nodes are asked at the same time, over all polls under way; and what all are asked first.

    What is large, and remembered from then on, is asked for when every node has been asked for what is
    small: where time is short, as at a cold start, all nodes are up and some lack samples of the system or
    of pools, instead of some lacking everything.
    """

    def __init__(self) -> None:
        self.small = Slots(NODES_AT_ONCE)
        self.lists = Slots(LISTS_AT_ONCE)
        self.rings = Slots(RINGS_AT_ONCE)


_Job = Callable[[float], Awaitable[bool | None]]
"""Something to ask, until a time of the loop's clock; where it is one question, whether it was answered."""


class NodePoller:
    """Asks one node and remembers its cursor, its recent samples and its pools.

    Lives on the client's event loop. Overlapping polls of one node are harmless: what is remembered
    is merged by event id.
    """

    def __init__(self, member: Member, options: PollOptions, slots: PollSlots) -> None:
        self.member = member
        self._options = options
        self._slots = slots
        self._reset(None)
        self._texts = KeptTexts()
        self._told_id_differs = False
        self._questions = 0

    def _reset(self, identity: RuntimeIdentity | None) -> None:
        self._identity = identity
        self._recent = RecentSamples(self._options.peak_window)
        self._newest_at = 0.0
        self._checked_at = 0.0
        self._start_time: float | None = None
        self._pool_list = ContainerList()
        self._containers_at: float | None = None
        self._without_stats: set[str] = set()

    def snapshot(self) -> NodeSnapshot:
        """An empty one, for the next scrape."""
        return NodeSnapshot(self.member, kept=self._texts)

    async def poll(
        self, snapshot: NodeSnapshot, transport: Transport, topics: frozenset[Topic], deadline: float
    ) -> None:
        """Ask everything ``topics`` needs; never raises, ``snapshot`` holds what went wrong.

        Others may read the snapshot meanwhile. What there was no time for until ``deadline`` is not in it.
        """
        loop = asyncio.get_running_loop()
        async with self._slots.small.hold():
            started = loop.time()
            if started >= deadline:
                return
            record = _TopicRecorder(snapshot, loop, started)
            until = min(deadline, started + self._options.timeout)
            remaining = await self._ask_small(snapshot, transport, topics, until, record)
            asked_seconds = loop.time() - started
        before = self._slots.small
        for slots, job in remaining:
            try:
                await before.queue_empty(deadline)
            except TimeoutError:
                return
            async with slots.hold():
                resumed = loop.time()
                await job(min(deadline, resumed + self._options.timeout - asked_seconds))
                asked_seconds += loop.time() - resumed
            before = slots
        snapshot.duration = asked_seconds

    async def _ask_small(
        self,
        snapshot: NodeSnapshot,
        transport: Transport,
        topics: frozenset[Topic],
        deadline: float,
        record: _TopicRecorder,
    ) -> list[tuple[Slots, _Job]]:
        """Connect and ask for what is small; returns what is to be asked then, and the slots for it."""
        try:
            session = await transport.session(self.member.address, deadline)
        except RuntimeClientError as error:
            snapshot.error = error
            return []
        if session.identity != self._identity:
            self._reset(session.identity)
        snapshot.session = session
        snapshot.questions = self._questions
        topics = snapshot.askable(topics)
        jobs: list[_Job] = []  # the first of them, a small one, is timed
        later: list[tuple[Slots, _Job]] = []
        if not topics >= snapshot.askable(STATE_TOPICS):
            jobs.append(lambda until: record(self._state(snapshot, transport, until)))
        if Topic.WORKERS in topics:
            jobs.append(lambda until: record(self._workers(snapshot, transport, until), Topic.WORKERS))
        if pool_topics := topics & POOL_TOPICS:

            def pools(until: float) -> Awaitable[None]:
                return self._pools(snapshot, transport, pool_topics, until, record)

            if self._pool_list_is_due:
                later.append((self._slots.lists, pools))
            else:
                jobs.append(pools)
        if Topic.SYSTEM in topics:

            def system(until: float) -> Awaitable[bool]:
                return record(self._system(snapshot, transport, until), Topic.SYSTEM)

            if self._recent.newest is None:
                later.append((self._slots.rings, system))
            else:
                jobs.append(system)
        await _first_alone(snapshot, jobs, deadline)
        return later

    def _asks(self, snapshot: NodeSnapshot) -> None:
        """Another question is about to be asked."""
        self._questions += 1
        snapshot.questions = self._questions

    # --- state and workers --------------------------------------------------------------------------

    async def _state(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        self._asks(snapshot)
        try:
            await questions.status(transport, self.member.address, deadline)
        except RuntimeClientError as error:
            snapshot.error = error
            raise
        snapshot.heard = True

    async def _workers(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        self._asks(snapshot)
        snapshot.workers = await questions.workers(transport, self.member.address, deadline)
        snapshot.heard = True

    # --- the 1 Hz ring ----------------------------------------------------------------------------

    async def _system(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        node = self.member.address
        fresh: tuple[SystemSample, ...] = ()
        if self._recent.newest is not None:
            since = self._recent.newest_id + 1
            self._asks(snapshot)
            fresh = await questions.samples(transport, node, deadline, since=since, last=self._kept)
        # Scrapes may be far apart: what counts is that nothing has come by now, not when last asked.
        stalled = now - self._newest_at > STALLED_AFTER_S and now - self._checked_at > STALLED_CHECK_S
        if not fresh and (self._recent.newest is None or stalled):
            self._checked_at = now
            self._asks(snapshot)
            fresh = await questions.samples(transport, node, deadline, last=self._kept)
            if (fresh[-1].event_id or 0 if fresh else -1) < self._recent.newest_id:
                # The ring is behind our cursor: another runtime, even if nothing else told us.
                self._reset(self._identity)
        if self._recent.add(fresh):
            self._newest_at = now
        newest = self._recent.newest
        if newest is not None:
            self._check_number(newest)
            if self._start_time is None:
                self._start_time = _start_time(newest, self._identity)
        snapshot.newest, snapshot.peaks = newest, self._recent.peaks()
        snapshot.start_time = self._start_time
        snapshot.heard = True

    @property
    def _kept(self) -> int:
        return min(RING_ENTRIES, int(self._options.peak_window) + 5)

    def _check_number(self, newest: SystemSample) -> None:
        if self._told_id_differs or self.member.node_id == NO_NUMBER:
            return
        if newest.node_id not in (None, self.member.node_id):
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
        record: _TopicRecorder,
    ) -> None:
        if await record.failed(self._refresh_containers(snapshot, transport, deadline), *topics):
            return
        jobs = []
        if Topic.CONTAINERS in topics:
            snapshot.containers = self._pool_list.containers
            record.ended(None, Topic.CONTAINERS)
        if Topic.BDEVS in topics:
            jobs.append(record(self._bdevs(snapshot, transport, deadline), Topic.BDEVS))
        if Topic.MODULES in topics:
            jobs.append(record(self._modules(snapshot, transport, deadline), Topic.MODULES))
        await asyncio.gather(*jobs)

    @property
    def _pool_list_is_due(self) -> bool:
        if self._containers_at is None:
            return True
        now = asyncio.get_running_loop().time()
        return now - self._containers_at >= self._options.container_interval

    async def _refresh_containers(
        self, snapshot: NodeSnapshot, transport: Transport, deadline: float
    ) -> None:
        if not self._pool_list_is_due:
            return
        now = asyncio.get_running_loop().time()
        known = self._pool_list
        self._asks(snapshot)
        found = await questions.containers(transport, self.member.address, deadline, known)
        if found is not known and {c.pool_id for c in found.containers} != {
            c.pool_id for c in known.containers
        }:
            self._without_stats.clear()
        self._pool_list = found
        self._containers_at = now
        snapshot.heard = True

    async def _bdevs(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        devices = [c for c in self._pool_list.containers if c.is_bdev]
        snapshot.bdevs, error = await self._stats_of(devices, snapshot, transport, deadline)
        if error is not None:
            raise error

    async def _modules(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        others = [c for c in self._pool_list.containers if not c.is_bdev and not c.is_admin]
        snapshot.modules, error = await self._stats_of(others, snapshot, transport, deadline)
        if error is not None:
            raise error

    async def _stats_of(
        self, containers: Iterable[Container], snapshot: NodeSnapshot, transport: Transport, deadline: float
    ) -> tuple[tuple[Pool, ...], RuntimeClientError | None]:
        """What the pools report, and the first error of those that failed."""
        asked = [c for c in containers if c.pool_id not in self._without_stats]
        found = await asyncio.gather(
            *(self._stats(c, snapshot, transport, deadline) for c in asked), return_exceptions=True
        )
        pools: list[Pool] = []
        error: RuntimeClientError | None = None
        for result in found:
            if isinstance(result, Pool):
                pools.append(result)
            elif isinstance(result, RuntimeClientError):
                error = error or result
            elif result is not None:
                raise result
        return tuple(pools), error

    async def _stats(
        self, container: Container, snapshot: NodeSnapshot, transport: Transport, deadline: float
    ) -> Pool | None:
        self._asks(snapshot)
        try:
            stats = await questions.pool_stats(transport, self.member.address, container, deadline)
        except QueryFailedError as error:
            if error.unknown_pool:
                # Retired since the list was read: its series end now, and the list is read again next time.
                self._containers_at = None
                return None
            raise
        snapshot.heard = True
        if stats is None:
            self._without_stats.add(container.pool_id or "")
            return None
        return Pool(container, stats)


async def _first_alone(snapshot: NodeSnapshot, jobs: Sequence[_Job], deadline: float) -> None:
    """Run the jobs until ``deadline``: the first, which is timed, has a head start of `HEAD_START_S` at most.

    No longer, so that one lost question does not cost the others their time.
    """
    loop = asyncio.get_running_loop()

    async def first() -> None:
        started = loop.time()
        if await jobs[0](deadline):
            snapshot.round_trip = loop.time() - started

    asking = loop.create_task(first())
    try:
        await asyncio.wait((asking,), timeout=HEAD_START_S)
        await asyncio.gather(asking, *(job(deadline) for job in jobs[1:]))
    finally:
        asking.cancel()


class _TopicRecorder:
    """Records in a snapshot how asking for topics ended, and when."""

    def __init__(self, snapshot: NodeSnapshot, loop: asyncio.AbstractEventLoop, started: float) -> None:
        self._snapshot = snapshot
        self._loop = loop
        self._started = started

    async def __call__(self, job: Awaitable[None], *topics: Topic) -> bool:
        """Await the job, by whose end the topics are known or have failed; whether they are known."""
        if await self.failed(job, *topics):
            return False
        self.ended(None, *topics)
        return True

    async def failed(self, job: Awaitable[None], *topics: Topic) -> bool:
        """Await the job; whether it failed, and so the topics."""
        try:
            await job
        except RuntimeClientError as error:
            self.ended(error, *topics)
        except Exception as defect:  # noqa: BLE001 - ours, met by this node's answer: others keep their samples
            target = self._snapshot.member.target
            _defects.report(defect, "a node's answer could not be handled", node=target)
            lost = RuntimeClientError(f"{target}: answer could not be handled: {defect!r}")
            self.ended(lost, *topics)
        else:
            return False
        return True

    def ended(self, error: RuntimeClientError | None, *topics: Topic) -> None:
        """These topics ended now."""
        result = TopicResult(error, self._loop.time() - self._started)
        self._snapshot.results = {**self._snapshot.results, **dict.fromkeys(topics, result)}


def _start_time(sample: SystemSample, identity: RuntimeIdentity | None) -> float | None:
    """Unix time of the runtime's start: known on its monotonic clock, which a sample relates to wall time."""
    if identity is None or sample.timestamp_ns is None or sample.wall_time_ns is None:
        return None
    return (sample.wall_time_ns - (sample.timestamp_ns - identity.start_ns)) / 1e9
