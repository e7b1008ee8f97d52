"""The read endpoints: shapes, field names, and nodes that are down or hang."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clio_client.config.runtime_files import RuntimeConfigFiles
from clio_client.membership import Member
from clio_control_api import clusters as clusters_module
from clio_control_api.queries import NodeQueries
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import eventually
from tests.unit.control_api.support import NODES, Api, control_api

NODE_FIELDS = {
    "node_id", "hostname", "ip_address", "alive", "is_leader", "cpu_usage_pct", "ram_usage_pct", "gpu_count",
    "gpu_usage_pct", "hbm_usage_pct",
}  # fmt: skip
READ_PATHS = [
    "/api/topology", "/api/system", "/api/workers", "/api/node/2/workers", "/api/node/2/system_stats",
    "/api/node/2/bdev_stats", "/api/node/2/container_stats", "/api/pools", "/api/config",
    "/api/v1/query?query=clio_node_search",
]  # fmt: skip


def test_topology(api: Api) -> None:
    answer = api.get("/api/topology")
    assert answer.status_code == 200
    assert set(answer.json) == {"nodes"}
    nodes = answer.json["nodes"]
    assert [node["node_id"] for node in nodes] == list(range(NODES))
    assert all(set(node) == NODE_FIELDS for node in nodes)
    assert all(node["alive"] is True for node in nodes)
    assert [node["is_leader"] for node in nodes].count(True) == 1
    assert all(isinstance(node["cpu_usage_pct"], float) for node in nodes)


def test_search(api: Api) -> None:
    def found(text: str) -> list[int]:
        answer = api.get("/api/topology", query_string={"search": text})
        assert answer.status_code == 200, answer.text
        return [node["node_id"] for node in answer.json["nodes"]]

    assert found("3") == [3]
    assert found("1-2,4") == [1, 2, 4]
    assert found("127.96.0.4") == [3]
    assert found("127.96") == list(range(NODES))
    bad = api.get("/api/topology", query_string={"search": "1,,2"})
    assert bad.status_code == 400
    assert "1-20" in bad.json["error"]


def test_workers_and_totals(api: Api) -> None:
    every = api.get("/api/workers").json
    assert set(every) == {"workers", "summary"}
    assert set(every["summary"]) == {"count", "queued", "blocked", "processed"}
    assert {worker["node_id"] for worker in every["workers"]} == set(range(NODES))
    one = api.get("/api/node/1/workers").json
    assert {"worker_id", "num_queued_tasks", "num_tasks_processed", "load"} <= set(one["workers"][0])
    assert one["summary"]["count"] == len(one["workers"])
    assert one["summary"]["queued"] == sum(w["num_queued_tasks"] for w in one["workers"])
    assert one["summary"]["processed"] == sum(w["num_tasks_processed"] for w in one["workers"])
    system = api.get("/api/system").json
    assert set(system) == {"connected", "workers", "queued", "blocked", "processed"}
    assert system["connected"] is True
    assert system["workers"] == every["summary"]["count"]


def test_system_stats_from_an_event_on(api: Api) -> None:
    entries = api.get("/api/node/0/system_stats").json["entries"]
    assert {"event_id", "cpu_usage_pct", "ram_usage_pct", "wall_time_ns"} <= set(entries[0])
    newest = entries[-1]["event_id"]
    later = api.get(f"/api/node/0/system_stats?min_event_id={newest}").json["entries"]
    assert later
    assert later[0]["event_id"] == newest
    assert api.get("/api/node/0/system_stats?min_event_id=-1").status_code == 400


def test_devices_and_containers(api: Api) -> None:
    devices = api.get("/api/node/0/bdev_stats").json["devices"]
    assert len(devices) == 2
    assert {"pool_id", "pool_name", "total_capacity", "remaining_capacity", "iops"} <= set(devices[0])
    containers = api.get("/api/node/0/container_stats").json["containers"]
    assert {"pool_id", "pool_name", "chimod_name", "methods"} <= set(containers[0])
    assert {device["pool_id"] for device in devices} <= {c["pool_id"] for c in containers}


def test_pools_and_configuration(api: Api) -> None:
    pools = api.get("/api/pools").json["pools"]
    assert pools[0] == {
        "mod_name": "clio_bdev", "pool_name": "ram::x", "pool_id": "301.0", "pool_query": "local",
    }  # fmt: skip
    config = api.get("/api/config").json["config"]
    assert config["networking"].pop("password").startswith("<hidden ")
    assert config["networking"] == {"port": 9413}
    (api.home / "clio.yaml").unlink()
    missing = api.get("/api/config")
    assert missing.status_code == 404
    assert "clio.yaml" in missing.json["error"]


def test_a_configuration_on_a_slow_file_system_is_not_a_missing_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(RuntimeConfigFiles, "read_within", slow)
    answer = api.get("/api/config")
    assert answer.status_code == 503
    assert "takes longer" in answer.json["error"]


@pytest.mark.parametrize("fault", ["refused", "hang", "silent", "garbage", "non-zmq", "truncated:40"])
def test_one_bad_node_costs_the_others_nothing(api: Api, simulator: SimulatorProcess, fault: str) -> None:
    simulator.set_fault(2, fault)

    def read(path: str) -> bool:
        started = time.monotonic()
        answer = api.get(path)
        assert time.monotonic() - started < 3, path
        assert answer.status_code == (503 if "/node/2/" in path else 200), (path, answer.text)
        return "/node/2/" not in path or bool(answer.json["error"])

    for path in READ_PATHS:
        # Once: a busy machine may make any node late. A wait for the bad one would be there each time.
        eventually(path, partial(read, path), 20, pause=0.1)
    nodes = api.get("/api/topology").json["nodes"]
    assert [node["alive"] for node in nodes] == [True, True, False, True, True]
    assert set(nodes[2]) == NODE_FIELDS
    assert nodes[2]["cpu_usage_pct"] is None
    assert nodes[2]["is_leader"] is False
    assert api.get("/api/system").json["workers"] == api.get("/api/workers").json["summary"]["count"]


def test_a_node_that_comes_back_is_seen(api: Api, simulator: SimulatorProcess) -> None:
    def alive() -> list[bool]:
        answer = api.get("/api/topology")
        assert answer.status_code == 200, answer.text
        return [node["alive"] for node in answer.json["nodes"]]

    def wait_for(state: bool) -> None:
        deadline = time.monotonic() + 15
        while alive()[3] is not state:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # more often would meet the rate limit

    assert all(alive())
    simulator.set_fault(3, "refused")
    wait_for(False)
    simulator.clear(3)
    wait_for(True)
    simulator.restart_node(3)  # its ring begins anew, behind our cursor, with its first sample in a second
    deadline = time.monotonic() + 15
    while api.get("/api/topology?search=3").json["nodes"][0]["cpu_usage_pct"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nobody_answers(api: Api, simulator: SimulatorProcess) -> None:
    simulator.set_fault(range(NODES), "refused")
    down = api.get("/api/topology")
    assert down.status_code == 200
    assert [node["alive"] for node in down.json["nodes"]] == [False] * NODES
    system = api.get("/api/system")
    assert system.status_code == 503
    assert system.json["connected"] is False
    assert "no runtime answers" in system.json["error"]
    assert api.get("/api/workers").status_code == 503
    node = api.get("/api/node/1/workers")
    assert node.status_code == 503
    assert node.json["error"] == "node_down"
    assert node.json["workers"] == []
    assert node.json["summary"] == {"count": 0, "queued": 0, "blocked": 0, "processed": 0}


def test_many_readers_cost_a_node_one_question(api: Api, simulator: SimulatorProcess) -> None:
    api.get("/api/workers")
    simulator.set_fault(1, "slow:0.7")
    time.sleep(0.6)  # the remembered answers expire
    simulator.reset_stats()
    statuses: list[int] = []

    def read() -> None:
        statuses.append(api.built.app.test_client().get("/api/workers").status_code)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert statuses == [200] * 20
    assert simulator.describe(1)["requests"] <= 2


def test_readers_do_not_wait_one_by_one_for_a_node_that_hangs(
    api: Api, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a question to it is out, and has been waited for once, who asks is told at once."""
    services = api.built.services
    client = services.queries.client
    ask = (services.clusters.members("")[2].address, "worker_stats")
    queries = NodeQueries(client, timeout=60.0, patience=0.05, max_age=0.05)
    simulator.set_fault(2, "refused")
    eventually("it is known to be in trouble", lambda: not queries.ask([ask])[0].ok)
    simulator.set_fault(2, "hang")
    eventually(
        "it was waited for once",
        lambda: queries.ask([ask]) and math.inf in [until for until, _ in queries._recent.values()],
    )
    simulator.reset_stats()
    submitted = []
    submit = client.submit
    monkeypatch.setattr(client, "submit", lambda work: submitted.append(work) or submit(work))
    answers = [queries.ask([ask])[0] for _ in range(200)]
    assert not any(answer.ok for answer in answers)
    # None, but for a host so slow that the question ends meanwhile.
    assert len(submitted) < 20
    assert simulator.describe(2)["requests"] < 20


def test_readers_share_the_look_at_who_is_a_member(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = api.built.services.clusters
    before = clusters.members("")
    looks, entered, gate = [], threading.Semaphore(0), threading.Event()

    async def look(*_: object) -> None:
        looks.append(1)
        await asyncio.to_thread(gate.wait, 30)

    join = clusters._refreshes.join

    def joined(*arguments: Any) -> Any:
        found = join(*arguments)
        entered.release()
        return found

    monkeypatch.setattr(clusters_module, "refresh_members", look)
    monkeypatch.setattr(clusters._refreshes, "join", joined)
    found: list[tuple[Member, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(clusters.members(""))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert entered.acquire(timeout=30)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert found == [before] * 20
    assert looks == [1]


def test_node_ids(api: Api) -> None:
    for text in ("99", "123456789"):
        answer = api.get(f"/api/node/{text}/workers")
        assert answer.status_code == 404
        assert "/api/topology" in answer.json["error"]
    for text in ("x", "-1", "1.0", "1234567890", "%20", "0x1", "٣"):
        assert api.get(f"/api/node/{text}/workers").status_code == 400


def test_several_clusters_are_told_apart(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> None:
    lines = hosts.splitlines(keepends=True)
    with control_api(tmp_path, hosts) as built:
        (built.home / "a").write_text("".join(lines[:2]))
        (built.home / "b").write_text("".join(lines[2:]))
        (built.home / "exporter.yaml").write_text(
            "clusters: [{name: a, hostfile: a, runtime_config: clio.yaml}, {name: b, hostfile: b}]"
        )
        from clio_control_api.cli import application, settings_from

        settings = settings_from({"config": str(built.home / "control.yaml"), "port": "0"}, {}, built.home)
        with application(settings, {}, built.home) as two:
            client = two.app.test_client()
            unnamed = client.get("/api/topology")
            assert unnamed.status_code == 400
            assert "a, b" in unnamed.json["error"]
            assert len(client.get("/api/topology?cluster=b").json["nodes"]) == 3
            assert client.get("/api/topology?cluster=c").status_code == 404
            assert client.get("/api/node/0/workers?cluster=b").status_code == 200
            series = client.get("/api/v1/series?match[]=clio_node_search").json["data"]
            assert [s["cluster"] for s in series] == ["a", "a", "b", "b", "b"]


@pytest.mark.parametrize("version", ["1.x", "a", "1.0.0.0.0", "1" * 5000])
def test_metrics_in_a_version_that_is_none_are_plain(api: Api, version: str) -> None:
    answer = api.get(
        "/metrics", headers={"Accept": f"application/openmetrics-text; version={version}, text/plain"}
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    newer = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
