"""Matching answers to requests, waiting for several at once, and limiting how many a node has."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from clio_client.protocol.codec import RequestIds

LOST_AFTER_S: Final = 5.0
"""A request this much older than one that was answered is taken for lost (section 6)."""

OVERDUE_LIMIT_S: Final = 10.0
"""After this long an unanswered request no longer counts as in flight."""


Ended = Callable[[bytes | Exception], None]
"""Called once with a request's answer, or why there is none: TimeoutError, or how its connection ended."""


class RequestCounter:
    """Hands out request ids. The 64 bit number is random: whoever guesses it could answer for a node."""

    def __init__(self) -> None:
        self._sequence = 0
        self._pid = os.getpid()

    def next(self) -> RequestIds:
        """Ids for one request."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        return RequestIds(request_id=secrets.randbits(63) + 1, sequence=self._sequence, pid=self._pid)


class Wave:
    """Requests to one node that one caller waits for: with one future and one timer, however many they are.

    What comes is handed on at once, in the order of answers. A task, a future and a timer for each request
    cost more than all the rest of asking.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        """Who makes one waits for it (`wait`) and closes it, whatever happens."""
        self.deadline = deadline
        self._loop = loop
        self._pending: dict[int, Ended] = {}
        self._wakes: asyncio.Future[None] | None = None
        self._defect: Exception | None = None

    def add(self, request_id: int, ended: Ended) -> None:
        """Another request, which is about to be sent."""
        self._pending[request_id] = ended

    def awaits(self, request_id: int) -> bool:
        """Whether the request has neither ended nor been given up."""
        return request_id in self._pending

    def end(self, request_id: int, outcome: bytes | Exception) -> bool:
        """Hand on how a request ended; False when nobody waits for it any more."""
        ended = self._pending.pop(request_id, None)
        if ended is None:
            return False
        try:
            ended(outcome)
        except Exception as defect:  # noqa: BLE001 - `wait` raises it: it is the caller's, not the socket's
            self._defect = self._defect or defect
        if not self._pending:
            self._wake()
        return True

    async def wait(self, seconds: float | None = None) -> None:
        """Return when every request has ended, or in ``seconds``.

        At the deadline those that are left end with TimeoutError. Raises what those raised who were told of
        an answer.
        """
        if self._pending:
            self._wakes = self._loop.create_future()
            until = self.deadline if seconds is None else self._loop.time() + seconds
            if until < self.deadline:
                timer = self._loop.call_at(until, self._wake)
            else:
                timer = self._loop.call_at(self.deadline, self._expire)
            try:
                await self._wakes
            finally:
                timer.cancel()
                self._wakes = None
        if self._defect is not None:
            raise self._defect

    def close(self) -> None:
        """Give up what has not ended."""
        self._pending.clear()

    def _expire(self) -> None:
        for request_id in list(self._pending):
            self.end(request_id, TimeoutError())

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)


@dataclass(slots=True)
class _Flight:
    sent_at: float
    wave: Wave


class InFlight:
    """Requests of one connection: at most ``limit`` at a time, however long a node does not answer.

    A request that was given up keeps its place until the node answers it or is shown to have lost it, so
    that a hung node is not sent more and more. Those there is no place for are sent in turn.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        registry: dict[int, InFlight],
        transmit: Callable[[bytes], None],
    ) -> None:
        """``registry`` is shared by all connections: it leads from a request id to whose it is.

        ``transmit`` sends a frame; where it cannot, it calls `fail`.
        """
        self._loop = loop
        self._limit = limit
        self._registry = registry
        self._transmit = transmit
        self._flights: dict[int, _Flight] = {}
        self._ignored = False
        self._queue: deque[tuple[int, bytes, Wave]] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def silent(self) -> bool:
        """Whether a request that was given up has its place still, or lost it with nothing answered since."""
        return self._ignored or any(not f.wave.awaits(i) for i, f in self._flights.items())

    def send(self, request_id: int, frame: bytes, wave: Wave, ended: Ended) -> None:
        """Send a request as one of ``wave``: now, or when there is a place for it."""
        wave.add(request_id, ended)
        now = self._loop.time()
        if now >= wave.deadline:
            wave.end(request_id, TimeoutError())
            return
        self._ignored = self._forget(now - OVERDUE_LIMIT_S) or self._ignored
        if self._queue:
            self._queue = deque(waiting for waiting in self._queue if waiting[2].awaits(waiting[0]))
        self._queue.append((request_id, frame, wave))
        self._fill()

    def discard(self, request_id: int) -> None:
        """The answer to the request cannot come, and nobody waits for it."""
        if request_id in self._flights:
            self._remove(request_id)
            self._fill()

    def answered(self, request_id: int, frame: bytes) -> bool:
        """Deliver an answer; False when nobody waits for it any more (late), as is fine."""
        flight = self._flights[request_id]
        self._ignored = False
        self._remove(request_id)
        self._forget(flight.sent_at - LOST_AFTER_S)
        self._fill()
        return flight.wave.end(request_id, frame)

    def fail(self, error: Exception) -> None:
        """End every request with ``error``."""
        self._ignored = False
        ending = [(request_id, flight.wave) for request_id, flight in self._flights.items()]
        ending += [(request_id, wave) for request_id, _, wave in self._queue]
        for request_id in list(self._flights):
            self._remove(request_id)
        self._queue.clear()
        for request_id, wave in ending:
            wave.end(request_id, error)

    def _remove(self, request_id: int) -> None:
        del self._flights[request_id]
        self._registry.pop(request_id, None)

    def _forget(self, sent_before: float) -> bool:
        oldest = next(iter(self._flights.values()), None)
        if oldest is None or oldest.sent_at >= sent_before:
            return False  # they are in the order they were sent in; nearly always none is that old
        gone = [i for i, f in self._flights.items() if f.sent_at < sent_before and not f.wave.awaits(i)]
        for request_id in gone:
            self._remove(request_id)
        if gone:
            self._fill()
        return bool(gone)

    def _fill(self) -> None:
        """Send those that wait for a place, in turn, as long as there is one."""
        while self._queue and len(self._flights) < self._limit:
            request_id, frame, wave = self._queue.popleft()
            if wave.awaits(request_id):
                self._flights[request_id] = _Flight(self._loop.time(), wave)
                self._registry[request_id] = self
                self._transmit(frame)
