"""The recent past of one node's 1 Hz ring, kept small: a thousand nodes have a minute each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from clio_client import SystemSample
from clio_exporter.snapshot import Peaks


class _Point(NamedTuple):
    """What peaks are made of."""

    timestamp_ns: int
    cpu_usage_pct: float | None
    gpu_usage_pct: float | None
    hbm_used_bytes: int | None
    ram_available_bytes: int | None


class RecentSamples:
    """Remembers the newest sample, and of the peak window what peaks are made of."""

    def __init__(self, window_seconds: float) -> None:
        self._window_ns = int(window_seconds * 1e9)
        # One sample a second; the bound holds even for a runtime that does not tell when they were taken.
        self._points: deque[_Point] = deque(maxlen=int(window_seconds) + 5)
        self.newest: SystemSample | None = None

    @property
    def newest_id(self) -> int:
        """Event id of the newest sample; -1 while there is none."""
        return -1 if self.newest is None or self.newest.event_id is None else self.newest.event_id

    def add(self, samples: Iterable[SystemSample]) -> bool:
        """Take the samples that are newer than the newest; returns whether there were any."""
        before = self.newest_id
        for sample in samples:
            if sample.event_id is not None and sample.event_id > self.newest_id:
                self.newest = sample
                self._points.append(
                    _Point(
                        sample.timestamp_ns or 0,
                        sample.cpu_usage_pct,
                        sample.gpu_usage_pct,
                        sample.hbm_used_bytes,
                        sample.ram_available_bytes,
                    )
                )
        if self._points:
            oldest = self._points[-1].timestamp_ns - self._window_ns
            while self._points[0].timestamp_ns < oldest:
                self._points.popleft()
        return self.newest_id > before

    def peaks(self) -> Peaks:
        """Extremes of the window that ends with the newest sample."""
        return Peaks(
            cpu_usage_pct=_highest(p.cpu_usage_pct for p in self._points),
            gpu_usage_pct=_highest(p.gpu_usage_pct for p in self._points),
            hbm_used_bytes=_highest(p.hbm_used_bytes for p in self._points),
            ram_available_low_bytes=_lowest(p.ram_available_bytes for p in self._points),
        )


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _lowest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
