from __future__ import annotations

import asyncio
import time

import pytest

from exporter import places
from exporter.places import Place


def run(size: int, holders: int, hold: float) -> tuple[int, float]:
    """Most holders at the same time, and seconds until all have had a place."""

    async def main() -> tuple[int, float]:
        free, inside, most = asyncio.Semaphore(size), 0, 0

        async def holder() -> None:
            nonlocal inside, most
            async with Place(free):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(hold)
                inside -= 1

        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(holder() for _ in range(holders)))
        assert not free.locked()
        for _ in range(size):
            await asyncio.wait_for(free.acquire(), 1)
        assert free.locked()  # given back exactly once each
        return most, asyncio.get_running_loop().time() - started

    return asyncio.run(main())


def test_no_more_than_the_places_at_the_same_time() -> None:
    assert run(3, 12, 0.01)[0] == 3


def test_a_slow_holder_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SLOW_S", 0.05)
    monkeypatch.setattr(places, "LAG_S", 60.0)
    most, seconds = run(1, 5, 1.0)
    assert most > 1
    assert seconds < 5.0


def test_our_own_slowness_lets_nobody_else_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SLOW_S", 0.01)
    monkeypatch.setattr(places, "LAG_S", 0.05)

    async def main() -> int:
        free = asyncio.Semaphore(1)
        async with Place(free):
            # The loop is held up far beyond the timer: that says nothing about the node.
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0)
            return free._value

    assert asyncio.run(main()) == 0
