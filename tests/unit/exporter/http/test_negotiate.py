from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from clio_exporter.http.negotiate import (
    MAX_TIMEOUT,
    TEXT_CONTENT_TYPE,
    BadRequest,
    collector_filter,
    exposition_format,
    gzip_accepted,
    probe_target,
    scrape_timeout,
)

# What Prometheus sends: 2.42 (scrape/scrape.go) and 3.x with its default scrape protocols.
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
OM_1 = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OM_0 = "application/openmetrics-text; version=0.0.1; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS_2_42, OM_1),
        (PROMETHEUS_3, OM_1),
        ("application/openmetrics-text", OM_1),
        ("application/openmetrics-text;version=0.0.1", OM_0),
        ('application/openmetrics-text; version="1.0.0"; charset=utf-8', OM_1),
        ("application/openmetrics-text;version=2.0.0", TEXT_CONTENT_TYPE),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=0.0.1;q=0.2", OM_0),
        (
            "application/openmetrics-text;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.7",
            TEXT_CONTENT_TYPE,
        ),
        ("text/plain,application/openmetrics-text", TEXT_CONTENT_TYPE),
        ("application/openmetrics-text,text/plain", OM_1),
        ("application/openmetrics-text;q=0", TEXT_CONTENT_TYPE),
        ("application/openmetrics-text;q=x", TEXT_CONTENT_TYPE),
        ("application/openmetrics-text;version=1.0.0;q=0.001", OM_1),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            TEXT_CONTENT_TYPE,
        ),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT_CONTENT_TYPE),
        ("*/*", TEXT_CONTENT_TYPE),
        ("", TEXT_CONTENT_TYPE),
        (None, TEXT_CONTENT_TYPE),
    ],
)
def test_exposition_format(accept: str | None, expected: str) -> None:
    assert exposition_format(accept) == (expected.startswith("application/openmetrics-text"), expected)


@pytest.mark.parametrize("accept", [PROMETHEUS_2_42, PROMETHEUS_3, "*/*", "", "text/plain"])
def test_chooses_the_same_family_as_the_client_library(accept: str) -> None:
    theirs = choose_encoder(accept)[1].split(";")[0]
    assert exposition_format(accept)[1].split(";")[0] == theirs


@given(st.text(max_size=200))
def test_any_accept_header_is_answered(accept: str) -> None:
    openmetrics, content_type = exposition_format(accept)
    assert openmetrics == content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("GZIP;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *;q=1", False),
        ("*;q=0", False),
        ("identity", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("deflate", False),
        ("", False),
    ],
)
def test_gzip_accepted(header: str, expected: bool) -> None:
    assert gzip_accepted(parse_accept_header(header, Accept)) is expected


@pytest.mark.parametrize(
    ("header", "offset", "expected"),
    [
        (None, 0.25, 10.0),
        ("5", 0.25, 4.75),
        ("10.000000", 0.25, 9.75),
        (" 5 ", 0.0, 5.0),
        (".5", 0.25, 0.25),
        ("0.3", 0.25, 0.15),  # the offset would leave next to nothing: half of the timeout instead
        ("1", 30.0, 0.5),
        ("99999999999", 0.25, MAX_TIMEOUT - 0.25),
    ],
)
def test_scrape_timeout(header: str | None, offset: float, expected: float) -> None:
    assert scrape_timeout(header, offset, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "abc",
        "-1",
        "0",
        "0.0",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e3",
        "1_0",
        "0x10",
        "5s",
        "1" * 400,
        "\u096b",
    ],
)
def test_scrape_timeout_refuses_garbage(header: str) -> None:
    with pytest.raises(BadRequest, match="X-Prometheus-Scrape-Timeout-Seconds"):
        scrape_timeout(header, 0.25, 10.0)


def test_collector_filter() -> None:
    enabled = ("node", "worker", "bdev")
    assert collector_filter([], [], enabled) is None
    assert collector_filter(["worker", "node", "worker"], [], enabled) == {"worker", "node"}
    assert collector_filter([], ["worker"], enabled) == {"node", "bdev"}
    for collect, exclude in ((["wrker"], []), ([], ["wrker"]), ([""], [])):
        with pytest.raises(BadRequest, match="enabled are: bdev, node, worker"):
            collector_filter(collect, exclude, enabled)
    with pytest.raises(BadRequest, match="cannot be combined"):
        collector_filter(["node"], ["worker"], enabled)


@pytest.mark.parametrize(
    "target",
    ["node1:9413", "node-1.cluster_a.example.org:1", "192.0.2.7:65535", "[2001:db8::7]:9413", "[::1]:80"],
)
def test_probe_target(target: str) -> None:
    assert probe_target([target]) == target


@pytest.mark.parametrize(
    "targets",
    [
        [],
        ["a:1", "b:2"],
        [""],
        ["node1"],
        [":9413"],
        ["node1:"],
        ["node1:0"],
        ["node1:65536"],
        ["node1:-1"],
        ["node1:+80"],
        ["node1:\uff19"],
        ["http://node1:9413"],
        ["node1:9413/metrics"],
        ["a b:1"],
        ["node1\n:1"],
        ["node1:9413\n"],
        ["2001:db8::7:9413"],
        ["[node1]:9413"],
        ["[::1%lo]:9413"],
        ["user@node1:1"],
        ["a" * 254 + ":1"],
    ],
)
def test_probe_target_refuses(targets: list[str]) -> None:
    with pytest.raises(BadRequest, match="argument target"):
        probe_target(targets)
