"""Matching answers to requests, and limiting how many a node has at once."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Final

from clio_client.protocol.codec import RequestIds

LOST_AFTER_S: Final = 5.0
"""A request this much older than one that was answered is taken for lost (section 6)."""

OVERDUE_LIMIT_S: Final = 10.0
"""After this long an unanswered request no longer counts as in flight."""


class RequestCounter:
    """Hands out request ids. The 64 bit number is random: whoever guesses it could answer for a node."""

    def __init__(self) -> None:
        self._sequence = 0
        self._pid = os.getpid()

    def next(self) -> RequestIds:
        """Ids for one request."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        return RequestIds(request_id=secrets.randbits(63) + 1, sequence=self._sequence, pid=self._pid)


@dataclass(slots=True)
class _Flight:
    sent_at: float
    answer: asyncio.Future[bytes]
    timer: asyncio.TimerHandle


class InFlight:
    """Requests of one connection: at most ``limit`` at a time, however long a node does not answer.

    A request that ran into its deadline keeps its slot until the node answers it or is shown to have
    lost it, so that a hung node is not sent more and more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, registry: dict[int, InFlight]) -> None:
        """``registry`` is shared by all connections: it leads from a request id to whose it is."""
        self._loop = loop
        self._limit = limit
        self._registry = registry
        self._flights: dict[int, _Flight] = {}
        self._ignored = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def silent(self) -> bool:
        """Whether a request that was given up has its slot still, or lost it with nothing answered since."""
        return self._ignored or any(flight.answer.done() for flight in self._flights.values())

    async def slot(self, deadline: float) -> None:
        """Wait until another request may be sent.

        Raises:
            TimeoutError: not before ``deadline``.
        """
        now = self._loop.time()
        if now >= deadline:
            raise TimeoutError
        self._ignored = self._forget(now - OVERDUE_LIMIT_S) or self._ignored
        while len(self._flights) >= self._limit:
            turn = self._loop.create_future()
            self._waiting.append(turn)
            timer = self._loop.call_at(deadline, _expire, turn)
            try:
                await turn
            except asyncio.CancelledError:
                # It may have been this caller's turn already; then it is the next one's.
                self._wake()
                raise
            finally:
                timer.cancel()
                if turn in self._waiting:
                    self._waiting.remove(turn)

    def add(self, request_id: int, deadline: float) -> asyncio.Future[bytes]:
        """Register a request about to be sent; the future yields the answer frame or TimeoutError."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        timer = self._loop.call_at(deadline, _expire, answer)
        self._flights[request_id] = _Flight(self._loop.time(), answer, timer)
        self._registry[request_id] = self
        return answer

    def discard(self, request_id: int) -> None:
        """The request was not sent after all, or its answer cannot come."""
        flight = self._flights.get(request_id)
        if flight is not None:
            flight.timer.cancel()
            flight.answer.cancel()
            self._remove(request_id)
            self._wake()

    def answered(self, request_id: int, frame: bytes) -> bool:
        """Deliver an answer; False when nobody waits for it any more (late), as is fine."""
        flight = self._flights[request_id]
        flight.timer.cancel()
        self._ignored = False
        self._remove(request_id)
        self._forget(flight.sent_at - LOST_AFTER_S)
        self._wake()
        if flight.answer.done():
            return False
        flight.answer.set_result(frame)
        return True

    def fail(self, error: Exception) -> None:
        """End every request with ``error``."""
        self._ignored = False
        for request_id, flight in list(self._flights.items()):
            flight.timer.cancel()
            if not flight.answer.done():
                flight.answer.set_exception(error)
            self._remove(request_id)
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _remove(self, request_id: int) -> None:
        del self._flights[request_id]
        self._registry.pop(request_id, None)

    def _forget(self, sent_before: float) -> bool:
        gone = [
            i for i, flight in self._flights.items() if flight.answer.done() and flight.sent_at < sent_before
        ]
        for request_id in gone:
            self._remove(request_id)
        if gone:
            self._wake()
        return bool(gone)

    def _wake(self) -> None:
        free = self._limit - len(self._flights)
        for turn in list(self._waiting):
            if free <= 0:
                return
            if not turn.done():
                turn.set_result(None)
                free -= 1


def _expire(future: asyncio.Future[bytes] | asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
