"""Every query over real sockets, compared with what was recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from clio_lab.simulator import model
from tests.paths import FIXTURES
from tests.unit.lab.simulator.conftest import GENERATIONS, NODES, Simulation
from tests.unit.lab.simulator.raw_client import VERSION

EACH_GENERATION = pytest.mark.parametrize("index", [1, 4, 5], ids="CBA")


def recorded(index: int, name: str):
    version = VERSION[GENERATIONS.get(index, "C")]
    (result,) = json.loads((FIXTURES / version / f"{name}.json").read_text())["results"].values()
    return result


def between(simulation: Simulation, index: int, ask: Callable[[], object]) -> tuple[object, int, int]:
    """An answer with the node's age in nanoseconds before and after it."""
    started = simulation.process.describe(index)["server_generation"]
    before = model.clock_ns() - started
    return ask(), before, model.clock_ns() - started


@EACH_GENERATION
def test_client_connect_names_the_process(simulation: Simulation, index: int) -> None:
    described = simulation.process.describe(index)
    with simulation.client(index) as client:
        answer = client.connect()
        assert answer is not None
        assert answer.process == (described["pid"], described["server_generation"])
        assert answer.rc == 0
        if client.generation != "A":
            assert answer.identity == f"127.96.0.{index + 1}:{described['pid']}:0".encode()
    processes = {
        (node["pid"], node["server_generation"]) for node in map(simulation.process.describe, range(NODES))
    }
    assert len(processes) == NODES


@EACH_GENERATION
def test_worker_stats(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        results, before, after = between(simulation, index, lambda: client.results("worker_stats"))
    workers = results[index]
    assert [worker["worker_id"] for worker in workers] == list(range(8))
    for number, worker in enumerate(workers):
        assert list(worker) == list(recorded(1, "worker_stats")[0])
        for key, counter in (
            ("num_tasks_processed", model.tasks_processed),
            ("idle_iterations", model.idle_iterations),
        ):
            assert counter(index, number, before, 1.0) <= worker[key] <= counter(index, number, after, 1.0)
        assert worker["load"] == worker["num_queued_tasks"] * model.LOAD_PER_TASK


@EACH_GENERATION
def test_system_stats_is_a_ring_with_a_cursor(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        results, before, after = between(simulation, index, lambda: client.results("system_stats:0"))
        samples = results[index]
        ids = [sample["event_id"] for sample in samples]
        assert ids == list(range(ids[0], ids[0] + 1024))
        assert model.newest_event(before) <= ids[-1] <= model.newest_event(after)
        first = recorded(index, "system_stats_0")[0]
        described = simulation.process.describe(index)
        for sample in samples[:3]:
            assert list(sample) == list(first)
            assert sample["ram_total_bytes"] == first["ram_total_bytes"]
            free = 100 - sample["ram_usage_pct"]
            assert free == pytest.approx(
                100 * sample["ram_available_bytes"] / first["ram_total_bytes"], abs=1e-4
            )
            assert (
                sample["timestamp_ns"] == described["server_generation"] + sample["event_id"] * model.SECOND
            )
            assert (sample["node_id"], sample["hostname"]) == (index, f"127.96.0.{index + 1}")
            assert sample["is_leader"] is False
        assert abs(samples[-1]["wall_time_ns"] - time.time_ns()) < 3 * model.SECOND
        newest = ids[-1]
        later = client.results(f"system_stats:{newest - 2}")[index]
        assert [sample["event_id"] for sample in later][:3] == [newest - 2, newest - 1, newest]
        assert len(later) <= 5
        assert client.results(f"system_stats:{newest + 1000}") == {index: []}
        assert len(client.results("system_stats")[index]) == 1024
        assert len(client.results("system_stats:soon")[index]) == 1024


def test_new_samples_come_with_time(simulation: Simulation) -> None:
    with simulation.client(0) as client:
        newest = client.results("system_stats:1500")[0][-1]["event_id"]
        deadline = time.monotonic() + 5
        more: list = []
        while not more and time.monotonic() < deadline:
            more = client.results(f"system_stats:{newest + 1}")[0]
        assert more[0]["event_id"] == newest + 1
        assert more[0]["is_leader"] is True


@EACH_GENERATION
def test_get_host_info(simulation: Simulation, index: int) -> None:
    address = f"127.96.0.{index + 1}"
    expected = {"hostname": address, "ip_address": address, "node_id": index}
    with simulation.client(index) as client:
        assert client.results("get_host_info") == {index: expected}
        assert client.results("pool_stats://1.0:local:get_host_info") == {index: expected}


def test_broadcast_reaches_all_nodes(simulation: Simulation) -> None:
    with simulation.client(2) as client:
        results = client.results("pool_stats://1.0:broadcast:get_host_info")
        assert results == {
            i: {"hostname": f"127.96.0.{i + 1}", "ip_address": f"127.96.0.{i + 1}", "node_id": i}
            for i in range(NODES)
        }
        assert set(client.results("pool_stats://1.0:range:6:8:get_host_info")) == {0, 6, 7, 8}
        assert set(client.results("pool_stats://1.0:direct_hash:21:get_host_info")) == {21 % NODES}
        assert set(client.results("pool_stats://1.0:direct_id:99:get_host_info")) == {0}
        assert set(client.results("pool_stats://1.0:PHYSICAL:3:get_host_info")) == {3}
    assert simulation.violations() == {}


@EACH_GENERATION
def test_container_stats(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        entries = client.results("container_stats")[index]
    original = {entry["pool_id"]: entry for entry in recorded(index, "container_stats")}
    bdevs = [entry for entry in entries if entry["chimod_name"].endswith("_bdev")]
    assert len(bdevs) == 4
    assert {entry["pool_id"] for entry in entries} == set(original) | {entry["pool_id"] for entry in bdevs}
    for entry in entries:
        assert entry["container_id"] == index
        if entry["pool_id"] in original:
            known = original[entry["pool_id"]]
            assert entry["methods"] == known["methods"]
            assert entry["pool_name"] == known["pool_name"].replace("_node0", f"_node{index}")
            assert entry["learning_rate"] == known["learning_rate"]


@EACH_GENERATION
def test_bdev_statistics_of_every_device(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        entries = client.results("container_stats")[index]
        bdevs = [entry for entry in entries if entry["chimod_name"].endswith("_bdev")]
        for number, entry in enumerate(bdevs):
            query = f"pool_stats://{entry['pool_id']}:local:stats"
            results, before, after = between(simulation, index, lambda query=query: client.results(query))
            stats = results[index]
            assert list(stats) == list(recorded(index, "pool_stats_301.0_local_stats"))
            assert stats["pool_name"] == entry["pool_name"]
            fewest, most = (model.bdev_writes(index, number, age, 1) for age in (before, after))
            free = {model.bdev_remaining(stats["total_capacity"], w) for w in range(fewest, most + 1)}
            assert stats["remaining_capacity"] in free
            reads, writes = stats["total_reads"], stats["total_writes"]
            assert stats["total_bytes_read"] == reads * model.BLOCK
            assert stats["total_bytes_written"] == writes * model.BLOCK
            if stats["bdev_type"] != model.FILE:
                assert (reads, writes) == (0, 0)
                continue
            assert (
                model.bdev_reads(index, number, before, 1)
                <= reads
                <= model.bdev_reads(index, number, after, 1)
            )
            assert (
                model.bdev_writes(index, number, before, 1)
                <= writes
                <= model.bdev_writes(index, number, after, 1)
            )


def test_the_cte_core_reports_and_other_modules_do_not(simulation: Simulation) -> None:
    with simulation.client(1) as client:
        (stats,) = client.results("pool_stats://512.0:local:stats").values()
        assert list(stats) == ["pool_name", "num_targets", "num_tags", "num_blobs"]
        assert stats["num_blobs"] > 0
        for pool in ("1.0", "400.0", "560.0", "561.0", "563.0", "564.0", "565.0"):
            assert client.results(f"pool_stats://{pool}:local:stats") == {}
        assert client.results("stats", pool=(512, 0)).keys() == {1}
    with simulation.client(4) as client:
        assert client.results("pool_stats://512.0:local:stats") == {}


@EACH_GENERATION
def test_return_codes(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        for query, rc in (
            ("nonsense", 0),
            ("", 0),
            ("pool_stats://301.0:local:nonsense", 0),
            ("pool_stats://999.0:local:stats", 3),
            ("pool_stats://301.0", 2),
            ("pool_stats://pool:local:stats", 2),
            ("pool_stats://301.0:sideways:stats", 2),
            ("pool_stats://301.0:physical:first:stats", 2),
            ("pool_stats://", 2),
        ):
            answer = client.ask(query)
            assert (answer.rc, answer.results) == (rc, {}), query


def test_what_a_runtime_never_answers(simulation: Simulation) -> None:
    with simulation.client(3) as client:
        client.monitor_query("bdev_stats")
        client.monitor_query("pool_stats://1.0:physical:77:worker_stats")
        client.monitor_query("pool_stats://1.0:range:0:0:worker_stats")
        client.monitor_query("stats", pool=(999, 0))
        # The next answer is that of the next request: the four before it got none.
        assert client.results("get_host_info").keys() == {3}
    assert simulation.violations() == {"bdev_stats": 1}


@pytest.mark.parametrize("request_type", ["dealer", "router"])
@pytest.mark.parametrize("reply_type", ["dealer", "router"])
def test_socket_types_of_the_client(simulation: Simulation, request_type: str, reply_type: str) -> None:
    for index in (0, 4) if reply_type == "router" else (0, 4, 5):
        with simulation.client(index, request=request_type, reply=reply_type) as client:
            assert client.results("get_host_info").keys() == {index}
            assert client.results("get_host_info").keys() == {index}


def test_a_thousand_requests_at_once_are_all_answered(simulation: Simulation) -> None:
    for index in (0, 5):
        with simulation.client(index) as client:
            keys = {client.monitor_query("worker_stats") for _ in range(1000)}
            answered = set()
            while len(answered) < 1000:
                answer = client.receive()
                assert answer is not None, f"{len(answered)} of 1000 answered"
                answered.add(answer.key)
            assert answered == keys
