"""Counts of HTTP requests, for the exporter's own metrics."""

from __future__ import annotations

import threading
from collections import Counter


class RequestStats:
    """Thread-safe counts by endpoint and status code, and scrapes in progress.

    Endpoints are route patterns and a fixed word for unknown paths, so the number of series is bounded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._in_flight = 0

    def count(self, handler: str, code: int) -> None:
        """Count one answered request."""
        with self._lock:
            self._requests[handler, code] += 1

    def requests(self) -> dict[tuple[str, int], int]:
        """A copy of the counts since start, by (endpoint, status code)."""
        with self._lock:
            return dict(self._requests)

    @property
    def in_flight(self) -> int:
        """Scrapes and probes in progress, the writing of their answers included."""
        with self._lock:
            return self._in_flight

    def enter(self, limit: int) -> bool:
        """Take a place for a scrape; False when `limit` are taken (0: no limit)."""
        with self._lock:
            if limit and self._in_flight >= limit:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._in_flight -= 1
