"""Blocking file access off the event loop, with a bound: a dead network file system must not stop scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class BackgroundRead(Generic[_T]):
    """Runs one blocking read at a time in a thread; while it hangs, no second one is started."""

    def __init__(self, read: Callable[[], _T]) -> None:
        self._read = read
        self._pending: asyncio.Future[_T] | None = None

    async def result(self, seconds: float) -> _T:
        """What the read returns, or raises.

        Raises:
            TimeoutError: it has not ended within ``seconds``.
        """
        if self._pending is None:
            self._pending = asyncio.get_running_loop().run_in_executor(None, self._read)
        pending = self._pending
        await asyncio.wait((pending,), timeout=max(0.0, seconds))
        if not pending.done():
            raise TimeoutError
        self._pending = None
        return pending.result()
