"""Token buckets, one a client, for a bounded number of clients."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimiter:
    """Allows `rate` events a second and bursts of `burst`, for each key. Thread-safe.

    The state of the `max_keys` keys used last is kept; a forgotten key starts with a full bucket.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        max_keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Count one event; 0 when it is allowed, else the seconds after which one will be."""
        with self._lock:
            now = self._clock()
            level, when = self._buckets.get(key, (self._burst, now))
            level = min(self._burst, level + (now - when) * self._rate)
            allowed = level >= 1.0
            self._buckets[key] = (level - 1.0 if allowed else level, now)
            self._buckets.move_to_end(key)
            while len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1.0 - level) / self._rate
