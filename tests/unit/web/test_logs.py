from __future__ import annotations

import io
import json
import logging
import re

import pytest

from clio_web import logs


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_logfmt_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "logfmt", stream)
    logs.get_logger("clio_web.server").warning("node is down", node="ares-1", node_id=3, error='said "no"')
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
    logs.get_logger("clio_exporter.engine").bind(cluster="ares").debug(
        "asked", nodes=4, took=0.5, path=object
    )
    (line,) = lines(stream)
    event = json.loads(line)
    assert list(event)[:4] == ["ts", "level", "component", "msg"]
    assert (event["level"], event["component"], event["msg"]) == ("debug", "exporter.engine", "asked")
    assert (event["cluster"], event["nodes"], event["took"]) == ("ares", 4, 0.5)


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_levels(level: str, expected: int) -> None:
    stream = io.StringIO()
    logs.configure(level, "logfmt", stream)
    log = logs.get_logger("clio_exporter.x")
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
        logs.get_logger("clio_exporter.x").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in line
    assert "Traceback" in line


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_hostile_names_cannot_forge_lines(log_format: str) -> None:
    stream = io.StringIO()
    logs.configure("info", log_format, stream)
    hostile = "a\nts=forged\r\x1b[31m\x9b level=error\x00"
    logs.get_logger("clio_exporter.x").info("probe", node=hostile, **{"odd key=": 1})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not set(text) & set("\r\x1b\x9b\x00")


def test_configure_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    logs.configure("info", "json", second)
    logs.get_logger("clio_exporter.x").info("once")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


def test_configure_refuses_unknown_settings() -> None:
    with pytest.raises(ValueError, match="debug, info, warn, error"):
        logs.configure("loud")
    with pytest.raises(ValueError, match="logfmt, json"):
        logs.configure("info", "xml")
