"""The client logs through `logging`, with its fields, whether or not a service has configured that."""

from __future__ import annotations

import io
import json
import logging

import pytest

from clio_client.logs import get_logger
from clio_web import logs as service_logs


def test_fields_arrive_where_a_service_configures_logging() -> None:
    stream = io.StringIO()
    service_logs.configure("info", "json", stream)
    get_logger("clio_client.membership").warning("unreadable", node="n0:9413")
    event = json.loads(stream.getvalue())
    assert (event["level"], event["component"], event["msg"]) == ("warn", "client.membership", "unreadable")
    assert event["node"] == "n0:9413"


def test_fields_are_extra_for_anybody_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clio_client"):
        get_logger("clio_client.membership").warning("unreadable", node="n0:9413")
    (record,) = caplog.records
    assert (record.message, vars(record)["node"]) == ("unreadable", "n0:9413")
