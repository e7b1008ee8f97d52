"""Requests in flight: the limit, and what becomes of requests nobody answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from clio_client.errors import ConnectionLostError
from clio_client.transport import requests
from clio_client.transport.requests import InFlight, RequestCounter, Wave

SOON = 0.01
BOUND = 10.0


class Bench:
    """An InFlight on a running loop, and what it has sent."""

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.registry: dict[int, InFlight] = {}
        self.sent: list[int] = []
        self.flights = InFlight(self.loop, limit, self.registry, self.transmit)

    def transmit(self, frame: bytes) -> None:
        self.sent.append(int(frame))

    def wave(self, seconds: float = BOUND) -> Wave:
        return Wave(self.loop, self.loop.time() + seconds)

    def send(self, request_id: int, wave: Wave) -> list[bytes | Exception]:
        """How the request will have ended."""
        outcomes: list[bytes | Exception] = []
        self.flights.send(request_id, b"%d" % request_id, wave, outcomes.append)
        return outcomes

    def add(self, request_id: int, seconds: float = BOUND) -> asyncio.Task[bytes]:
        """One request that is waited for alone."""
        wave = self.wave(seconds)
        outcomes = self.send(request_id, wave)

        async def answer() -> bytes:
            try:
                await wave.wait()
            finally:
                wave.close()
            (outcome,) = outcomes
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return self.loop.create_task(answer())

    async def overdue(self, request_id: int) -> None:
        with pytest.raises(TimeoutError):
            await self.add(request_id, SOON)

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
async def test_no_more_than_the_limit_is_sent_and_the_rest_in_turn(bench: Bench) -> None:
    answers = [bench.add(i) for i in (1, 2, 3, 4)]
    assert bench.sent == [1, 2]
    bench.flights.answered(1, b"")
    assert bench.sent == [1, 2, 3]
    fifth = bench.add(5)
    assert bench.sent == [1, 2, 3]
    for i in (3, 2, 4, 5):
        bench.flights.answered(i, b"")
    assert bench.sent == [1, 2, 3, 4, 5]
    await asyncio.gather(*answers, fifth)
    assert len(bench.flights) == 0


@on_loop(1)
async def test_waiting_for_a_place_ends_at_the_deadline(bench: Bench) -> None:
    bench.add(1)
    await bench.overdue(2)
    bench.flights.answered(1, b"")
    assert bench.sent == [1]  # nobody waits for the second any more
    third = bench.add(3)
    assert bench.sent == [1, 3]
    bench.flights.answered(3, b"")
    await third


@on_loop(1)
async def test_nothing_is_sent_after_its_deadline(bench: Bench) -> None:
    with pytest.raises(TimeoutError):
        await bench.add(1, 0.0)
    assert bench.sent == []
    assert len(bench.flights) == 0
    assert not bench.flights.silent


@on_loop(1)
async def test_an_overdue_request_keeps_its_place_until_its_late_answer(bench: Bench) -> None:
    assert not bench.flights.silent
    await bench.overdue(1)
    assert bench.flights.silent
    bench.add(2)
    await bench.turns()
    assert bench.sent == [1]
    assert bench.flights.answered(1, b"late") is False
    assert bench.sent == [1, 2]
    assert not bench.flights.silent
    assert list(bench.registry) == [2]


@on_loop(1)
async def test_questions_that_are_given_up_unsent_do_not_pile_up(bench: Bench) -> None:
    await bench.overdue(1)
    for i in range(2, 12):
        await bench.overdue(i)
    bench.add(12)
    assert len(bench.flights._queue) == 1


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
        bench.add(2)
    assert bench.sent == [1, 2]
    assert list(bench.registry) == [2]
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
            answer = bench.add(2)
        assert bench.flights.silent
        end()
        assert not bench.flights.silent
        await asyncio.wait((answer,), timeout=BOUND)
        answer.exception()


@on_loop(1)
async def test_a_failure_ends_requests_and_those_that_wait(bench: Bench) -> None:
    error = ConnectionLostError("gone")
    sent, waiting = bench.add(1), bench.add(2)
    await bench.turns()
    bench.flights.fail(error)
    for ended in (sent, waiting):
        with pytest.raises(ConnectionLostError, match="gone"):
            await ended
    assert bench.registry == {}
    bench.add(3)
    assert bench.sent == [1, 3]


@on_loop(1)
async def test_a_failure_after_the_deadline_changes_nothing(bench: Bench) -> None:
    await bench.overdue(1)
    bench.flights.fail(ConnectionLostError("gone"))
    assert len(bench.flights) == 0


@on_loop(1)
async def test_a_discarded_request_frees_its_place(bench: Bench) -> None:
    await bench.overdue(1)
    bench.add(2)
    assert bench.sent == [1]
    bench.flights.discard(1)
    assert bench.sent == [1, 2]
    bench.flights.discard(1)  # twice is fine
    assert list(bench.registry) == [2]


@on_loop(1)
async def test_a_caller_that_is_cancelled_gives_its_turn_to_the_next(bench: Bench) -> None:
    bench.add(1)
    first = bench.add(2)
    bench.add(3)
    await bench.turns()
    first.cancel()
    await bench.turns()
    bench.flights.answered(1, b"")
    assert bench.sent == [1, 3]


@on_loop(2)
async def test_a_cancelled_caller_leaves_its_request_in_flight(bench: Bench) -> None:
    task = bench.add(1)
    await bench.turns()
    task.cancel()
    await bench.turns()
    assert len(bench.flights) == 1  # the node still has it
    assert bench.flights.silent
    assert bench.flights.answered(1, b"") is False


# --- several that are waited for together -----------------------------------------------------------------


@on_loop(4)
async def test_each_answer_of_a_wave_is_handed_on_at_once(bench: Bench) -> None:
    wave = bench.wave()
    outcomes = {i: bench.send(i, wave) for i in (1, 2, 3)}
    assert bench.sent == [1, 2, 3]
    waiting = bench.loop.create_task(wave.wait())
    for i in (2, 3):
        assert bench.flights.answered(i, b"%d" % i)
    assert outcomes == {1: [], 2: [b"2"], 3: [b"3"]}
    await bench.turns()
    assert not waiting.done()
    assert bench.flights.answered(1, b"1")
    await asyncio.wait_for(waiting, BOUND)
    assert outcomes == {1: [b"1"], 2: [b"2"], 3: [b"3"]}


@on_loop(4)
async def test_a_wave_that_has_been_answered_is_not_waited_for(bench: Bench) -> None:
    wave = bench.wave()
    await wave.wait()
    bench.send(1, wave)
    bench.flights.answered(1, b"")
    await wave.wait()


@on_loop(4)
async def test_a_lost_question_of_a_wave_costs_the_others_nothing(bench: Bench) -> None:
    wave = bench.wave(SOON)
    outcomes = [bench.send(i, wave) for i in (1, 2, 3)]
    for i in (1, 3):
        bench.flights.answered(i, b"%d" % i)
    await asyncio.wait_for(wave.wait(), BOUND)
    assert bench.loop.time() >= wave.deadline
    assert outcomes[0] == [b"1"]
    assert isinstance(outcomes[1][0], TimeoutError)
    assert outcomes[2] == [b"3"]
    assert bench.flights.silent
    assert bench.flights.answered(2, b"late") is False
    assert [len(each) for each in outcomes] == [1, 1, 1]
    assert not bench.flights.silent


@on_loop(2)
async def test_the_deadline_of_a_wave_ends_what_has_not_been_sent_too(bench: Bench) -> None:
    wave = bench.wave(SOON)
    outcomes = [bench.send(i, wave) for i in (1, 2, 3)]
    await asyncio.wait_for(wave.wait(), BOUND)
    assert [type(each) for (each,) in outcomes] == [TimeoutError] * 3
    assert bench.sent == [1, 2]
    assert sorted(bench.registry) == [1, 2]


@on_loop(4)
async def test_a_head_start_ends_when_it_is_over_or_with_the_answer(bench: Bench) -> None:
    wave = bench.wave()
    outcome = bench.send(1, wave)
    await asyncio.wait_for(wave.wait(SOON), BOUND)
    assert outcome == []
    assert not bench.flights.silent  # it is waited for still
    bench.loop.call_later(SOON, bench.flights.answered, 1, b"1")
    await asyncio.wait_for(wave.wait(BOUND * 2), BOUND)
    assert outcome == [b"1"]


@on_loop(4)
async def test_a_head_start_does_not_outlast_the_deadline(bench: Bench) -> None:
    wave = bench.wave(SOON)
    outcome = bench.send(1, wave)
    await asyncio.wait_for(wave.wait(BOUND * 2), BOUND)
    assert isinstance(outcome[0], TimeoutError)


@on_loop(4)
async def test_a_wave_that_is_cancelled_tells_nobody_any_more(bench: Bench) -> None:
    wave = bench.wave()
    outcomes = [bench.send(i, wave) for i in (1, 2)]

    async def wait() -> None:
        try:
            await wave.wait()
        finally:
            wave.close()

    task = bench.loop.create_task(wait())
    await bench.turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.flights.silent
    assert bench.flights.answered(1, b"late") is False
    bench.flights.fail(ConnectionLostError("gone"))
    assert outcomes == [[], []]


@on_loop(2)
async def test_a_lost_connection_ends_a_wave_where_it_is(bench: Bench) -> None:
    wave = bench.wave()
    outcomes = [bench.send(i, wave) for i in (1, 2, 3, 4)]
    bench.flights.answered(1, b"1")
    bench.flights.fail(ConnectionLostError("gone"))
    await asyncio.wait_for(wave.wait(), BOUND)
    assert outcomes[0] == [b"1"]
    assert [type(each) for (each,) in outcomes[1:]] == [ConnectionLostError] * 3
    assert bench.sent == [1, 2, 3]
    assert bench.registry == {}
    assert not bench.flights.silent


@on_loop(4)
async def test_a_connection_lost_while_sending_ends_what_follows(bench: Bench) -> None:
    def broken(frame: bytes) -> None:
        bench.sent.append(int(frame))
        bench.flights.fail(ConnectionLostError("gone"))

    bench.flights._transmit = broken
    wave = bench.wave()
    outcomes = [bench.send(i, wave) for i in (1, 2)]
    await asyncio.wait_for(wave.wait(), BOUND)
    assert [type(each) for (each,) in outcomes] == [ConnectionLostError] * 2
    assert len(bench.flights) == 0


@on_loop(4)
async def test_a_second_answer_to_a_question_is_nobodys(bench: Bench) -> None:
    wave = bench.wave()
    outcomes = [bench.send(i, wave) for i in (1, 2)]
    bench.flights.answered(1, b"first")
    assert 1 not in bench.registry  # so that the transport finds nobody whose it could be
    assert wave.end(1, b"second") is False
    bench.flights.answered(2, b"2")
    await wave.wait()
    assert outcomes == [[b"first"], [b"2"]]


@on_loop(4)
async def test_a_defect_of_who_is_told_reaches_who_waits_and_not_the_socket(bench: Bench) -> None:
    wave = bench.wave()

    def broken(_: bytes | Exception) -> None:
        raise ZeroDivisionError("a defect")

    bench.flights.send(1, b"1", wave, broken)
    other = bench.send(2, wave)
    for i in (1, 2):
        assert bench.flights.answered(i, b"%d" % i)
    with pytest.raises(ZeroDivisionError):
        await wave.wait()
    assert other == [b"2"]


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
