"""Signals that ask a program to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue


@contextmanager
def set_by_signals(event: threading.Event, *numbers: signal.Signals) -> Iterator[None]:
    """Have these signals set `event` inside the block, instead of what they do else. Main thread only.

    A thread sets it, not the handler: that interrupts the main thread anywhere, also in the midst of
    `event.wait()`, which may have the lock then that `event.set()` waits for. A `SimpleQueue` can be put to
    from a handler (its documentation says so).
    """
    came: SimpleQueue[bool] = SimpleQueue()

    def watch() -> None:
        while came.get():
            event.set()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    before = {number: signal.signal(number, lambda *_: came.put(True)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        came.put(False)
        watcher.join()
