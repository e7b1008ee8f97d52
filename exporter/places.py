"""A bound on how many nodes do something at the same time, which slow ones do not use up."""

from __future__ import annotations

import asyncio
from typing import Final

SLOW_S: Final = 0.5
"""After this long a node no longer holds its place: hung nodes must not hold up the others."""


class Place:
    """One of a semaphore's places, as a context; given back once, at its end or when its holder is slow."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._timer = asyncio.get_running_loop().call_later(SLOW_S, self._give_back)

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.release()
