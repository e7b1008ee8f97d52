"""Operations over HTTP: endpoints, events and pages, on simulated nodes. SSH leads nowhere here, or hangs."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clio_control_api.operations import stream
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.support import TOKENS, Api, control_api

ANNA, VERA = TOKENS["anna"][1], TOKENS["vera"][1]
ROLLING = "/api/topology/rolling-restart"


@pytest.fixture
def hung(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A control API whose SSH connections are never answered: an operation stays at its first node."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ssh = {"host": "127.0.0.1", "port": silent.getsockname()[1], "connect_timeout": "20s"}
        with control_api(tmp_path, hosts, tokens=True, ssh=ssh, limits={"max_listeners": 2}) as built:
            yield built


@pytest.fixture
def closed(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A control API whose SSH connections are refused: an operation fails at its first node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with control_api(tmp_path, hosts, tokens=True, ssh={"host": "127.0.0.1", "port": port}) as built:
        yield built


def await_end(api: Api, operation: str, seconds: float = 20) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = api.get(f"/api/operations/{operation}", VERA).json
        if found["state"] not in ("running", "paused", "aborting"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_an_operation_that_fails_at_its_first_node(closed: Api) -> None:
    begun = closed.post(ROLLING, ANNA, json={"nodes": "0-2", "reason": "kernel"})
    assert begun.status_code == 202, begun.text
    assert begun.headers["Location"] == f"/api/operations/{begun.json['id']}"
    assert [node["node_id"] for node in begun.json["nodes"]] == [1, 2, 0]
    ended = await_end(closed, begun.json["id"])
    assert ended["state"] == "failed"
    assert ended["message"].startswith("node 1 did not restart: ")
    assert [node["state"] for node in ended["nodes"]] == ["failed", "skipped", "skipped"]
    assert (ended["actor"], ended["reason"], ended["client"]) == ("anna", "kernel", "127.0.0.1")
    (listed,) = closed.get("/api/operations", VERA).json["operations"]
    assert (listed["id"], listed["total"], listed["done"], "nodes" in listed) == (ended["id"], 3, 0, False)
    begin = next(line for line in closed.audit() if line["event"] == "begin")
    assert (begin["operation"], begin["reason"], begin["actor"]) == (ended["id"], "kernel", "anna")
    metrics = closed.get("/metrics", VERA).text
    assert 'clio_control_operations_total{action="restart",outcome="failed"} 1.0' in metrics


def test_what_is_not_accepted(closed: Api) -> None:
    for body in ({}, {"nodes": 1}, {"nodes": "", "x": 1}, {"nodes": "9-1"}, {"nodes": "77"}, [], None):
        assert closed.post(ROLLING, ANNA, json=body).status_code == 400, body
    assert closed.post(ROLLING, ANNA, data="nodes=").status_code == 400
    deep = b"[" * 4000
    assert closed.post(ROLLING, ANNA, data=deep, content_type="application/json").status_code == 400
    assert closed.post(ROLLING, ANNA, json={"nodes": "", "cluster": "none"}).status_code == 404
    assert closed.post(ROLLING, VERA, json={"nodes": ""}).status_code == 403
    assert closed.post(ROLLING, json={"nodes": ""}).status_code == 401
    assert closed.get(f"/api/operations/{'0' * 16}", VERA).status_code == 404
    assert closed.get(f"/api/operations/{'0' * 16}/events", VERA).status_code == 404
    assert closed.post(f"/api/operations/{'0' * 16}/abort", ANNA).status_code == 404
    assert closed.get("/api/operations", VERA).json == {"operations": []}


def test_one_at_a_time_and_no_single_action_on_its_nodes(hung: Api) -> None:
    begun = hung.post(ROLLING, ANNA, json={"nodes": "1-2"}).json
    second = hung.post("/api/topology/rolling-shutdown", ANNA, json={"nodes": "4"})
    assert (second.status_code, second.json["operation"]) == (409, begun["id"])
    single = hung.post("/api/topology/node/2/restart", ANNA)
    assert (single.status_code, single.json["operation"]) == (409, begun["id"])
    path = f"/api/operations/{begun['id']}"
    assert hung.post(f"{path}/resume", ANNA).status_code == 409
    assert hung.post(f"{path}/pause", VERA).status_code == 403
    assert hung.post(f"{path}/pause", ANNA).json["state"] == "paused"
    assert hung.post(f"{path}/abort", ANNA).json["state"] == "aborting"


def test_events_until_the_end(hung: Api) -> None:
    hung.built.server.start()
    try:
        port = hung.built.server.addresses[0][1]
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, headers={"Authorization": f"Bearer {ANNA}"}
        ) as client:
            begun = client.post(ROLLING, json={"nodes": "1-2"}).json()
            path = f"/api/operations/{begun['id']}"
            with client.stream("GET", f"{path}/events") as first, client.stream("GET", f"{path}/events"):
                assert first.headers["content-type"].startswith("text/event-stream")
                # No more than two at once here; all else is served meanwhile.
                refused = client.get(f"{path}/events")
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
                assert client.get("/api/topology").status_code == 200
                lines = first.iter_lines()
                whole = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
                assert [node["node_id"] for node in whole["nodes"]] == [1, 2]
                client.post(f"{path}/pause")
                paused = next(
                    found
                    for line in lines
                    if line.startswith("data: ") and (found := json.loads(line[6:]))["state"] == "paused"
                )
                assert len(paused["nodes"]) < 2
            # Who has gone makes room, once it is noticed.
            deadline = time.monotonic() + 3 * stream.HEARTBEAT_S
            while client.get(path).json()["state"] == "paused":
                with client.stream("GET", f"{path}/events") as again:
                    if again.status_code == 200:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        hung.built.server.stop()


def test_the_stream_ends_with_the_operation(closed: Api) -> None:
    begun = closed.post(ROLLING, ANNA, json={"nodes": "1"}).json
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(closed.get(f"/api/operations/{begun['id']}/events", VERA).text)
    )
    thread.start()
    thread.join(30)
    assert found[0].startswith("retry: ")
    last = found[0].strip().split("\n\n")[-1]
    assert "event: end" in last
    assert json.loads(last.rpartition("data: ")[2])["state"] == "failed"


# --- pages ----------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A logged-in operator's browser, as far as these pages can tell."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ssh = {"host": "127.0.0.1", "port": silent.getsockname()[1], "connect_timeout": "20s"}
        with control_api(tmp_path, hosts, tokens=True, ssh=ssh) as built:
            log_in(built, ANNA)
            yield built


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return found[1]


def log_in(api: Api, token: str) -> None:
    page = api.get("/login").text
    answer = api.post("/login", data={"csrf": field(page, "csrf"), "token": token, "next": ""})
    assert answer.status_code == 303, answer.text


def test_the_way_from_the_first_page_to_an_operation(local: Api) -> None:
    index = local.get("/")
    assert index.status_code == 200
    assert 'href="/operations/restart"' in index.text
    page = local.get("/operations/restart?nodes=0-1&max_unavailable=1&wait=30&order=leader-last").text
    assert page.index("Node 1 ") < page.index("Node 0 ")
    assert "Cancel" in page
    form = {name: field(page, name) for name in ("csrf", "plan", "nodes", "order", "max_unavailable", "wait")}
    begun = local.post("/operations/restart", data={**form, "reason": "kernel & <more>"})
    assert begun.status_code == 303, begun.text
    where = begun.headers["Location"]
    shown = local.get(where)
    assert "kernel &amp; &lt;more&gt;" in shown.text
    assert '<noscript><meta http-equiv="refresh"' in shown.text
    assert "script-src 'self'" in shown.headers["Content-Security-Policy"]
    assert "script-src" not in index.headers["Content-Security-Policy"]
    listed = local.get("/operations").text
    assert f'href="{where}"' in listed
    # A second one is told of the first, in the plan already.
    busy = local.get("/operations/shutdown?nodes=4").text
    assert f'href="{where}"' in busy
    assert 'id="confirm"' not in busy
    csrf = field(shown.text, "csrf")
    assert local.post(f"{where}/pause", data={"csrf": "wrong"}).status_code == 403
    assert local.post(f"{where}/pause", data={"csrf": csrf}).status_code == 303
    csrf = field(local.get(where).text, "csrf")
    assert local.post(f"{where}/abort", data={"csrf": csrf}).status_code == 303
    assert ">aborting<" in local.get(where).text


def test_a_plan_that_has_changed_is_shown_again(local: Api) -> None:
    page = local.get("/operations/restart?nodes=0-1").text
    form = {name: field(page, name) for name in ("csrf", "nodes", "order", "max_unavailable", "wait")}
    answer = local.post("/operations/restart", data={**form, "plan": "of another time"})
    assert answer.status_code == 409
    assert "the plan has changed" in answer.text
    assert local.get("/api/operations", ANNA).json == {"operations": []}


def test_pages_without_a_log_in_or_with_nonsense(local: Api, guarded: Api) -> None:
    assert guarded.get("/").status_code == 200
    assert guarded.get("/operations/restart").headers["Location"] == "/login?next=%2Foperations%2Frestart"
    assert guarded.get("/operations").status_code == 302
    for query in ("nodes=9-1", "nodes=77", "wait=x", "max_unavailable=0", "order=odd"):
        answer = local.get(f"/operations/restart?{query}")
        assert answer.status_code == 200, query
        assert 'id="confirm"' not in answer.text, query
        assert "Cancel" in answer.text
    assert local.get(f"/operations/{'0' * 16}").status_code == 404
