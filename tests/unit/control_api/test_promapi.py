"""The selector parser and the series it selects."""

from __future__ import annotations

import http.client
import json
import re
import socket
import tracemalloc
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clio_control_api.api import Reads, TopologyNode
from clio_control_api.json_stream import PIECE, pieces
from clio_control_api.promapi import Matcher, PromError, ids_regex, parse_selector, select
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.support import NODES, Api, control_api

ALL = [
    TopologyNode(f"node{i}", {"node_id": i, "hostname": f"10.0.0.{i}", "ip_address": f"10.0.0.{i}"})
    for i in range(6)
]
"""Nodes by names in the exporter's hostfile, and by addresses in the runtimes' own."""


def series(texts: Sequence[str], clusters: Mapping[str, Sequence[TopologyNode]]) -> list[dict[str, str]]:
    return list(chain.from_iterable(select([parse_selector(text) for text in texts], clusters)))


def ids(text: str) -> list[str]:
    return [labels["node_id"] for labels in series([text], {"c": ALL})]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("clio_node_search", "012345"),
        ("clio_node_search{}", "012345"),
        ('clio_node_search{search="1-3"}', "123"),
        ("clio_node_search{search='1-3',}", "123"),
        ("{__name__=`clio_node_search`, search=`node4`}", "4"),
        ("clio_node_search{search='10.0.0.4'}", "4"),
        ("clio_node_search{search='NODE'}", "012345"),
        ('clio_node_search{hostname="node4"}', "4"),
        ('clio_node_search{hostname="10.0.0.4"}', ""),
        ('clio_node_search{search="",node_id=~"1|4"}', "14"),
        ('clio_node_search{node_id=~"(1|4)",hostname!="node4"}', "1"),
        ('clio_node_search{cluster=~".*"}', "012345"),
        ('clio_node_search{cluster=~"c",hostname=~".+"}', "012345"),
        ('clio_node_search{ip_address=~"10\\\\.0\\\\.0\\\\.3"}', "3"),
        ('clio_node_search{cluster!~"c"}', ""),
        ("other_metric", ""),
    ],
)
def test_selects(text: str, found: str) -> None:
    assert "".join(ids(text)) == found


@pytest.mark.parametrize(
    "text",
    ["", "{}", "up{", 'a{b="c}', "a{b=c}", "a{b~'c'}", "a}b", "sum(a)", "a{b='c' d='e'}", "a{b='\\x'}",
     "a{search=~'1'}", "a{search='5-1'}", "a{search='$(id)'}", "x" * 5000, 'a{b="c"}[5m]', "a\x00"],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(PromError):
        parse_selector(text)


def test_no_regular_expression_from_a_request_is_run() -> None:
    with pytest.raises(PromError, match="alternatives of plain texts"):
        Matcher.compiled("hostname", "=~", "(a+)+$").matches("a" * 50)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        series([text], {"c": ALL})
    except PromError:
        return


@given(st.text(st.characters(codec="ascii", exclude_characters="\n\r\t"), max_size=30))
def test_quoting_brings_any_search_through(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    try:
        selector = parse_selector(f"clio_node_search{{search='{quoted}'}}")
    except PromError as error:
        refused = str(error)
    else:
        refused = ""
        assert selector.search == text
    assert not refused or refused.startswith("search:")  # read whole; refused as a search only


@given(st.sets(st.integers(0, 3000), min_size=1, max_size=200), st.integers(1, 1200))
def test_the_expression_for_ids_means_them_and_no_others(scattered: set[int], run: int) -> None:
    ids = scattered | set(range(min(scattered), min(scattered) + run))
    expression = re.compile(ids_regex(sorted(ids)))
    assert {number for number in range(4500) if expression.fullmatch(str(number))} == ids


def test_the_expression_for_neighbours_is_short() -> None:
    assert ids_regex([3, 1]) == "3|1"
    assert ids_regex(range(8, 27)) == "[8-9]|1[0-9]|2[0-6]"
    assert ids_regex(range(1024)) == "[0-9]|[1-9][0-9]|[1-9][0-9][0-9]|10[0-1][0-9]|102[0-3]"


def test_alternatives_are_bounded() -> None:
    parse_selector('clio_node_search{hostname=~"' + "|".join("a" * 256) + '"}')
    with pytest.raises(PromError, match="257 alternatives, more than 256"):
        parse_selector('clio_node_search{hostname=~"' + "|".join("a" * 257) + '"}')


LARGE = [
    TopologyNode(f"n{i:04}", {"node_id": i, "hostname": f"n{i:04}", "ip_address": f"10.{i % 7}.0.{i % 251}"})
    for i in range(1024)
]


def test_what_a_large_cluster_answers_with_is_bounded() -> None:
    """1,024 nodes and sixteen searches that each mean hundreds with scattered ids."""
    texts = [f"clio_node_search{{search='.{n}'}}" for n in range(16)]
    one = json.dumps(series(texts[1:2], {"c": LARGE}))
    assert 100_000 < len(one) < 1_000_000
    assert len(json.dumps(series(texts, {"c": LARGE}))) < 5_000_000
    many = {f"c{number}": LARGE for number in range(40)}
    with pytest.raises(PromError, match="narrow the search"):
        select([parse_selector(text) for text in texts], many)
    assert len(series(["clio_node_search"], many)) == 40 * 1024


def test_selectors_that_overlap_give_each_series_once() -> None:
    found = series(
        [f"clio_node_search{{{matcher}}}" for matcher in ("node_id=~'1|2'", "node_id=~'2|3'", "search='2'")],
        {"c": ALL},
    )
    assert [(labels["node_id"], labels["search"]) for labels in found] == [
        ("1", ""), ("2", ""), ("3", ""), ("2", "2"),
    ]  # fmt: skip


BIG: Final = "clio_node_search{search='.1'}"
"""Some 600 of the 1,024 nodes, whose ids are scattered: half a megabyte."""


def test_a_large_answer_is_made_as_it_is_sent() -> None:
    """What is held of it at a time does not grow with it."""
    selections = select([parse_selector(BIG)], {f"c{number}": LARGE for number in range(6)})
    rows = chain.from_iterable(selections)
    most = largest = size = 0
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for piece in pieces("[", rows, "]"):
            largest, size = max(largest, len(piece)), size + len(piece)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert size > 50 * PIECE
    assert largest < 2 * PIECE
    assert most < size / 4


@pytest.fixture
def large(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """A control API of 1,024 nodes, as far as a search sees."""
    monkeypatch.setattr(Reads, "nodes", lambda _self, _cluster: LARGE)
    return api


@pytest.mark.parametrize(("path", "parameter"), [("series", "match[]"), ("query", "query")])
def test_a_large_answer_is_streamed_and_whole(large: Api, path: str, parameter: str) -> None:
    expected = series([BIG], {"": LARGE})
    large.built.server.start()
    host, port = large.built.server.addresses[0]
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        for search, streamed in ((BIG, True), ("clio_node_search{search='3'}", False), (BIG, True)):
            connection.request("GET", f"/api/v1/{path}?{urlencode({parameter: search})}")
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "application/json"
            assert (answer.headers["Transfer-Encoding"] == "chunked") is streamed
            assert (answer.headers["Content-Length"] is None) is streamed
            data = json.loads(answer.read())["data"]
            found = data if path == "series" else [row["metric"] for row in data["result"]]
            assert found == expected if streamed else len(found) == 1
    finally:
        connection.close()
        large.built.server.stop()


def test_nodes_are_asked_once_for_all_selectors(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a hung node would cost its patience sixteen times."""
    asked = []
    nodes = Reads.nodes
    monkeypatch.setattr(Reads, "nodes", lambda self, cluster: asked.append(cluster) or nodes(self, cluster))
    data(api, "/api/v1/series", **{"match[]": [f"clio_node_search{{search='{n}'}}" for n in range(16)]})
    assert asked == [""]


def test_an_answer_has_each_series_once_and_so_many_selectors(api: Api) -> None:
    same = ["clio_node_search{search='1-2'}"] * 40
    assert len(data(api, "/api/v1/series", **{"match[]": same})) == 2
    many = [f"clio_node_search{{search='{n}'}}" for n in range(17)]
    for path in ("/api/v1/series", "/api/v1/label/node_id/values"):
        answer = api.get(path, query_string={"match[]": many})
        assert answer.status_code == 400
        assert "17 different match[]" in answer.json["error"]


@pytest.mark.parametrize("text", ["9" * 257, "x" * 5000, "1-", "!" * 250, ",".join("1" * 65), "\x00", "1-0"])
def test_an_invalid_search_is_refused_however_long(api: Api, text: str) -> None:
    assert api.get("/api/topology", query_string={"search": text}).status_code == 400
    answer = api.get("/api/v1/series", query_string={"match[]": f'clio_node_search{{search="{text}"}}'})
    assert answer.status_code == 400
    assert len(answer.json["error"]) < 500


def data(api: Api, path: str, **query: Any) -> Any:
    answer = api.get(path, query_string=query)
    assert answer.status_code == 200, answer.text
    assert answer.json["status"] == "success"
    return answer.json["data"]


def test_a_variable_by_series(api: Api) -> None:
    found = data(api, "/api/v1/series", **{"match[]": "clio_node_search{search='1-2'}"})
    assert [labels["node_id"] for labels in found] == ["1", "2"]
    posted = api.post("/api/v1/series", data={"match[]": "clio_node_search{search='1-2'}"})
    assert posted.json["data"] == found


def test_a_variable_by_label_values(api: Api) -> None:
    path = "/api/v1/label/{}/values"
    match = {"match[]": "clio_node_search{search='1,3'}"}
    assert data(api, path.format("node_id"), **match) == ["1", "3"]
    assert data(api, path.format("node_id_regex"), **match) == ["1|3"]
    everything = {"match[]": "clio_node_search{search=''}"}
    assert data(api, path.format("node_id"), **everything) == [str(i) for i in range(NODES)]
    assert data(api, path.format("node_id_regex"), **everything) == [".*"]
    nothing = {"match[]": "clio_node_search{search='nowhere'}"}
    assert data(api, path.format("node_id"), **nothing) == []
    assert data(api, path.format("node_id_regex"), **nothing) == ["^$"]


def test_nodes_are_found_by_the_names_of_both_hostfiles(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter's hostfile says compute-1, the runtimes call themselves 127.96.0.2."""
    resolve = socket.getaddrinfo

    def resolve_compute(host: str, *args: Any, **kwargs: Any) -> Any:
        number = str(host).removeprefix("compute-")
        return resolve(f"127.96.0.{int(number) + 1}" if number.isdigit() else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_compute)
    port = hosts.split()[0].partition(":")[2]
    with control_api(tmp_path, "".join(f"compute-{i}:{port}\n" for i in range(NODES))) as api:
        for text in ("compute-3", "127.96.0.4"):
            found = api.get("/api/topology", query_string={"search": text}).json["nodes"]
            assert [(n["node_id"], n["hostname"]) for n in found] == [(3, "127.96.0.4")]  # as it always was
            match = {"match[]": f"clio_node_search{{search='{text}'}}"}
            (series,) = data(api, "/api/v1/series", **match)
            assert series["node_id"] == "3"
            assert series["hostname"] == "compute-3"  # what the metrics have
            assert series["ip_address"] == "127.96.0.4"
        names = [f"compute-{i}" for i in range(NODES)]
        assert data(api, "/api/v1/label/hostname/values") == names


def test_instant_queries(api: Api) -> None:
    found = data(api, "/api/v1/query", query='clio_node_search{search="2"}', time="5")
    assert found["resultType"] == "vector"
    assert [(row["metric"]["node_id"], row["value"]) for row in found["result"]] == [("2", [5.0, "1"])]
    assert data(api, "/api/v1/query", query="1+1")["result"][1] == "2"


def test_a_bad_search_is_bad_data(api: Api) -> None:
    answer = api.get("/api/v1/series", query_string={"match[]": "clio_node_search{search='a b'}"})
    assert answer.status_code == 400
    assert answer.json["errorType"] == "bad_data"
    assert "1-20" in answer.json["error"]
