"""Repeated states are logged rarely."""

from __future__ import annotations

import threading
from typing import Any

from clio_web.state_log import StateLog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """Stands where a logger stands and keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, message: str, **fields: Any) -> None:
        self.events.append(("info", message, fields))

    def warning(self, message: str, **fields: Any) -> None:
        self.events.append(("warn", message, fields))


def test_state_log_backs_off() -> None:
    clock, recorder = Clock(), Recorder()
    log = StateLog(recorder, clock)
    start = clock.now
    logged_at = []
    while clock.now - start <= 3 * 3600:
        before = len(recorder.events)
        log.report("n1", False, "node is down", node="n1")
        if len(recorder.events) > before:
            logged_at.append(clock.now - start)
        clock.now += 5
    assert logged_at == [0, 60, 660, 660 + 3600, 660 + 7200]
    assert [fields.get("suppressed") for _, _, fields in recorder.events] == [None, 11, 119, 719, 719]
    assert recorder.events[1][2] == {"node": "n1", "suppressed": 11, "down_seconds": 60.0}


def test_state_log_transitions() -> None:
    clock, recorder = Clock(), Recorder()
    log = StateLog(recorder, clock)
    log.report("n1", True, "up")
    assert recorder.events == []  # never seen down: nothing to tell
    log.report("n1", False, "down")
    log.report("n1", False, "down")
    clock.now += 7.5
    log.report("n2", True, "up")
    log.report("n1", True, "up", node="n1")
    log.report("n1", True, "up", node="n1")
    log.report("n1", False, "down")
    assert recorder.events == [
        ("warn", "down", {}),
        ("info", "up", {"node": "n1", "suppressed": 1, "down_seconds": 7.5}),
        ("warn", "down", {}),
    ]


def test_state_log_memory_is_bounded() -> None:
    recorder = Recorder()
    log = StateLog(recorder, Clock(), max_keys=3)
    for key in range(10):
        log.report(key, False, "down")
    assert len(log) == 3
    log.forget(9)
    log.forget("never seen")
    assert len(log) == 2
    log.report(8, True, "up")
    assert len(log) == 1


def test_state_log_from_many_threads() -> None:
    recorder = Recorder()
    log = StateLog(recorder, Clock())
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(5)
        for _ in range(200):
            log.report("n1", False, "down")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    log.report("n1", True, "up")
    assert [event[0] for event in recorder.events] == ["warn", "info"]
    assert recorder.events[-1][2]["suppressed"] == 8 * 200 - 1
