"""Work that many ask for at the same time and that is done once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar


class Flight(Protocol):
    """Work under way: an asyncio task or future, a concurrent future, or anything that waits for one."""

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Have ``callback`` called with the flight, or what it waits for, when it has ended."""
        ...


_F = TypeVar("_F", bound=Flight)


class SingleFlight(Generic[_F]):
    """At most one flight at a time for each key; who asks meanwhile shares it. Thread-safe."""

    def __init__(self) -> None:
        # Re-entrant: work that ends at once is forgotten while it is being entered.
        self._lock = threading.RLock()
        self._under_way: dict[Hashable, tuple[object, _F]] = {}

    def join(self, key: Hashable, start: Callable[[], _F]) -> tuple[_F, bool]:
        """The flight under way for ``key``, or the one that ``start`` begins, and whether it is shared."""
        with self._lock:
            if key in self._under_way:
                _, found = self._under_way[key]
                if not found.done():
                    return found, True
            ticket = object()
            flight = start()
            self._under_way[key] = ticket, flight
            # Not the flight itself: futures keep their callbacks, and the two would keep each other.
            flight.add_done_callback(lambda _: self._forget(key, ticket))
            return flight, False

    def under_way(self) -> list[_F]:
        """The flights under way now."""
        with self._lock:
            return [flight for _, flight in self._under_way.values()]

    def _forget(self, key: Hashable, ticket: object) -> None:
        with self._lock:
            if key in self._under_way and self._under_way[key][0] is ticket:
                del self._under_way[key]
