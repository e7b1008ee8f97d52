"""A bound on how many nodes do something at the same time, which slow ones do not use up."""

from __future__ import annotations

import asyncio
from typing import Final

SLOW_S: Final = 0.5
"""After this long a node no longer holds its place: hung nodes must not hold up the others."""

LAG_S: Final = 0.1
"""A timer this late shows that not the node is slow but we are: letting more in makes it worse."""

PATIENCE: Final = 4
"""How often in a row our own slowness is held against nobody."""


class Place:
    """One of a semaphore's places, as a context; given back once, at its end or when its holder is slow."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._timer: asyncio.TimerHandle | None = None
        self._patience = PATIENCE

    async def __aenter__(self) -> None:
        await self._free.acquire()
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
            self._free.release()
