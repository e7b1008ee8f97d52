"""Asking one node: which queries, in which order, and what is remembered from one scrape to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from clio_client import (
    Container,
    Generation,
    Pool,
    PoolStats,
    RuntimeIdentity,
    SystemSample,
    WorkerStats,
    questions,
)
from clio_client.errors import QueryFailedError, RuntimeClientError
from clio_client.membership import Member
from clio_client.questions import RING_ENTRIES, ContainerList, Question
from clio_client.transport.interface import Asked, MonitorAnswer, Transport
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


_T = TypeVar("_T")

_Job = Callable[[float], Awaitable[object]]
"""Something to ask later, until a time of the loop's clock."""

_Ended = Callable[[RuntimeClientError | None], None]
"""Called when a question has ended, with why it failed."""


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
        asked = _Questions(self, snapshot, record)
        later: list[tuple[Slots, _Job]] = []
        # The first of them, a small one, is timed.
        if not topics >= snapshot.askable(STATE_TOPICS):
            self._add_state(asked, snapshot)
        if Topic.WORKERS in topics:
            self._add_workers(asked, snapshot)
        if pool_topics := topics & POOL_TOPICS:
            if self._pool_list_is_due:
                later.append(
                    (self._slots.lists, partial(self._pools, snapshot, transport, pool_topics, record))
                )
            else:
                self._add_pools(asked, snapshot, pool_topics)
        if Topic.SYSTEM in topics:
            if self._recent.newest is None:
                later.append(
                    (
                        self._slots.rings,
                        lambda until: record(self._ring(snapshot, transport, until), Topic.SYSTEM),
                    )
                )
            else:
                self._add_system(asked, snapshot, transport, deadline)
        await asked.ask(transport, deadline, first_alone=True)
        return later

    def asks(self, snapshot: NodeSnapshot, questions: int = 1) -> None:
        """So many questions more are about to be asked."""
        self._questions += questions
        snapshot.questions = self._questions

    # --- state and workers --------------------------------------------------------------------------

    def _add_state(self, asked: _Questions, snapshot: NodeSnapshot) -> None:
        def heard(_: object) -> None:
            snapshot.heard = True

        def ended(error: RuntimeClientError | None) -> None:
            snapshot.error = error

        if snapshot.session is not None and snapshot.session.generation is Generation.Z:
            asked.add(questions.workers_question(), heard, ended)
        else:
            asked.add(questions.host_info_question(), heard, ended)

    def _add_workers(self, asked: _Questions, snapshot: NodeSnapshot) -> None:
        def found(workers: tuple[WorkerStats, ...]) -> None:
            snapshot.workers = workers
            snapshot.heard = True

        asked.add(questions.workers_question(), found, asked.record.of(Topic.WORKERS))

    # --- the 1 Hz ring ----------------------------------------------------------------------------

    def _add_system(
        self, asked: _Questions, snapshot: NodeSnapshot, transport: Transport, deadline: float
    ) -> None:
        now = asyncio.get_running_loop().time()
        # Scrapes may be far apart: what counts is that nothing has come by now, not when last asked.
        stalled = now - self._newest_at > STALLED_AFTER_S and now - self._checked_at > STALLED_CHECK_S

        def found(fresh: tuple[SystemSample, ...]) -> Coroutine[Any, Any, None] | None:
            if not fresh and stalled:
                return self._ring(snapshot, transport, deadline)
            self._take(snapshot, fresh, now)
            return None

        question = questions.samples_question(self._recent.newest_id + 1, self._kept)
        asked.add(question, found, asked.record.of(Topic.SYSTEM))

    async def _ring(self, snapshot: NodeSnapshot, transport: Transport, deadline: float) -> None:
        """Ask for the whole ring: at first, and when it seems to stand still."""
        now = self._checked_at = asyncio.get_running_loop().time()
        self.asks(snapshot)
        found = await questions.samples(transport, self.member.address, deadline, last=self._kept)
        if (found[-1].event_id or 0 if found else -1) < self._recent.newest_id:
            # The ring is behind our cursor: another runtime, even if nothing else told us.
            self._reset(self._identity)
        self._take(snapshot, found, now)

    def _take(self, snapshot: NodeSnapshot, fresh: tuple[SystemSample, ...], asked_at: float) -> None:
        if self._recent.add(fresh):
            self._newest_at = asked_at
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
        record: _TopicRecorder,
        deadline: float,
    ) -> None:
        """Ask for the list of pools, and then for what they report."""
        if await record.failed(self._refresh_containers(snapshot, transport, deadline), *topics):
            return
        asked = _Questions(self, snapshot, record)
        self._add_pools(asked, snapshot, topics)
        await asked.ask(transport, deadline)

    def _add_pools(self, asked: _Questions, snapshot: NodeSnapshot, topics: frozenset[Topic]) -> None:
        """The questions for what the pools of the list report."""
        pools = self._pool_list.containers
        if Topic.CONTAINERS in topics:
            snapshot.containers = pools
            asked.record.ended(None, Topic.CONTAINERS)
        if Topic.BDEVS in topics:

            def devices(found: tuple[Pool, ...]) -> None:
                snapshot.bdevs = found

            self._add_stats(asked, snapshot, [c for c in pools if c.is_bdev], devices, Topic.BDEVS)
        if Topic.MODULES in topics:

            def others(found: tuple[Pool, ...]) -> None:
                snapshot.modules = found

            modules = [c for c in pools if not c.is_bdev and not c.is_admin]
            self._add_stats(asked, snapshot, modules, others, Topic.MODULES)

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
        self.asks(snapshot)
        found = await questions.containers(transport, self.member.address, deadline, known)
        if found is not known and {c.pool_id for c in found.containers} != {
            c.pool_id for c in known.containers
        }:
            self._without_stats.clear()
        self._pool_list = found
        self._containers_at = now
        snapshot.heard = True

    def _add_stats(
        self,
        asked: _Questions,
        snapshot: NodeSnapshot,
        containers: Sequence[Container],
        found: Callable[[tuple[Pool, ...]], None],
        topic: Topic,
    ) -> None:
        """A question for each pool; when all have ended, ``found`` is called, and the topic recorded."""
        wanted = [c for c in containers if c.pool_id not in self._without_stats]
        reports: dict[int, Pool] = {}
        errors: dict[int, RuntimeClientError] = {}
        left = len(wanted)

        def complete() -> None:
            found(tuple(reports[place] for place in sorted(reports)))
            asked.record.ended(errors[min(errors)] if errors else None, topic)

        def add(place: int, container: Container) -> None:
            def reported(stats: PoolStats | None) -> None:
                snapshot.heard = True
                if stats is None:
                    self._without_stats.add(container.pool_id or "")
                else:
                    reports[place] = Pool(container, stats)

            def ended(error: RuntimeClientError | None) -> None:
                nonlocal left
                left -= 1
                if isinstance(error, QueryFailedError) and error.unknown_pool:
                    # Retired since the list was read: its series end, and the list is read again next time.
                    self._containers_at = None
                elif error is not None:
                    errors[place] = error
                if not left:
                    complete()

            asked.add(questions.pool_stats_question(container), reported, ended)

        for place, container in enumerate(wanted):
            add(place, container)
        if not wanted:
            complete()


class _Questions:
    """What one node is asked together, and what is done with each answer, as soon as it comes."""

    def __init__(self, poller: NodePoller, snapshot: NodeSnapshot, record: _TopicRecorder) -> None:
        self.record = record
        self._poller = poller
        self._snapshot = snapshot
        self._asked: list[Asked] = []
        self._more: list[asyncio.Task[None]] = []
        self._timed_since: float | None = None

    def add(
        self, question: Question[_T], use: Callable[[_T], Coroutine[Any, Any, None] | None], ended: _Ended
    ) -> None:
        """Another question: ``use`` takes the answer, and returns what else there is to do for it, if any.

        ``ended`` is called when all of that is done or has failed.
        """
        node = self._snapshot.member.address
        first = not self._asked

        def answered(answer: MonitorAnswer | Exception) -> None:
            if isinstance(answer, Exception):
                ended(self.record.reported(answer))
                return
            try:
                more = use(question.answer(node, answer))
            except Exception as error:  # noqa: BLE001 - a defect must not cost others their samples
                ended(self.record.reported(error))
                return
            if first and self._timed_since is not None:
                self._snapshot.round_trip = asyncio.get_running_loop().time() - self._timed_since
            if more is None:
                ended(None)
            else:
                self._more.append(asyncio.get_running_loop().create_task(self._finish(more, ended)))

        self._asked.append((question.query, answered))

    async def ask(self, transport: Transport, deadline: float, *, first_alone: bool = False) -> None:
        """Ask all of them; with ``first_alone`` the first is timed, and has a head start of `HEAD_START_S`.

        No longer, so that one lost question does not cost the others their time.
        """
        if not self._asked:
            return
        self._poller.asks(self._snapshot, len(self._asked))
        self._timed_since = asyncio.get_running_loop().time() if first_alone else None
        try:
            node = self._snapshot.member.address
            await transport.monitor_all(
                node, self._asked, deadline, head_start=HEAD_START_S if first_alone else 0.0
            )
            if self._more:
                await asyncio.gather(*self._more)
        finally:
            # What they call leads back here: without this all answers would wait for the garbage collector.
            self._asked.clear()
            for task in self._more:
                task.cancel()

    async def _finish(self, more: Coroutine[Any, Any, None], ended: _Ended) -> None:
        try:
            await more
        except Exception as error:  # noqa: BLE001 - as for an answer
            ended(self.record.reported(error))
        else:
            ended(None)


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
        except Exception as error:  # noqa: BLE001 - a defect must not cost others their samples
            self.ended(self.reported(error), *topics)
            return True
        return False

    def reported(self, error: Exception) -> RuntimeClientError:
        """The error as a node's; one that is none is a defect of ours, met by its answer, and logged."""
        if isinstance(error, RuntimeClientError):
            return error
        target = self._snapshot.member.target
        _defects.report(error, "a node's answer could not be handled", node=target)
        return RuntimeClientError(f"{target}: answer could not be handled: {error!r}")

    def of(self, topic: Topic) -> _Ended:
        """What is called when the only question of a topic has ended."""
        return partial(self._one_ended, topic)

    def _one_ended(self, topic: Topic, error: RuntimeClientError | None) -> None:
        self.ended(error, topic)

    def ended(self, error: RuntimeClientError | None, *topics: Topic) -> None:
        """These topics ended now."""
        result = TopicResult(error, self._loop.time() - self._started)
        self._snapshot.results = {**self._snapshot.results, **dict.fromkeys(topics, result)}


def _start_time(sample: SystemSample, identity: RuntimeIdentity | None) -> float | None:
    """Unix time of the runtime's start: known on its monotonic clock, which a sample relates to wall time."""
    if identity is None or sample.timestamp_ns is None or sample.wall_time_ns is None:
        return None
    return (sample.wall_time_ns - (sample.timestamp_ns - identity.start_ns)) / 1e9
