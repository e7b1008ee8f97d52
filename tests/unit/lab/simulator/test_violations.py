"""What a bad guest does is counted; what the safe detection does is not."""

from __future__ import annotations

import pytest

from tests.unit.lab.simulator.conftest import NODES, Simulation
from tests.unit.lab.simulator.raw_client import CONNECT, MONITOR, RawClient, build


def test_safe_detection_of_every_generation(simulation: Simulation) -> None:
    with simulation.client(0) as client:
        answer = client.connect(generation="C", records=256)
        assert answer is not None
        assert answer.process[0] == simulation.process.describe(0)["pid"]
    with simulation.client(4) as client:
        assert client.connect(generation="C", records=256) is None
        assert client.was_dialled()
    with simulation.client(4) as client:
        assert client.connect(generation="B") is not None
    with simulation.client(5) as client:
        assert client.connect(generation="C", records=256) is None
        assert not client.was_dialled(0.1)
        answer = client.connect(generation="A", records=256, zero_body_id=True)
        assert answer is not None
        assert answer.process[0] == simulation.process.describe(5)["pid"]
    with simulation.client(0) as client:
        assert client.connect(generation="A", records=256, zero_body_id=True) is None
        assert not client.was_dialled(0.1)
    stats = simulation.process.stats()
    assert stats["violations"] == {}
    assert stats["probes"] == 5


@pytest.mark.parametrize(
    ("frame", "violation"),
    [
        (build("B", MONITOR, b"worker_stats", 1, 9778), "foreign_generation"),
        (build("A", MONITOR, b"worker_stats", 1, 0), "foreign_generation"),
        (build("A", CONNECT, None, 1, 0), "foreign_generation"),
        (build("C", MONITOR, b"worker_stats", 1, 9778)[:-3], "announced_lengths"),
        (build("C", MONITOR, b"worker_stats", 1, 9778, records=3)[:-100], "announced_lengths"),
        (build("C", MONITOR, b"worker_stats", 1, 9778, kind=1), "message_type"),
        (build("C", 12, None, 1, 9778), "method"),
        (build("C", MONITOR, b"worker_stats", 1, 0), "unreachable"),
        (build("C", MONITOR, b"worker_stats", 1, 70000), "unreachable"),
        (build("C", MONITOR, b"pool_stats://1.0:local:bdev_stats", 1, 9778), "bdev_stats"),
    ],
)
def test_a_bad_frame_is_counted_and_not_answered(
    simulation: Simulation, frame: bytes, violation: str
) -> None:
    with simulation.client(2) as client:
        client.send(frame)
        assert client.results("get_host_info").keys() == {2}
    assert simulation.violations() == {violation: 1}
    assert simulation.process.stats()["violated_nodes"] == {violation: [2]}


def test_routing_that_leaves_the_node_is_answered_and_counted(simulation: Simulation) -> None:
    with simulation.client(2) as client:
        assert client.results("get_host_info", routing=4).keys() == set(range(NODES))
        assert client.results("get_host_info", routing=5, targets=(0, 0, 0, 0, 3, 0)).keys() == {3}
        assert client.results("get_host_info", routing=3, targets=(0, 0, 7, 8, 0, 0)).keys() == {0, 7, 8}
    assert simulation.violations() == {"routing": 3}


@pytest.mark.parametrize("identity", [b"nocolon", b":7:0"])
def test_an_identity_that_cannot_be_dialled(simulation: Simulation, identity: bytes) -> None:
    with simulation.client(2, identity=identity) as client:
        client.monitor_query("get_host_info")
        assert client.receive(0.2) is None
    assert simulation.violations() == {"unreachable": 1}


def test_extra_frames_are_not_requests(simulation: Simulation) -> None:
    with simulation.client(2) as client:
        client.request.send_multipart([b"", build("C", MONITOR, b"worker_stats", 1, client.port), b"bulk"])
        client.request.send_multipart([b"no delimiter"])
        assert client.results("get_host_info").keys() == {2}
    assert simulation.violations() == {"announced_lengths": 2}


@pytest.mark.parametrize("index", [2, 5], ids="CA")
def test_a_second_live_socket_with_one_identity(simulation: Simulation, index: int) -> None:
    with simulation.client(index) as first:
        assert first.results("get_host_info").keys() == {index}
        assert simulation.violations() == {}
        with simulation.client(index, identity=first.identity) as second:
            second.monitor_query("get_host_info")
            assert second.receive(2.0) is not None or index == 2
            assert simulation.violations() == {"duplicate_identity": 1}
        for _ in range(3):
            first.monitor_query("get_host_info")
    # A real runtime would have died of this; the simulation must not.
    with simulation.client(index) as client:
        assert client.results("get_host_info").keys() == {index}


def test_an_identity_may_be_used_again_after_its_end(simulation: Simulation) -> None:
    for _ in range(20):
        with simulation.client(2, identity=b"127.0.0.1:1:again") as client:
            assert client.results("get_host_info").keys() == {2}
    assert simulation.violations() == {}


def test_too_many_requests_in_flight(simulation: Simulation) -> None:
    simulation.process.set_fault(2, "silent")
    with simulation.client(2) as client, simulation.client(3) as other:
        for _ in range(32):
            client.monitor_query("worker_stats")
        simulation.wait_for_requests(2, 32)
        assert simulation.violations() == {}
        client.monitor_query("worker_stats")
        simulation.wait_for_requests(2, 33)
        assert simulation.violations() == {"in_flight": 1}
        assert other.results("get_host_info").keys() == {3}


def test_slow_answers_count_as_in_flight_until_they_are_sent(simulation: Simulation) -> None:
    simulation.process.set_fault(2, "slow:0.01")
    with simulation.client(2) as client:
        for _ in range(40):
            assert client.results("get_host_info").keys() == {2}
    assert simulation.violations() == {}


def test_two_clients_do_not_share_a_count(simulation: Simulation) -> None:
    simulation.process.set_fault(2, "silent")
    clients: list[RawClient] = [simulation.client(2) for _ in range(3)]
    for client in clients:
        for _ in range(20):
            client.monitor_query("worker_stats")
    simulation.wait_for_requests(2, 60)
    assert simulation.violations() == {}
    for client in clients:
        client.__exit__()
