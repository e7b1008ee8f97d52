"""Blocking file access off the event loop, with a bound: a dead network file system must not stop scrapes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from clio_client.single_flight import SingleFlight

_T = TypeVar("_T")


class BackgroundRead(Generic[_T]):
    """Runs one blocking read at a time in a thread; while it hangs, no second one is started."""

    def __init__(self, read: Callable[[], _T]) -> None:
        self._read = read
        self._flights: SingleFlight[concurrent.futures.Future[_T]] = SingleFlight()

    async def result(self, seconds: float) -> _T:
        """What the read returns, or raises.

        Raises:
            TimeoutError: it has not ended within ``seconds``.
        """
        read, _ = self._flights.join(None, self._start)
        return await result_within(asyncio.wrap_future(read), seconds)

    def _start(self) -> concurrent.futures.Future[_T]:
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(self._read())
            except BaseException as error:  # noqa: BLE001 - whoever waits raises it
                future.set_exception(error)

        # Not one of an executor, which the end of the process would wait for, however long it hangs.
        threading.Thread(target=run, name="clio-file-read", daemon=True).start()
        return future


async def result_within(work: asyncio.Future[_T], seconds: float) -> _T:
    """The result of ``work``, which goes on where it takes longer.

    Raises:
        TimeoutError: it has not ended within ``seconds``.
    """
    # What ends after that is another caller's, so an error is not one that nobody looked at.
    work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait((work,), timeout=max(0.0, seconds))
    if not work.done():
        raise TimeoutError
    return work.result()
