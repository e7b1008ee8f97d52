"""Requests in flight: the limit, and what becomes of requests nobody answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from clio_client.errors import ConnectionLostError
from clio_client.transport import requests
from clio_client.transport.requests import InFlight, RequestCounter

SOON = 0.01
BOUND = 10.0


class Bench:
    """An InFlight on a running loop."""

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.registry: dict[int, InFlight] = {}
        self.flights = InFlight(self.loop, limit, self.registry)

    def add(self, request_id: int, seconds: float = BOUND) -> asyncio.Future[bytes]:
        return self.flights.add(request_id, self.loop.time() + seconds)

    async def overdue(self, request_id: int) -> None:
        with pytest.raises(TimeoutError):
            await self.add(request_id, SOON)

    def wait_for_slot(self, seconds: float = BOUND) -> asyncio.Task[None]:
        return self.loop.create_task(self.flights.slot(self.loop.time() + seconds))

    async def turns(self) -> None:
        """Let everything that can run now run."""
        for _ in range(5):
            await asyncio.sleep(0)


def on_loop(limit: int) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[], None]]:
    def decorate(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
        async def body() -> None:
            await test(Bench(limit))

        def run() -> None:
            asyncio.run(asyncio.wait_for(body(), 30))

        run.__name__ = test.__name__
        return run

    return decorate


@on_loop(4)
async def test_answers_find_their_requests_in_any_order(bench: Bench) -> None:
    futures = {i: bench.add(i) for i in (1, 2, 3)}
    assert bench.registry == dict.fromkeys((1, 2, 3), bench.flights)
    for i in (3, 1, 2):
        assert bench.flights.answered(i, b"%d" % i)
    assert {i: await f for i, f in futures.items()} == {1: b"1", 2: b"2", 3: b"3"}
    assert len(bench.flights) == 0
    assert bench.registry == {}


@on_loop(2)
async def test_no_more_than_the_limit_is_let_through(bench: Bench) -> None:
    for i in (1, 2):
        await bench.flights.slot(bench.loop.time() + BOUND)
        bench.add(i)
    third, fourth = bench.wait_for_slot(), bench.wait_for_slot()
    await bench.turns()
    assert not third.done()
    bench.flights.answered(1, b"")
    await third
    bench.add(3)
    await bench.turns()
    assert not fourth.done()
    bench.flights.answered(2, b"")
    await fourth


@on_loop(1)
async def test_waiting_for_a_slot_ends_at_the_deadline(bench: Bench) -> None:
    bench.add(1)
    with pytest.raises(TimeoutError):
        await bench.wait_for_slot(SOON)
    bench.flights.answered(1, b"")
    await bench.wait_for_slot()


@on_loop(1)
async def test_an_overdue_request_keeps_its_slot_until_its_late_answer(bench: Bench) -> None:
    assert not bench.flights.silent
    await bench.overdue(1)
    assert bench.flights.silent
    waiting = bench.wait_for_slot()
    await bench.turns()
    assert not waiting.done()
    assert bench.flights.answered(1, b"late") is False
    await waiting
    assert not bench.flights.silent
    assert bench.registry == {}


@on_loop(4)
async def test_an_answer_shows_that_much_older_requests_are_lost(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "LOST_AFTER_S", 0.0)
        await bench.overdue(1)
        not_yet_due = bench.add(2)
        bench.add(3)
        await asyncio.sleep(0.001)  # the clock has moved on
        bench.add(4)
        assert bench.flights.answered(4, b"")
    # 1 is overdue and older; 2 and 3 are still waited for.
    assert sorted(bench.registry) == [2, 3]
    assert not not_yet_due.done()


@on_loop(4)
async def test_a_request_a_little_older_than_an_answered_one_is_not_lost(bench: Bench) -> None:
    await bench.overdue(1)
    bench.add(2)
    bench.flights.answered(2, b"")
    assert sorted(bench.registry) == [1]


@on_loop(1)
async def test_a_request_nobody_answers_gives_its_slot_back_in_the_end(bench: Bench) -> None:
    await bench.overdue(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "OVERDUE_LIMIT_S", 0.0)
        await bench.flights.slot(bench.loop.time() + BOUND)
    assert bench.registry == {}
    assert len(bench.flights) == 0
    assert bench.flights.silent


@on_loop(1)
async def test_a_node_is_silent_until_it_answers_or_its_connection_ends(bench: Bench) -> None:
    for end in (
        lambda: bench.flights.answered(2, b""),
        lambda: bench.flights.fail(ConnectionLostError("gone")),
    ):
        await bench.overdue(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests, "OVERDUE_LIMIT_S", 0.0)
            await bench.flights.slot(bench.loop.time() + BOUND)
        answer = bench.add(2)
        assert bench.flights.silent
        end()
        assert not bench.flights.silent
        assert answer.done()
        answer.exception()


@on_loop(1)
async def test_a_failure_ends_requests_and_those_who_wait(bench: Bench) -> None:
    error = ConnectionLostError("gone")
    sent, waiting = bench.add(1), bench.wait_for_slot()
    await bench.turns()
    bench.flights.fail(error)
    for ended in (sent, waiting):
        with pytest.raises(ConnectionLostError, match="gone"):
            await ended
    assert bench.registry == {}
    await bench.flights.slot(bench.loop.time() + BOUND)


@on_loop(1)
async def test_a_failure_after_the_deadline_changes_nothing(bench: Bench) -> None:
    await bench.overdue(1)
    bench.flights.fail(ConnectionLostError("gone"))
    assert len(bench.flights) == 0


@on_loop(1)
async def test_a_discarded_request_frees_its_slot(bench: Bench) -> None:
    sent, waiting = bench.add(1), bench.wait_for_slot()
    await bench.turns()
    bench.flights.discard(1)
    await waiting
    assert sent.cancelled()
    bench.flights.discard(1)  # twice is fine
    assert bench.registry == {}


@on_loop(1)
async def test_a_cancelled_waiter_passes_its_turn_on(bench: Bench) -> None:
    bench.add(1)
    first, second = bench.wait_for_slot(), bench.wait_for_slot()
    await bench.turns()
    bench.flights.answered(1, b"")  # first's turn; before it runs it is cancelled
    first.cancel()
    await asyncio.wait_for(second, 5)
    with pytest.raises(asyncio.CancelledError):
        await first


@on_loop(2)
async def test_a_cancelled_caller_leaves_its_request_in_flight(bench: Bench) -> None:
    task = bench.loop.create_task(_await(bench.add(1)))
    await bench.turns()
    task.cancel()
    await bench.turns()
    assert len(bench.flights) == 1  # the node still has it
    assert bench.flights.silent
    assert bench.flights.answered(1, b"") is False


async def _await(future: asyncio.Future[bytes]) -> bytes:
    return await future


def test_request_ids_are_unpredictable_and_fit_their_fields() -> None:
    counter = RequestCounter()
    ids = [counter.next() for _ in range(1000)]
    assert len({i.request_id for i in ids}) == 1000
    assert all(0 < i.request_id < 1 << 64 for i in ids)
    assert [i.sequence for i in ids] == list(range(1, 1001))
    gaps = {b.request_id - a.request_id for a, b in itertools.pairwise(ids)}
    assert len(gaps) == 999


def test_the_sequence_wraps_within_32_bits() -> None:
    counter = RequestCounter()
    counter._sequence = 0xFFFFFFFE
    assert [counter.next().sequence for _ in range(3)] == [0xFFFFFFFF, 1, 2]


@pytest.mark.parametrize("drawn", [0, 1, 2**63 - 1])
def test_no_request_has_the_number_that_means_none(monkeypatch: pytest.MonkeyPatch, drawn: int) -> None:
    asked: list[int] = []

    def randbits(bits: int) -> int:
        asked.append(bits)
        return drawn

    monkeypatch.setattr("clio_client.transport.requests.secrets.randbits", randbits)
    assert RequestCounter().next().request_id == drawn + 1
    assert asked == [63]
