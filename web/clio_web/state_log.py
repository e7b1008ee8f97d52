"""Logging of states and defects that would otherwise repeat with every request: rarely, and with a count."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Down:
    since: float
    logged: float
    repeats: int = 0
    suppressed: int = 0


class StateLog:
    """Logs that something went down or came back, without a line for each failed scrape between.

    A key that was never reported down counts as up. The first failure logs a warning, recovery an
    info line; while it stays down the warning is repeated after 1 minute, then after 10, then
    hourly, with the number of reports not logged (`suppressed`) and `down_seconds`.

    Memory is bounded: only keys that are down are remembered, at most `max_keys` of them (the one
    reported longest ago is dropped). `clock` returns monotonic seconds.
    """

    INTERVALS = (60.0, 600.0, 3600.0)

    def __init__(
        self, logger: Any, clock: Callable[[], float] = time.monotonic, max_keys: int = 16384
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._down: OrderedDict[object, _Down] = OrderedDict()

    def report(self, key: object, ok: bool, message: str, **fields: Any) -> None:
        """Report the state of `key`; `fields` are logged with the message when a line is due."""
        with self._lock:
            now = self._clock()
            extra = self._recovered(key, now) if ok else self._failed(key, now)
        if extra is not None:
            log = self._logger.info if ok else self._logger.warning
            log(message, **fields, **extra)

    def forget(self, key: object) -> None:
        """Drop a key that no longer exists (a node that left)."""
        with self._lock:
            self._down.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._down)

    def _recovered(self, key: object, now: float) -> dict[str, Any] | None:
        state = self._down.pop(key, None)
        if state is None:
            return None
        return {"suppressed": state.suppressed, "down_seconds": round(now - state.since, 3)}

    def _failed(self, key: object, now: float) -> dict[str, Any] | None:
        state = self._down.get(key)
        if state is None:
            self._down[key] = _Down(since=now, logged=now)
            while len(self._down) > self._max_keys:
                self._down.popitem(last=False)
            return {}
        self._down.move_to_end(key)
        wait = self.INTERVALS[min(state.repeats, len(self.INTERVALS) - 1)]
        if now - state.logged < wait:
            state.suppressed += 1
            return None
        extra = {"suppressed": state.suppressed, "down_seconds": round(now - state.since, 3)}
        state.logged, state.suppressed = now, 0
        state.repeats += 1
        return extra


class DefectLog:
    """Logs exceptions that should not happen, with traceback: each kind as rarely as `StateLog` does.

    A defect that a thousand nodes bring to light in every scrape is one line, not a flood.
    """

    def __init__(self, logger: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._states = StateLog(logger, clock, max_keys=256)

    def report(self, defect: BaseException, message: str, **fields: Any) -> None:
        """Report one; its kind is its type and where it was raised."""
        frame = defect.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = None if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
        self._states.report((type(defect), place), False, message, **fields, exc_info=defect)
