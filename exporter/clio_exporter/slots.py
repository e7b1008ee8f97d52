"""A bound on how many nodes do something at the same time, which slow ones do not use up."""

from __future__ import annotations

import asyncio
from typing import Final

SLOW_S: Final = 0.5
"""After this long a node no longer holds its slot: hung nodes must not hold up the others."""

LAG_S: Final = 0.1
"""A timer this late shows that not the node is slow but we are: letting more in makes it worse."""

PATIENCE: Final = 4
"""How often in a row our own slowness is held against nobody."""


class Slots:
    """A number of slots, handed out in the order they are asked for. For one event loop."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._waiting = 0
        self._queue_empty = asyncio.Event()
        self._queue_empty.set()

    def hold(self) -> Slot:
        """A slot, as a context; given back once, at its end or when its holder is slow."""
        return Slot(self)

    async def queue_empty(self, deadline: float) -> None:
        """Wait until everybody who asked for a slot has had one.

        Raises:
            TimeoutError: not before ``deadline``, in the loop's time.
        """
        if self._waiting:
            seconds = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._queue_empty.wait(), seconds)
            except asyncio.TimeoutError:  # TimeoutError itself only from Python 3.11 on
                raise TimeoutError from None

    async def acquire(self) -> None:
        """Wait for a slot; use `hold`, which gives it back."""
        self._waiting += 1
        self._queue_empty.clear()
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._queue_empty.set()

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()


class Slot:
    """One slot; see `Slots.hold`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._timer: asyncio.TimerHandle | None = None
        self._patience = PATIENCE

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        self._arm()

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SLOW_S, self._is_slow)

    def _is_slow(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and loop.time() - self._timer.when() > LAG_S and self._patience:
            self._patience -= 1
            self._arm()
        else:
            self._give_back()

    def _give_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._slots.release()
