"""Work shared by who asks for it at the same time, and blocking reads with a bound."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from clio_client.background import BackgroundRead
from clio_client.single_flight import SingleFlight


def test_one_flight_a_key_is_shared_until_it_ends() -> None:
    flights: SingleFlight[Future[int]] = SingleFlight()
    first, shared = flights.join("a", Future)
    assert not shared
    assert flights.join("a", Future) == (first, True)
    assert flights.join("b", Future)[0] is not first
    assert len(flights.under_way()) == 2
    first.set_result(1)
    assert len(flights.under_way()) == 1
    second, shared = flights.join("a", Future)
    assert not shared
    assert second is not first


def test_work_that_ends_at_once_is_not_kept() -> None:
    flights: SingleFlight[Future[int]] = SingleFlight()

    def ended() -> Future[int]:
        future: Future[int] = Future()
        future.set_result(1)
        return future

    flights.join("a", ended)
    assert flights.under_way() == []


def test_work_that_does_not_start_leaves_nothing() -> None:
    flights: SingleFlight[Future[int]] = SingleFlight()

    def fail() -> Future[int]:
        raise OSError("no more threads")

    with pytest.raises(OSError, match="threads"):
        flights.join("a", fail)
    assert flights.under_way() == []


def test_a_read_that_hangs_costs_each_caller_its_own_bound_and_one_thread() -> None:
    gate, reads = threading.Event(), []

    def read() -> int:
        reads.append(1)
        gate.wait(30)
        return len(reads)

    async def run() -> None:
        background = BackgroundRead(read)
        started = time.monotonic()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await background.result(0.05)
        assert time.monotonic() - started < 5
        assert len(reads) == 1
        gate.set()
        assert await background.result(30) in (1, 2)

    try:
        asyncio.run(run())
    finally:
        gate.set()


def test_an_error_of_the_read_is_raised() -> None:
    def read() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(BackgroundRead(read).result(30))


def test_a_read_that_hangs_does_not_keep_the_process() -> None:
    """The threads of an executor are waited for at the end of the interpreter."""
    gate = threading.Event()

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await BackgroundRead(lambda: gate.wait(30)).result(0.01)
        assert all(t.daemon for t in threading.enumerate() if t.name == "clio-file-read")

    try:
        asyncio.run(run())
    finally:
        gate.set()


class Late:
    """A flight whose end is told later than it is seen."""

    def __init__(self) -> None:
        self.ended = False
        self.tell: Callable[[object], object] = print

    def done(self) -> bool:
        return self.ended

    def add_done_callback(self, callback: Callable[[object], object]) -> None:
        self.tell = callback


def test_an_end_that_is_told_late_does_not_end_the_successor() -> None:
    flights: SingleFlight[Late] = SingleFlight()
    first, second = Late(), Late()
    assert flights.join("key", lambda: first) == (first, False)
    first.ended = True
    assert flights.join("key", lambda: second) == (second, False)
    first.tell(first)
    assert flights.join("key", Late) == (second, True)
    second.tell(second)
    assert flights.under_way() == []
    second.tell(second)  # once more than there is to forget
