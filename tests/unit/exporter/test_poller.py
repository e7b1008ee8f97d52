"""Asking one node: what is asked anew, what is remembered, what is forgotten."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from clio_client import questions
from clio_client.errors import HungError, MalformedAnswerError, QueryFailedError, RefusedError
from clio_client.protocol.codec import RuntimeIdentity
from clio_exporter.poller import NodePoller, PollOptions, PollSlots
from clio_exporter.settings import CollectorSettings
from clio_exporter.snapshot import NodeSnapshot, Topic
from tests.unit import recorded
from tests.unit.memory_transport import MemoryNode, MemoryTransport, member

ALL = frozenset(Topic)
STATE_QUERY = "get_host_info"


class Bench:
    """One node and its poller on one event loop, whose clock the test can move on."""

    def __init__(self, node: MemoryNode, **options: float) -> None:
        self.node = node
        self.transport = MemoryTransport({"n0": node})
        self._runner = asyncio.Runner() if hasattr(asyncio, "Runner") else None
        self._loop = self._runner.get_loop() if self._runner else asyncio.new_event_loop()
        real = self._loop.time
        self.ahead = 0.0
        self._loop.time = lambda: real() + self.ahead  # type: ignore[method-assign]
        self.poller = NodePoller(member(), PollOptions(**options), PollSlots())

    def poll(self, topics: frozenset[Topic] = ALL, into: NodeSnapshot | None = None) -> NodeSnapshot:
        self.node.asked.clear()

        async def ask() -> NodeSnapshot:
            deadline = asyncio.get_running_loop().time() + 5
            snapshot = into or NodeSnapshot(self.poller.member)
            await self.poller.poll(snapshot, self.transport, topics, deadline)
            return snapshot

        return self._loop.run_until_complete(ask())

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop.call_later(seconds, call)

    def close(self) -> None:
        self._runner.close() if self._runner else self._loop.close()


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Any:
    benches: list[Bench] = []

    def make(node: MemoryNode | None = None, **options: float) -> Bench:
        benches.append(Bench(node or MemoryNode(), **options))
        return benches[-1]

    yield make
    for each in benches:
        each.close()


MakeBench = Callable[..., Bench]


def sample(event: int, cpu: float = 10.0, **fields: Any) -> dict[str, Any]:
    second = 1_000_000_000
    return {
        "event_id": event, "timestamp_ns": (100 + event) * second,
        "wall_time_ns": (1_700_000_000 + event) * second, "cpu_usage_pct": cpu, "node_id": 0, **fields,
    }  # fmt: skip


@pytest.mark.parametrize("version", recorded.versions())
def test_every_version_answers_every_topic(bench: MakeBench, version: str) -> None:
    snapshot = bench(MemoryNode(version)).poll()
    assert {t: o.error for t, o in snapshot.results.items()} == dict.fromkeys(ALL)
    assert snapshot.up
    assert snapshot.failure is None
    assert snapshot.duration is not None
    assert len(snapshot.workers) == len(recorded.decoded(version, "worker_stats"))
    newest = recorded.decoded(version, "system_stats_0")[-1]
    assert snapshot.newest is not None
    assert snapshot.newest.event_id == newest["event_id"]
    assert "301.0" in {pool.container.pool_id for pool in snapshot.bdevs}
    assert len(snapshot.containers) == len(recorded.decoded(version, "container_stats"))


def test_only_what_is_wanted_is_asked_and_whether_the_node_lives(bench: MakeBench) -> None:
    b = bench()
    b.poll(frozenset({Topic.WORKERS}))
    assert sorted(b.node.asked) == [STATE_QUERY, "worker_stats"]
    b.poll(frozenset({Topic.SYSTEM}))
    assert sorted(b.node.asked) == [STATE_QUERY, "system_stats:0"]
    b.poll(frozenset({Topic.CONTAINERS}))
    assert sorted(b.node.asked) == ["container_stats", STATE_QUERY]
    b.poll(frozenset({Topic.CONTAINERS}))
    assert b.node.asked == [STATE_QUERY]
    b.poll()
    assert STATE_QUERY not in b.node.asked
    assert not any("bdev_stats" in query for query in b.node.asked)


@pytest.mark.parametrize("version", ["2.3.2", "1.0.3"])
def test_what_is_remembered_says_nothing_of_the_state(bench: MakeBench, version: str) -> None:
    answers = {"worker_stats": [{"worker_id": 0}]} if version == "1.0.3" else {}
    b = bench(MemoryNode(version, answers=answers))
    pools = frozenset({Topic.CONTAINERS})
    assert b.poll(pools).up
    b.node.answers = dict.fromkeys((STATE_QUERY, "worker_stats"), HungError("hung"))
    snapshot = b.poll(pools)
    assert not snapshot.up
    assert isinstance(snapshot.failure, HungError)
    assert snapshot.pools == ()


@pytest.mark.parametrize(
    ("topics", "first"),
    [
        (ALL, "worker_stats"),
        (frozenset({Topic.SYSTEM, Topic.BDEVS}), STATE_QUERY),
        (frozenset({Topic.WORKERS}), STATE_QUERY),
        (frozenset[Topic](), STATE_QUERY),
    ],
)
def test_the_round_trip_is_that_of_one_small_question(
    bench: MakeBench, topics: frozenset[Topic], first: str
) -> None:
    b = bench()
    for _ in range(2):
        snapshot = b.poll(topics)
        assert b.node.asked[0] == first
        assert snapshot.round_trip is not None
        assert snapshot.duration is not None
        assert 0 < snapshot.round_trip <= snapshot.duration


def test_the_first_question_is_asked_alone(bench: MakeBench) -> None:
    gate = threading.Event()
    node = MemoryNode(gate=gate, gated=frozenset({"worker_stats"}))
    b = bench(node)
    asked_meanwhile: list[list[str]] = []

    def release() -> None:
        asked_meanwhile.append(list(node.asked))
        gate.set()

    b.later(0.05, release)
    snapshot = b.poll()
    assert asked_meanwhile == [["worker_stats"]]
    assert snapshot.round_trip is not None
    assert snapshot.round_trip >= 0.05


def test_a_first_question_that_is_lost_does_not_cost_the_others(bench: MakeBench) -> None:
    node = MemoryNode(gate=threading.Event(), gated=frozenset({"worker_stats"}))
    snapshot = bench(node, timeout=1.0).poll()
    assert snapshot.up
    assert snapshot.bdevs
    assert snapshot.newest is not None
    assert isinstance(snapshot.results[Topic.WORKERS].error, HungError)
    assert snapshot.round_trip is None


def test_what_is_answered_is_known_while_other_questions_are_not(bench: MakeBench) -> None:
    node = MemoryNode()
    b = bench(node)
    b.poll()
    node.gate, node.gated = threading.Event(), frozenset({"pool_stats://512.1:local:stats"})
    snapshot = NodeSnapshot(b.poller.member)
    known: list[set[Topic]] = []

    def look() -> None:
        known.append(set(snapshot.results))
        assert node.gate is not None
        node.gate.set()

    b.later(0.1, look)
    b.poll(into=snapshot)
    assert known == [ALL - {Topic.BDEVS}]
    assert set(snapshot.results) == ALL
    assert {pool.container.pool_id for pool in snapshot.bdevs} == {"301.0", "512.1", "513.1"}


@pytest.mark.parametrize("answer", [1, b"\xc1"])
def test_a_first_question_that_fails_has_no_round_trip(bench: MakeBench, answer: int | bytes) -> None:
    snapshot = bench(MemoryNode(answers={"worker_stats": answer})).poll()
    assert snapshot.round_trip is None
    assert snapshot.up


def test_a_ring_that_stands_still_is_looked_at_while_another_question_hangs(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i) for i in range(50)])
    b = bench(node, timeout=0.5)
    b.poll()
    b.ahead += 30
    node.gate, node.gated = threading.Event(), frozenset({"pool_stats://512.1:local:stats"})
    snapshot = b.poll()
    assert "system_stats:0" in node.asked
    assert snapshot.results[Topic.SYSTEM].error is None
    assert isinstance(snapshot.results[Topic.BDEVS].error, HungError)
    assert {pool.container.pool_id for pool in snapshot.bdevs} == {"301.0", "513.1"}


def test_a_ring_that_stands_still_and_hangs_costs_its_topic_only(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i) for i in range(50)])
    b = bench(node, timeout=0.5)
    b.poll()
    b.ahead += 30
    node.gate, node.gated = threading.Event(), frozenset({"system_stats:0"})
    snapshot = b.poll()
    failed = {topic for topic, result in snapshot.results.items() if result.error is not None}
    assert failed == {Topic.SYSTEM}


def test_what_was_learned_does_not_wait_for_the_garbage_collector(bench: MakeBench) -> None:
    """Of a thousand nodes that would be the answers of several scrapes in memory."""
    b = bench()
    b.poll()
    gc.collect()
    gc.disable()
    try:
        b.poll()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [kept for kept in gc.garbage if isinstance(kept, NodeSnapshot)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_questions_are_counted_over_scrapes(bench: MakeBench) -> None:
    b = bench()
    total = 0
    for _ in range(3):
        snapshot = b.poll()
        total += len(b.node.asked)
        assert snapshot.questions == total


def test_generation_z_is_asked_for_workers_only(bench: MakeBench) -> None:
    b = bench(MemoryNode("1.0.3", answers={"worker_stats": [{"worker_id": 0}]}))
    snapshot = b.poll()
    assert b.node.asked == ["worker_stats"]
    assert set(snapshot.results) == {Topic.WORKERS}
    assert snapshot.up


# --- the ring --------------------------------------------------------------------------------------------


def test_the_cursor_asks_for_what_is_new_only(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i) for i in range(8)])
    b = bench(node)
    assert b.poll().newest.event_id == 7  # type: ignore[union-attr]
    assert "system_stats:0" in node.asked
    node.samples += [sample(8), sample(9)]  # type: ignore[operator]
    assert b.poll().newest.event_id == 9  # type: ignore[union-attr]
    assert "system_stats:8" in node.asked
    snapshot = b.poll()
    assert "system_stats:10" in node.asked
    assert snapshot.newest is not None  # nothing new: the newest is still the newest
    assert snapshot.newest.event_id == 9
    assert snapshot.answered(Topic.SYSTEM)


def test_the_cursor_serves_scrapes_that_are_far_apart(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i) for i in range(8)])
    b = bench(node)
    b.poll()
    for newest in (38, 68):
        b.ahead += 30
        node.samples += [sample(i) for i in range(newest - 30, newest)]  # type: ignore[operator]
        assert b.poll().newest.event_id == newest - 1  # type: ignore[union-attr]
        assert [query for query in node.asked if "system_stats" in query] == [f"system_stats:{newest - 30}"]


def test_first_contact_decodes_the_tail_only(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    real = questions.decode_tail

    def count(document: bytes, keep: int) -> list[Any]:
        found = real(document, keep)
        kept.append(len(found))
        return found

    monkeypatch.setattr(questions, "decode_tail", count)
    b = bench(MemoryNode(samples=[sample(i) for i in range(1024)]), peak_window=30)
    assert b.poll().newest.event_id == 1023  # type: ignore[union-attr]
    assert 30 <= kept[0] <= 40


def test_what_is_kept_unless_it_is_said_otherwise() -> None:
    options, collectors = PollOptions(), CollectorSettings()
    assert options.peak_window == collectors.node_peak_window_seconds == 60
    assert (options.timeout, options.container_interval) == (3.0, 60.0)


def test_a_spike_between_two_scrapes_is_kept_for_the_window(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i, ram_available_bytes=50) for i in range(10)])
    b = bench(node, peak_window=60)
    assert b.poll().peaks.cpu_usage_pct == 10
    node.samples += [sample(10, 99.0, ram_available_bytes=7), sample(11, ram_available_bytes=50)]  # type: ignore[operator]
    snapshot = b.poll()
    assert snapshot.newest is not None
    assert snapshot.newest.cpu_usage_pct == 10
    assert snapshot.peaks.cpu_usage_pct == 99
    assert snapshot.peaks.ram_available_low_bytes == 7
    node.samples += [sample(i) for i in range(12, 71)]  # type: ignore[operator]
    assert b.poll().peaks.cpu_usage_pct == 99  # 60 s ago: just inside
    node.samples += [sample(71)]  # type: ignore[operator]
    snapshot = b.poll()
    assert snapshot.peaks.cpu_usage_pct == 10
    assert snapshot.peaks.ram_available_low_bytes == 50


def test_samples_without_time_do_not_pile_up(bench: MakeBench) -> None:
    rows = [{"event_id": i, "cpu_usage_pct": 99.0 if i == 0 else 1.0} for i in range(30)]
    node = MemoryNode(samples=rows[:1])
    b = bench(node, peak_window=10)
    assert b.poll().peaks.cpu_usage_pct == 99
    for end in range(2, 31):
        node.samples = rows[:end]
        snapshot = b.poll()
    assert snapshot.peaks.cpu_usage_pct == 1
    assert snapshot.start_time is None


def test_a_restart_is_seen_by_identity(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i, 99.0) for i in range(50)])
    b = bench(node)
    first = b.poll()
    assert first.start_time == pytest.approx(1_700_000_000 - 100 + 1, rel=0, abs=0.01)
    node.identity = RuntimeIdentity(90_000_000_000, 4712)
    node.samples = [sample(i, 5.0) for i in range(60)]  # the ids overlap
    snapshot = b.poll()
    assert "system_stats:0" in node.asked
    assert snapshot.peaks.cpu_usage_pct == 5
    assert "container_stats" in node.asked
    assert snapshot.start_time == pytest.approx(first.start_time + 89, rel=0, abs=0.01)


def test_a_restart_nothing_tells_of_is_seen_by_the_ring(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i, 99.0) for i in range(50)], identity=None)
    b = bench(node)
    b.poll()
    node.samples = [sample(i, 5.0) for i in range(3)]
    snapshot = b.poll()
    assert snapshot.newest is not None
    assert snapshot.newest.event_id == 49  # not yet known
    b.ahead += 30  # no new sample for long: the whole ring is looked at
    snapshot = b.poll()
    assert "system_stats:0" in node.asked
    assert snapshot.newest is not None
    assert snapshot.newest.event_id == 2
    assert snapshot.peaks.cpu_usage_pct == 5


def test_a_restart_nothing_tells_of_is_seen_however_often_one_asks(bench: MakeBench) -> None:
    """Scrapes that are closer together than what counts as standing still."""
    node = MemoryNode(samples=[sample(i) for i in range(50)], identity=None)
    b = bench(node)
    b.poll()
    node.samples = [sample(i) for i in range(3)]
    found = []
    for _ in range(7):
        b.ahead += 2
        newest = b.poll().newest
        found.append(None if newest is None else newest.event_id)
    assert found[0] == 49
    assert found[-1] == 2


@pytest.mark.parametrize(("before", "after"), [(1, 0), (50, 0), (2, 1)])
def test_a_ring_that_has_less_than_before_is_another_runtimes(
    bench: MakeBench, before: int, after: int
) -> None:
    node = MemoryNode(samples=[sample(i, 99.0) for i in range(before)], identity=None)
    b = bench(node)
    b.poll()
    b.ahead += 30
    node.samples = [sample(i, 5.0) for i in range(after)]
    snapshot = b.poll()
    assert (snapshot.newest is None) == (after == 0)
    assert snapshot.peaks.cpu_usage_pct == (5 if after else None)
    b.poll()
    assert "container_stats" in node.asked


def test_an_empty_ring_is_no_reason_to_forget(bench: MakeBench) -> None:
    node = MemoryNode(samples=[])
    b = bench(node)
    b.poll()
    b.ahead += 30
    snapshot = b.poll()
    assert snapshot.newest is None
    assert "container_stats" not in node.asked


def test_another_number_is_told_once(bench: MakeBench, capsys: pytest.CaptureFixture[str]) -> None:
    node = MemoryNode(samples=[sample(0, node_id=0)])
    b = bench(node)
    b.poll()
    node.samples = [sample(i, node_id=None) for i in range(2)]
    b.poll()
    assert "differently" not in capsys.readouterr().out
    for end in (3, 4):
        node.samples = [sample(i, node_id=3) for i in range(end)]
        b.poll()
    assert capsys.readouterr().out.count("differently") == 1


def test_a_ring_that_stands_still_is_not_fetched_at_every_scrape(bench: MakeBench) -> None:
    node = MemoryNode(samples=[sample(i) for i in range(50)])
    b = bench(node)
    b.poll()
    b.ahead += 30
    b.poll()
    assert "system_stats:0" in node.asked
    b.ahead += 5
    b.poll()
    assert "system_stats:50" in node.asked
    assert "system_stats:0" not in node.asked


# --- pools -----------------------------------------------------------------------------------------------


def test_the_list_of_pools_is_kept_for_the_interval(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = questions.read_containers
    monkeypatch.setattr(questions, "read_containers", lambda raw: decoded.append(1) or real(raw))
    b = bench(container_interval=60)
    first = b.poll()
    assert b.node.count("container_stats") == 1
    assert len(decoded) == 1
    b.ahead += 59
    again = b.poll()
    assert b.node.count("container_stats") == 0
    assert again.containers == first.containers
    b.ahead += 2
    b.poll()
    assert b.node.count("container_stats") == 1
    assert len(decoded) == 1  # the same bytes are not decoded again


def test_a_retired_pool_ends_and_the_list_is_read_again(bench: MakeBench) -> None:
    node = MemoryNode()
    b = bench(node)
    b.poll()
    node.answers["pool_stats://301.0:local:stats"] = 3
    snapshot = b.poll()
    assert "301.0" not in {p.container.pool_id for p in snapshot.bdevs}
    assert {p.container.pool_id for p in snapshot.bdevs} == {"512.1", "513.1"}
    assert snapshot.answered(Topic.BDEVS)
    rows = recorded.decoded("2.3.2", "container_stats")
    node.answers["container_stats"] = [row for row in rows if row["pool_id"] != "301.0"]
    snapshot = b.poll()
    assert node.count("container_stats") == 1
    assert node.count("pool_stats://301.0:local:stats") == 0
    assert "301.0" not in {c.pool_id for c in snapshot.containers}


def test_pools_without_statistics_are_not_asked_again_until_the_list_changes(bench: MakeBench) -> None:
    b = bench(container_interval=0)
    first = b.poll()
    silent = [q for q in b.node.asked if q.startswith("pool_stats://560.0")]
    assert len(silent) == 1
    assert {p.container.pool_id for p in first.modules} == {"512.0"}
    again = b.poll()
    asked = {q for q in b.node.asked if q.startswith("pool_stats://")}
    assert asked == {f"pool_stats://{p}:local:stats" for p in ("301.0", "512.0", "512.1", "513.1")}
    assert again.modules == first.modules
    rows = recorded.decoded("2.3.2", "container_stats")
    b.node.answers["container_stats"] = [*rows, {**rows[0], "pool_id": "900.0"}]
    b.poll()
    assert "pool_stats://560.0:local:stats" in b.node.asked


def test_the_admin_pool_is_never_asked_for_statistics(bench: MakeBench) -> None:
    b = bench()
    b.poll()
    assert "pool_stats://1.0:local:stats" not in b.node.asked


# --- failures ---------------------------------------------------------------------------------------------


def test_a_node_that_is_down_is_not_asked(bench: MakeBench) -> None:
    b = bench(MemoryNode(down=RefusedError("refused")))
    snapshot = b.poll()
    assert b.node.asked == []
    assert not snapshot.up
    assert isinstance(snapshot.failure, RefusedError)
    assert snapshot.duration is not None
    assert snapshot.results == {}


@pytest.mark.parametrize(
    ("query", "answer", "topics", "error"),
    [
        ("worker_stats", {"no": "array"}, {Topic.WORKERS}, MalformedAnswerError),
        ("worker_stats", b"\xc1", {Topic.WORKERS}, MalformedAnswerError),
        ("worker_stats", 4294966296, {Topic.WORKERS}, QueryFailedError),
        ("worker_stats", HungError("hung"), {Topic.WORKERS}, HungError),
        ("system_stats:0", b"\xc1", {Topic.SYSTEM}, MalformedAnswerError),
        ("container_stats", 1, {Topic.CONTAINERS, Topic.BDEVS, Topic.MODULES}, QueryFailedError),
        ("pool_stats://512.1:local:stats", 2, {Topic.BDEVS}, QueryFailedError),
        ("pool_stats://512.0:local:stats", [], {Topic.MODULES}, MalformedAnswerError),
    ],
)
def test_what_fails_costs_its_topic_only(
    bench: MakeBench, query: str, answer: Any, topics: set[Topic], error: type[Exception]
) -> None:
    snapshot = bench(MemoryNode(answers={query: answer})).poll()
    failed = {topic: o.error for topic, o in snapshot.results.items() if o.error is not None}
    assert set(failed) == topics
    assert all(isinstance(e, error) for e in failed.values())
    assert set(snapshot.results) == ALL
    assert snapshot.up


def test_an_answer_without_a_result_is_malformed(bench: MakeBench) -> None:
    node = MemoryNode()
    b = bench(node)
    node.version = "none-recorded"
    snapshot = b.poll()
    assert not snapshot.up
    assert "was answered without a result" in str(snapshot.failure)


def test_a_defect_of_ours_costs_one_topic_of_one_node(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(raw: object) -> list[Any]:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(questions, "read_workers", broken)
    snapshot = bench().poll()
    assert "a defect" in str(snapshot.results[Topic.WORKERS].error)
    assert snapshot.results[Topic.SYSTEM].error is None
    assert snapshot.results[Topic.BDEVS].error is None
    assert snapshot.duration is not None
