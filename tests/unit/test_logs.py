from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from exporter import logs


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_logfmt_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "logfmt", stream)
    logs.get_logger("exporter.web.server").warning(
        "node is down", node="ares-1", node_id=3, error='said "no"'
    )
    (line,) = lines(stream)
    stamp, rest = line.split(" ", 1)
    assert re.fullmatch(r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert (
        rest
        == r'level=warn component=web.server msg="node is down" node=ares-1 node_id=3 error="said \"no\""'
    )


def test_json_line_and_bound_fields() -> None:
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    logs.get_logger("exporter.engine").bind(cluster="ares").debug("asked", nodes=4, took=0.5, path=object)
    (line,) = lines(stream)
    event = json.loads(line)
    assert list(event)[:4] == ["ts", "level", "component", "msg"]
    assert (event["level"], event["component"], event["msg"]) == ("debug", "engine", "asked")
    assert (event["cluster"], event["nodes"], event["took"]) == ("ares", 4, 0.5)


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_levels(level: str, expected: int) -> None:
    stream = io.StringIO()
    logs.configure(level, "logfmt", stream)
    log = logs.get_logger("exporter.x")
    for write in (log.debug, log.info, log.warning, log.error):
        write("m")
    assert len(lines(stream)) == expected


def test_library_loggers_come_out_the_same_way() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("cheroot.wsgi").error("lost %s of %d", "one", 3)
    logging.getLogger("werkzeug").info("127.0.0.1 GET /")
    events = [json.loads(line) for line in lines(stream)]
    assert [(e["component"], e["level"], e["msg"]) for e in events] == [
        ("cheroot.wsgi", "error", "lost one of 3")
    ]


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_exception_is_one_line(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure("info", log_format, stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logs.get_logger("exporter.x").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in line
    assert "Traceback" in line


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_hostile_names_cannot_forge_lines(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure("info", log_format, stream)
    hostile = "a\nts=forged\r\x1b[31m\x9b level=error\x00"
    logs.get_logger("exporter.x").info("probe", node=hostile, **{"odd key=": 1})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not set(text) & set("\r\x1b\x9b\x00")


def test_configure_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    logs.configure("info", "json", second)
    logs.get_logger("exporter.x").info("once")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


def test_configure_refuses_unknown_settings() -> None:
    with pytest.raises(ValueError, match="debug, info, warn, error"):
        logs.configure("loud")
    with pytest.raises(ValueError, match="logfmt, json"):
        logs.configure("info", "xml")


def test_uncaught_exception_in_a_thread_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.log_uncaught_in_threads()

    def fail() -> None:
        raise KeyError("gone")

    thread = threading.Thread(target=fail, name="collector-7")
    thread.start()
    thread.join(5)
    event = json.loads(lines(stream)[0])
    assert event["thread"] == "collector-7"
    assert "KeyError: 'gone'" in event["exception"]


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
    log = logs.StateLog(recorder, clock)
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
    log = logs.StateLog(recorder, clock)
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
    log = logs.StateLog(recorder, Clock(), max_keys=3)
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
    log = logs.StateLog(recorder, Clock())
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
