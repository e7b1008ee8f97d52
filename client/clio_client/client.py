"""The runtime client: a transport on an event loop in one I/O thread, for callers in any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from clio_client.errors import ClientClosedError, HungError
from clio_client.transport.interface import Transport

_T = TypeVar("_T")

_GRACE_S: Final = 2.0
"""How much longer than asked a caller waits for the I/O thread, which bounds every call itself."""


class RuntimeClient:
    """Owns the I/O thread and the transport on it; both start on first use.

    Usable from any thread. `close` ends the thread; pending calls fail with `ClientClosedError`.
    """

    def __init__(self, make_transport: Callable[[], Transport]) -> None:
        """``make_transport`` is called once, on the event loop of the I/O thread."""
        self._make_transport = make_transport
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._closed = False

    def submit(self, work: Callable[[Transport], Coroutine[Any, Any, _T]]) -> concurrent.futures.Future[_T]:
        """Run a coroutine function on the I/O thread.

        Raises:
            ClientClosedError: after `close`.
            TransportUnavailableError: the transport cannot be used here.
        """
        loop, transport = self._start()
        return asyncio.run_coroutine_threadsafe(work(transport), loop)

    def call(self, work: Callable[[Transport], Coroutine[Any, Any, _T]], timeout: float) -> _T:
        """`submit` and wait, ``timeout`` seconds at most.

        Raises:
            HungError: the work did not end in time (it is cancelled).
        """
        future = self.submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise HungError(f"no result within {timeout:g} s") from None

    def counters(self) -> Mapping[str, int]:
        """`Transport.counters`; empty while nothing was asked yet."""
        with self._lock:
            return {} if self._transport is None else self._transport.counters()

    def close(self) -> None:
        """Close sockets and end the thread. May be called more than once."""
        with self._lock:
            self._closed = True
            loop, thread, transport = self._loop, self._thread, self._transport
            self._loop = self._thread = self._transport = None
        if loop is None or thread is None or transport is None:
            return
        asyncio.run_coroutine_threadsafe(_shut_down(transport), loop).result(_GRACE_S * 5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_GRACE_S * 5)

    def _start(self) -> tuple[asyncio.AbstractEventLoop, Transport]:
        with self._lock:
            if self._closed:
                raise ClientClosedError("the client is closed")
            if self._loop is None or self._transport is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(loop,), name="clio-runtime-io", daemon=True)
                thread.start()
                try:
                    self._transport = asyncio.run_coroutine_threadsafe(
                        _create(self._make_transport), loop
                    ).result(_GRACE_S * 5)
                except BaseException:
                    loop.call_soon_threadsafe(loop.stop)
                    thread.join(_GRACE_S)
                    raise
                self._loop, self._thread = loop, thread
            return self._loop, self._transport


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _create(make_transport: Callable[[], Transport]) -> Transport:
    return make_transport()


async def _shut_down(transport: Transport) -> None:
    current = asyncio.current_task()
    await transport.close()
    pending = [task for task in asyncio.all_tasks() if task is not current]
    if pending:
        # Their calls have failed with ClientClosedError; let them say so before they are cancelled.
        await asyncio.wait(pending, timeout=_GRACE_S)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
