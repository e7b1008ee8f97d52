"""What the test modules `clio_runtime_ext` and `chimaera_runtime_ext` share.

They have the real binding's functions and replay recorded documents; how they behave is set by the
test, and what was called, and on which thread, is kept for it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tests.paths import FIXTURES

RECORDED = FIXTURES / "2.3.2"


@dataclass
class Runtime:
    """The runtime behind the binding."""

    running: bool = True
    initialized: bool = False
    return_code: int = 0
    inits: int = 0
    finalizes: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    concurrent: int = 0
    gate: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    answers: object = None
    failure: Exception | None = None
    _inside: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.concurrent = max(self.concurrent, self._inside)
            self.threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


runtime = Runtime()


class Task:
    """As returned by `async_monitor`."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._complete = False

    def wait(self, max_sec: float) -> dict[int, bytes]:
        with runtime:
            runtime.entered.set()
            if runtime.gate is not None:
                runtime.gate.wait(30)
            if runtime.failure is not None:
                raise runtime.failure
            if not runtime.running:
                return {}
            self._complete = True
            if runtime.answers is not None:
                return runtime.answers  # type: ignore[return-value]
            if runtime.return_code:
                return {}
            name = self._query.replace(":", "_").replace("//", "")
            path = RECORDED / f"{name.replace('pool_stats_', 'pool_stats_', 1)}.msgpack"
            return {0: path.read_bytes()} if path.exists() else {}

    def is_complete(self) -> bool:
        with runtime:
            return self._complete

    def get_return_code(self) -> int:
        with runtime:
            return runtime.return_code


def init(mode: int) -> bool:
    with runtime:
        assert mode == 0
        assert not runtime.initialized
        runtime.inits += 1
        runtime.initialized = runtime.running
        return runtime.running


def finalize() -> None:
    with runtime:
        assert runtime.initialized
        runtime.finalizes += 1
        runtime.initialized = False


def async_monitor(pool_query: str, query: str) -> Task:
    with runtime:
        assert runtime.initialized
        runtime.calls.append((pool_query, query))
        return Task(query)
