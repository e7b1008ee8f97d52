"""Each fault over real sockets, set and taken back at run time."""

from __future__ import annotations

import socket
import time

import pytest

from clio_lab.simulator import model
from clio_lab.simulator.process import SimulatorProcess
from tests.ports import free_port
from tests.unit.lab.simulator.conftest import Simulation
from tests.unit.lab.simulator.raw_client import BODY_AT

EACH_GENERATION = pytest.mark.parametrize("index", [1, 4, 5], ids="CBA")


@EACH_GENERATION
def test_slow(simulation: Simulation, index: int) -> None:
    simulation.process.set_fault(index, "slow:0.2")
    with simulation.client(index) as client:
        before = time.monotonic()
        assert client.results("get_host_info").keys() == {index}
        assert time.monotonic() - before >= 0.2


@EACH_GENERATION
def test_silent_until_cleared(simulation: Simulation, index: int) -> None:
    simulation.process.set_fault(index, "silent")
    with simulation.client(index) as client:
        client.monitor_query("get_host_info")
        assert client.receive(0.2) is None
        simulation.process.clear(index)
        assert client.results("get_host_info").keys() == {index}
    assert simulation.process.describe(index)["requests"] == 2


def test_a_broadcast_that_includes_a_silent_node_is_never_answered(simulation: Simulation) -> None:
    simulation.process.set_fault(2, "silent")
    with simulation.client(0) as client:
        client.monitor_query("pool_stats://1.0:broadcast:get_host_info")
        assert client.results("get_host_info").keys() == {0}


@EACH_GENERATION
def test_garbage_is_random_behind_a_sound_header(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        sound = client.ask("get_host_info")
        simulation.process.set_fault(index, "garbage")
        broken = client.ask("get_host_info")
        assert broken.length == len(broken.body) == len(sound.body)
        assert broken.body != sound.body
        assert client.ask("get_host_info").body != broken.body


@EACH_GENERATION
def test_truncated(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        simulation.process.set_fault(index, f"truncated:{BODY_AT['A'] - 9}")
        client.monitor_query("get_host_info")
        source = client.request if client.generation == "A" else client.reply
        assert source.poll(5000)
        assert len(source.recv_multipart()[-1]) == BODY_AT["A"] - 9


@EACH_GENERATION
def test_duplicated(simulation: Simulation, index: int) -> None:
    simulation.process.set_fault(index, "duplicated")
    with simulation.client(index) as client:
        first = client.ask("get_host_info")
        second = client.receive()
        assert second is not None
        assert second.frame == first.frame
        assert client.receive(0.1) is None


@EACH_GENERATION
def test_wrong_id(simulation: Simulation, index: int) -> None:
    simulation.process.set_fault(index, "wrong-id")
    with simulation.client(index) as client:
        key = client.monitor_query("get_host_info")
        answer = client.receive()
        assert answer is not None
        assert answer.key != key
        assert answer.results.keys() == {index}


@EACH_GENERATION
def test_error_rc(simulation: Simulation, index: int) -> None:
    simulation.process.set_fault(index, "error-rc:4294966296")
    with simulation.client(index) as client:
        answer = client.ask("worker_stats")
        assert (answer.rc, answer.results) == (4294966296, {})


def test_retired_pool(simulation: Simulation) -> None:
    with simulation.client(1) as client:
        simulation.process.set_fault(1, "retired-pool:512.1")
        assert "512.1" not in [entry["pool_id"] for entry in client.results("container_stats")[1]]
        assert client.ask("pool_stats://512.1:local:stats").rc == 3
        assert client.ask("pool_stats://301.0:local:stats").rc == 0
        simulation.process.clear(1)
        assert client.results("pool_stats://512.1:local:stats").keys() == {1}


def test_elastic_workers(simulation: Simulation) -> None:
    with simulation.client(1) as client:
        for workers in (3, 20, 0):
            simulation.process.set_fault(1, f"workers:{workers}")
            assert len(client.results("worker_stats")[1]) == workers
        simulation.process.clear(1)
        assert len(client.results("worker_stats")[1]) == 8


def test_what_a_node_says_of_itself(simulation: Simulation) -> None:
    with simulation.client(1) as client:

        def newest() -> dict:
            return client.results("system_stats")[1][-1]

        def workers() -> list[dict]:
            return client.results("worker_stats")[1]

        simulation.process.set_fault(1, "clock:3600")
        assert newest()["wall_time_ns"] - time.time_ns() > 3590 * model.SECOND
        simulation.process.set_fault(1, "memory:95")
        assert newest()["ram_usage_pct"] == pytest.approx(95, abs=0.01)
        simulation.process.set_fault(1, "leader:1")
        assert newest()["is_leader"] is True
        simulation.process.set_fault(1, "frozen")
        stands = newest()["event_id"]
        simulation.process.set_fault(1, "stuck")
        done = [worker["num_tasks_processed"] for worker in workers()]
        assert all(worker["num_queued_tasks"] > 0 for worker in workers())
        simulation.process.set_fault(1, "busy")
        assert {(w["idle_iterations"], w["num_queued_tasks"]) for w in workers()} == {(0, 20)}
        simulation.process.set_fault(1, "backlog:1000")
        deadline = time.monotonic() + 10
        while workers()[0]["num_queued_tasks"] < 1000 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers()[0]["num_queued_tasks"] >= 1000
        assert newest()["event_id"] == stands
        assert [worker["num_tasks_processed"] for worker in workers()] == done

        simulation.process.clear(1)
        assert newest()["event_id"] > stands
        assert newest()["is_leader"] is False
        assert newest()["ram_usage_pct"] <= 60
        assert abs(newest()["wall_time_ns"] - time.time_ns()) < 3 * model.SECOND
        assert all(worker["num_queued_tasks"] <= 10 for worker in workers())


def test_what_a_node_says_of_its_devices() -> None:
    base_port = free_port()
    options = (
        "--nodes",
        "1",
        "--bdevs",
        "2",
        "--arrays",
        "1",
        "--rate",
        "0.02",
        "--base-port",
        str(base_port),
    )
    with SimulatorProcess(*options) as process, Simulation(process, base_port).client(0) as client:

        def device(pool_id: str) -> dict:
            return client.results(f"pool_stats://{pool_id}:local:stats")[0]

        def used(pool_id: str) -> float:
            stats = device(pool_id)
            return 1 - stats["remaining_capacity"] / stats["total_capacity"]

        file, memory = "513.1", "512.1"
        whole = device("570.0")
        assert {member["state"] for member in whole["members"]} == {"active"}
        assert (whole["recovery_active"], whole["recovery_ops_total"]) == (False, 0)

        process.set_fault(0, "full:89")
        assert (used(file), used(memory)) == (pytest.approx(0.89), 1)
        process.clear(0)
        process.set_fault(0, "filling:1")
        assert 0.5 <= used(file) <= 1
        deadline = time.monotonic() + 30
        while used(file) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert used(file) == 1 > used(memory)
        process.set_fault(0, "failing:20")
        assert device(file)["predicted_ttl_days"] == 20 < device(memory)["predicted_ttl_days"]
        usual = device(memory)["read_latency_us"], device(memory)["write_latency_us"]
        process.set_fault(0, "latency:50")
        assert (device(file)["read_latency_us"], device(file)["write_latency_us"]) == (50_000, 50_000)
        assert device(file)["predicted_ttl_days"] == 20
        assert (device(memory)["read_latency_us"], device(memory)["write_latency_us"]) == usual
        process.set_fault(0, "gpu-memory:75")
        (sample,) = client.results("system_stats")[0][-1:]
        assert sample["gpu_count"] == 1
        assert sample["hbm_used_bytes"] / sample["hbm_total_bytes"] == 0.75 == sample["hbm_usage_pct"] / 100
        process.set_fault(0, "faulty:2")
        process.set_fault(0, "rebuild:40")
        states = [member["state"] for member in device("570.0")["members"]]
        assert states == ["recovering", "faulty", "faulty", "active", "active", "active"]
        assert device("570.0")["recovery_ops_completed"] == 40

        process.clear(0)
        assert device("570.0") == whole
        assert device(file)["predicted_ttl_days"] > 20
        assert device(file)["read_latency_us"] < 50_000
        assert client.results("system_stats")[0][-1]["gpu_count"] == 0


def test_refused(simulation: Simulation) -> None:
    simulation.process.set_fault(1, "refused")
    host, port = simulation.node(1)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, port + 3)):
                break
    else:
        pytest.fail("the port stayed open")
    simulation.process.clear(1)
    with simulation.client(1) as client:
        assert client.results("get_host_info").keys() == {1}


def test_hang_accepts_and_says_nothing(simulation: Simulation) -> None:
    simulation.process.set_fault([1, 2], "hang")
    host, port = simulation.node(1)
    with socket.create_connection((host, port + 3), timeout=5) as connection:
        connection.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    simulation.process.clear()
    with simulation.client(1) as client:
        assert client.results("get_host_info").keys() == {1}


def test_non_zmq_speaks_http(simulation: Simulation) -> None:
    simulation.process.set_fault(1, "hang")
    simulation.process.set_fault(1, "non-zmq")
    host, port = simulation.node(1)
    with socket.create_connection((host, port + 3), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    with simulation.client(1) as client:
        client.monitor_query("get_host_info")
        assert client.receive(0.3) is None


@pytest.mark.parametrize("index", [6, 7, 8], ids="CBA")
def test_a_restarted_node_is_another_process_that_begins_at_0(simulation: Simulation, index: int) -> None:
    before = simulation.process.describe(index)
    with simulation.client(index) as client:
        assert client.results("get_host_info").keys() == {index}
        simulation.process.restart_node(index)
    after = simulation.process.describe(index)
    assert after["restarts"] == before["restarts"] + 1
    assert after["pid"] != before["pid"]
    assert model.clock_ns() - after["server_generation"] < 30e9
    with simulation.client(index) as client:
        assert client.connect().process == (after["pid"], after["server_generation"])
        samples = client.results("system_stats:0")[index]
        assert samples[0]["event_id"] == 0
        assert client.results("system_stats:1000") == {index: []}


def test_restarting_closes_the_port_for_a_while(simulation: Simulation) -> None:
    host, port = simulation.node(6)
    before = time.monotonic()
    simulation.process.set_fault(6, "restarting:0.3")
    assert time.monotonic() - before >= 0.3
    with socket.create_connection((host, port + 3), timeout=5):
        assert simulation.process.describe(6)["faults"] == []


@pytest.mark.parametrize("index", [0, 4], ids="CB")
def test_a_client_that_comes_back_to_its_port_is_dialled_again(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as client:
        assert client.results("get_host_info").keys() == {index}
        port, identity = client.port, client.identity
    dial_backs = simulation.process.describe(index)["dial_backs"]
    with simulation.client(index, identity=identity, port=port) as client:
        assert client.results("get_host_info").keys() == {index}
    assert simulation.process.describe(index)["dial_backs"] == dial_backs
    assert simulation.violations() == {}
