"""Who may have how many of the places that all clients share. Thread-safe bookkeeping, no sockets."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar


def client_of(address: str) -> str:
    """Whom an address counts for: of IPv6 its /64, which one host can take all addresses of."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


Item = TypeVar("Item", bound=Hashable)


class Places(Generic[Item]):
    """Connections by address, and which of them wait (for a request, or the rest of one).

    When places are used up, the one that goes is the longest waiting of the address that has most. A client
    that sends its request at once hardly waits, so that it is served even beside thousands of slow ones from
    its own address.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._lock = threading.Lock()
        self._held: dict[str, dict[Item, None]] = {}
        self._waiting: dict[str, OrderedDict[Item, None]] = {}
        self._address: dict[Item, str] = {}

    def enter(self, item: Item, address: str) -> tuple[bool, Item | None]:
        """Whether a new connection has a place, and which one must go for it (both can be so, or neither)."""
        with self._lock:
            goes = None
            if len(self._held.get(address, ())) >= self._per_address:
                goes = self._oldest(address)
            elif len(self._address) >= self._total:
                most = max(self._waiting, key=lambda who: len(self._held[who]), default=None)
                goes = None if most is None else self._oldest(most)
            else:
                self._add(item, address)
                return True, None
            if goes is None:
                return False, None
            self._remove(goes)
            self._add(item, address)
            return True, goes

    def waits(self, item: Item) -> None:
        """The connection is in nobody's hands until more of it comes."""
        with self._lock:
            address = self._address.get(item)
            if address is not None:
                self._waiting.setdefault(address, OrderedDict())[item] = None

    def served(self, item: Item) -> None:
        """The connection is in a worker's hands: it cannot be the one that goes."""
        with self._lock:
            self._not_waiting(item, self._address.get(item, ""))

    def leave(self, item: Item) -> None:
        """The connection is closed. May be called again."""
        with self._lock:
            self._remove(item)

    def _oldest(self, address: str) -> Item | None:
        return next(iter(self._waiting.get(address, ())), None)

    def _add(self, item: Item, address: str) -> None:
        self._address[item] = address
        self._held.setdefault(address, {})[item] = None

    def _remove(self, item: Item) -> None:
        address = self._address.pop(item, None)
        if address is not None:
            self._not_waiting(item, address)
            held = self._held[address]
            del held[item]
            if not held:
                del self._held[address]

    def _not_waiting(self, item: Item, address: str) -> None:
        waiting = self._waiting.get(address)
        if waiting is not None:
            waiting.pop(item, None)
            if not waiting:
                del self._waiting[address]


class Turns(Generic[Item]):
    """At most so many at once of an address; the others wait for their turn in order."""

    def __init__(self, per_address: int) -> None:
        self._per_address = per_address
        self._lock = threading.Lock()
        self._active: dict[str, set[Item]] = {}
        self._queues: dict[str, deque[Item]] = {}
        self._address: dict[Item, str] = {}

    def enter(self, item: Item, address: str) -> bool:
        """Whether it is its turn; if not, `leave` of another one returns it later."""
        with self._lock:
            self._address[item] = address
            active = self._active.setdefault(address, set())
            if len(active) < self._per_address:
                active.add(item)
                return True
            self._queues.setdefault(address, deque()).append(item)
            return False

    def leave(self, item: Item) -> Item | None:
        """It has done; whose turn it is now, if anybody's. May be called again."""
        with self._lock:
            address = self._address.pop(item, None)
            if address is None:
                return None
            active = self._active[address]
            active.discard(item)
            queue = self._queues.get(address)
            following = queue.popleft() if queue else None
            if following is not None:
                active.add(following)
            if not queue:
                self._queues.pop(address, None)
            if not active:
                del self._active[address]
            return following

    def contended(self, item: Item) -> bool:
        """Whether it has its turn and another one of its address waits for one."""
        with self._lock:
            address = self._address.get(item)
            return address is not None and address in self._queues and item in self._active[address]

    def queued(self) -> list[Item]:
        """Those whose turn has not come."""
        with self._lock:
            return [item for queue in self._queues.values() for item in queue]
