"""The search box against the real node-search endpoint, asked as Grafana's Prometheus data source asks."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_lab.child import ChildProcess
from tests.exporter_process import clean_environment
from tests.ports import free_port
from tests.unit.grafana import boards
from tests.unit.grafana.boards import expand, promql_of_variable

pytest.importorskip("control_api", reason="the control API is not part of this tree")

HOSTS = [f"node{index:02d}.example" for index in range(22)] + ["gpu-a.example", "10.7.0.9"]
START_SECONDS = 120.0


def get(url: str) -> tuple[int, dict[str, object]]:
    # No proxy: the environment's must not see loopback addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served control API whose nodes are all away: the search needs no runtime."""
    home: Path = tmp_path_factory.mktemp("search")
    (home / "hosts").write_text("".join(f"{host}\n" for host in HOSTS))
    port = free_port()
    command = [sys.executable, "-m", "clio_control_api", f"--port={port}", f"--hostfile={home / 'hosts'}"]
    environment = clean_environment(home)
    log = home / "control-api.log"
    with ChildProcess("control API", command, log_path=log, environment=environment, directory=home) as child:
        child.wait_ready(lambda: missing(f"http://127.0.0.1:{port}/-/healthy"), START_SECONDS)
        yield f"http://127.0.0.1:{port}"


def missing(url: str) -> str | None:
    """What a server lacks to be ready, None when it answers."""
    try:
        get(url)
    except ValueError:
        return None  # it answers, and not in JSON
    except OSError as error:
        return str(error)
    return None


def values(address: str, search: str, endpoint: str) -> list[str]:
    """What the variable ``match`` offers for a text in the box."""
    (match,) = [v for v in boards.variables("clio-topology") if v["name"] == "match"]
    query = match["query"]["query"]
    label = re.fullmatch(r"label_values\(.*, *(\w+)\)", query)
    selector = promql_of_variable(query)
    assert label
    assert selector
    given = {"match[]": expand(selector, {"search": search, "cluster": ".*"}), "start": "1", "end": "2"}
    encoded = urllib.parse.urlencode(given)
    if endpoint == "series":
        status, body = get(f"{address}/api/v1/series?{encoded}")
        found = body["data"]
        assert isinstance(found, list)
        offered = list(dict.fromkeys(labels[label[1]] for labels in found))
    else:
        status, body = get(f"{address}/api/v1/label/{label[1]}/values?{encoded}")
        assert isinstance(body["data"], list)
        offered = body["data"]
    assert status == 200, body
    return offered


@pytest.mark.parametrize("endpoint", ["label values", "series"])
@pytest.mark.parametrize(
    ("search", "ids"),
    [
        ("", range(24)),
        ("3", [3]),
        ("1-20", range(1, 21)),
        ("1,3,5", [1, 3, 5]),
        ("gpu", [22]),
        ("10.7.", [23]),
        ("NODE1", range(10, 20)),
    ],
)
def test_every_form_of_search(address: str, search: str, ids: list[int], endpoint: str) -> None:
    offered = values(address, search, endpoint)
    assert len(offered) == 1, "Grafana takes the first value: there must be one"
    # Prometheus anchors regular expressions.
    assert [i for i in range(len(HOSTS)) if re.fullmatch(offered[0], str(i))] == list(ids)


def test_a_search_that_finds_nothing_selects_no_node(address: str) -> None:
    for expression in values(address, "nowhere", "label values"):
        assert not any(re.fullmatch(expression, str(i)) for i in range(len(HOSTS)))


def test_a_bad_search_is_an_error(address: str) -> None:
    """Grafana shows the error at the box and keeps the nodes it had."""
    selector = urllib.parse.quote('clio_node_search{search="5-1"}')
    status, body = get(f"{address}/api/v1/label/node_id_regex/values?match[]={selector}")
    assert status == 400
    assert "1-20" in str(body["error"])
