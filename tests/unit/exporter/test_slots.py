from __future__ import annotations

import asyncio
import time

import pytest

from clio_exporter import slots
from clio_exporter.slots import Slots


def run(size: int, holders: int, hold: float) -> tuple[int, float]:
    """Most holders at the same time, and seconds until all have had a place."""

    async def main() -> tuple[int, float]:
        free, inside, most = Slots(size), 0, 0

        async def holder() -> None:
            nonlocal inside, most
            async with free.hold():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(hold)
                inside -= 1

        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(holder() for _ in range(holders)))
        assert free._free._value == size  # given back exactly once each
        return most, asyncio.get_running_loop().time() - started

    return asyncio.run(main())


def test_no_more_than_the_places_at_the_same_time() -> None:
    assert run(3, 12, 0.01)[0] == 3


def test_a_slow_holder_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOW_S", 0.05)
    monkeypatch.setattr(slots, "LAG_S", 60.0)
    most, seconds = run(1, 5, 1.0)
    assert most > 1
    assert seconds < 5.0


def test_our_own_slowness_lets_nobody_else_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOW_S", 0.01)
    monkeypatch.setattr(slots, "LAG_S", 0.05)

    async def main() -> int:
        free = Slots(1)
        async with free.hold():
            # The loop is held up far beyond the timer: that says nothing about the node.
            time.sleep(0.2)  # noqa: ASYNC251
            await asyncio.sleep(0)
            return free._free._value

    assert asyncio.run(main()) == 0


class Timer:
    """One that fires ``late`` seconds after its time."""

    def __init__(self, late: float) -> None:
        self.late = late

    def when(self) -> float:
        return asyncio.get_running_loop().time() - self.late

    def cancel(self) -> None:
        return


@pytest.mark.parametrize(("late", "turns"), [(0.0, 1), (slots.LAG_S + 3600, slots.PATIENCE + 1)])
def test_our_own_slowness_is_held_against_nobody_a_few_times(late: float, turns: int) -> None:
    async def main() -> int:
        free = Slots(1)
        async with free.hold():
            pass
        slot, turn = free.hold(), 0
        await slot.__aenter__()
        while not free._free._value:
            turn += 1
            assert slot._timer is not None
            slot._timer.cancel()
            slot._timer = Timer(late)  # type: ignore[assignment]
            slot._is_slow()
        await slot.__aexit__()
        assert free._free._value == 1
        return turn

    assert asyncio.run(main()) == turns


def test_an_empty_queue_is_waited_for_until_the_deadline() -> None:
    async def main() -> list[str]:
        slots, order = Slots(1), list[str]()
        loop = asyncio.get_running_loop()

        async def holder(name: str, leave: asyncio.Event) -> None:
            async with slots.hold():
                order.append(name)
                await leave.wait()

        await slots.queue_empty(loop.time())  # nobody waits: no time is needed
        leave = asyncio.Event()
        tasks = [asyncio.ensure_future(holder(name, leave)) for name in ("first", "second")]
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await slots.queue_empty(loop.time() + 0.02)
        order.append("late")
        leave.set()
        await slots.queue_empty(loop.time() + 10)
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == ["first", "late", "second"]
