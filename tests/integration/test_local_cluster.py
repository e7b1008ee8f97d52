from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clio_lab.demo import addresses
from clio_lab.demo.cluster import TIMER_SLACK_US, LocalCluster
from clio_lab.demo.errors import DemoError, InterruptedStartError, ProcessFailedError
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import greets
from clio_lab.demo.ports import PortReservation, find_base_port
from clio_lab.demo.runtime_config import Capacities
from tests.integration.leftovers import leftovers, processes

pytestmark = pytest.mark.integration

SMALL = Capacities(ram_device=8, file_device=8, ram_tier=8, file_tier=16, file_growth=8)


def make(root: Path, nodes: int, install: RuntimeInstall, **settings: object) -> LocalCluster:
    options: dict[str, object] = {"base_port": find_base_port(nodes), "capacities": SMALL, **settings}
    return LocalCluster(root, nodes, install=install, **options)  # type: ignore[arg-type]


def test_every_node_answers_on_its_own_address_and_port(cluster4: LocalCluster) -> None:
    assert [node.index for node in cluster4.nodes] == [0, 1, 2, 3]
    assert len({node.client_port for node in cluster4.nodes}) == 4
    for node in cluster4.nodes:
        assert greets(node.host, node.client_port)
    assert cluster4.hostfile is not None
    assert cluster4.hostfile.read_text().split() == [f"{node.host}:{node.port}" for node in cluster4.nodes]


@pytest.mark.skipif(os.geteuid() != 0, reason="addresses of their own need CAP_NET_ADMIN: run as root")
def test_each_node_has_its_own_loopback_address(cluster4: LocalCluster) -> None:
    hosts = {node.host for node in cluster4.nodes}
    assert len(hosts) == 4
    assert hosts <= addresses.configured()


@pytest.mark.skipif(os.geteuid() != 0, reason="addresses of their own need CAP_NET_ADMIN: run as root")
def test_addresses_of_a_killed_cluster_are_taken_over_and_removed(tmp_path: Path) -> None:
    install = RuntimeInstall("2.3.2", tmp_path)
    install.program.write_text("#!/bin/sh\nexit 1\n")
    install.program.chmod(0o755)
    cluster = make(tmp_path / "cluster", 2, install)
    hosts = [addresses.cluster_address(cluster.base_port, index) for index in range(2)]
    code = f"from clio_lab.demo import addresses; addresses.add({hosts})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    try:
        with pytest.raises(ProcessFailedError):
            cluster.start()
        assert leftovers(cluster.user, cluster.base_port, 2) == []
    finally:
        addresses.remove(hosts)


def test_all_modules_are_composed(cluster4: LocalCluster) -> None:
    for node in cluster4.nodes:
        assert "Compose: All 9 pools created successfully" in node.log_path.read_text(errors="replace")


def test_pause_and_resume(cluster4: LocalCluster) -> None:
    node = cluster4.nodes[1]
    pid = node.pid
    node.pause()
    try:
        assert node.is_paused
        assert node.is_running
        assert not greets(node.host, node.client_port)
    finally:
        node.resume()
    node.wait_ready(10)
    assert not node.is_paused
    assert node.pid == pid


def test_kill_and_restart(cluster4: LocalCluster) -> None:
    node = cluster4.nodes[2]
    before = node.pid
    node.kill()
    assert not node.is_running
    assert node.pid is None
    assert not greets(node.host, node.client_port)
    others = [other.pid for other in cluster4.nodes if other is not node]
    node.restart()
    assert node.pid not in (None, before)
    assert greets(node.host, node.client_port)
    assert [other.pid for other in cluster4.nodes if other is not node] == others


def test_terminate_a_paused_node_and_start_it_again(cluster4: LocalCluster) -> None:
    node = cluster4.nodes[3]
    node.pause()
    node.terminate()
    assert not node.is_running
    node.start()
    node.wait_ready()
    assert greets(node.host, node.client_port)


def test_a_node_that_does_not_run_cannot_be_paused(cluster4: LocalCluster) -> None:
    node = cluster4.nodes[0]
    node.kill()
    try:
        with pytest.raises(DemoError, match="node 0 does not run"):
            node.pause()
        with pytest.raises(ProcessFailedError, match="node 0 is not started"):
            node.wait_ready(1)
    finally:
        node.restart()


def test_stop_leaves_nothing(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    cluster = make(tmp_path, 4, runtime_install)
    with cluster:
        assert len(processes(cluster.user)) == 4
        assert cluster.runtime_dir.is_dir()
        cluster.nodes[0].pause()
        cluster.nodes[1].kill()
    assert leftovers(cluster.user, cluster.base_port, 4) == []
    assert not list(tmp_path.glob("n*/store"))
    assert (tmp_path / "n0" / "runtime.log").stat().st_size > 0
    PortReservation(cluster.base_port).release()
    cluster.stop()


def test_a_cluster_can_be_started_again(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    cluster = make(tmp_path, 1, runtime_install)
    for _ in range(2):
        lines: list[str] = []
        cluster.start(lines.append)
        assert any(line.startswith("node 0 is up") for line in lines)
        cluster.stop()
        assert leftovers(cluster.user, cluster.base_port, 1) == []


def test_two_clusters_at_once(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    with make(tmp_path / "a", 2, runtime_install) as first:
        with make(tmp_path / "b", 2, runtime_install) as second:
            assert first.base_port != second.base_port
            for node in (*first.nodes, *second.nodes):
                assert greets(node.host, node.client_port)
        assert leftovers(second.user, second.base_port, 2) == []
        assert all(node.is_running for node in first.nodes)
        first.nodes[1].kill()
        first.nodes[1].restart()


def test_without_the_privilege_all_nodes_share_an_address(
    tmp_path: Path, runtime_install: RuntimeInstall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_addresses: object) -> tuple[str, ...]:
        raise PermissionError("no CAP_NET_ADMIN")

    monkeypatch.setattr("clio_lab.demo.cluster.loopback.add", refuse)
    lines: list[str] = []
    cluster = make(tmp_path, 2, runtime_install)
    try:
        cluster.start(lines.append)
        assert [node.host for node in cluster.nodes] == ["127.0.0.1", "127.0.0.1"]
        assert "no privilege" in lines[0]
        assert all(greets(node.host, node.client_port) for node in cluster.nodes)
    finally:
        cluster.stop()
    assert leftovers(cluster.user, cluster.base_port, 2) == []


def test_a_port_in_use_is_an_error_and_starts_nothing(
    tmp_path: Path, runtime_install: RuntimeInstall
) -> None:
    cluster = make(tmp_path, 2, runtime_install)
    with socket.socket() as server:
        # An earlier cluster may have left connections in TIME_WAIT there.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", cluster.base_port + 13))
        server.listen()
        with pytest.raises(
            DemoError, match=rf"port {cluster.base_port + 13}.* in use by .*pid {os.getpid()}"
        ):
            cluster.start()
    assert leftovers(cluster.user, cluster.base_port, 2) == []


def test_a_node_that_dies_while_starting_shows_its_log(
    tmp_path: Path, runtime_install: RuntimeInstall
) -> None:
    cluster = make(tmp_path, 1, runtime_install, environment={"CLIO_SERVER_CONF": "/nonexistent/clio.yaml"})
    with pytest.raises(ProcessFailedError) as caught:
        cluster.start()
    message = str(caught.value)
    assert "node 0" in message
    assert "exit code 1" in message
    assert "bad file: /nonexistent/clio.yaml" in message
    assert leftovers(cluster.user, cluster.base_port, 1) == []


def test_a_runtime_that_is_late_is_reported(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    cluster = make(tmp_path, 1, runtime_install)
    with cluster:
        node = cluster.nodes[0]
        node.pause()
        with pytest.raises(ProcessFailedError, match="not ready after 0 s: no ZMTP greeting"):
            node.wait_ready(0.2)
        node.resume()


def test_an_interrupted_start_leaves_nothing(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    interrupt = threading.Event()
    interrupt.set()
    cluster = make(tmp_path, 2, runtime_install, interrupt=interrupt)
    with pytest.raises(InterruptedStartError):
        cluster.start()
    assert leftovers(cluster.user, cluster.base_port, 2) == []


def test_idle_runtimes_wait_coarsely(cluster4: LocalCluster) -> None:
    for node in cluster4.nodes:
        slack = Path(f"/proc/{node.pid}/timerslack_ns").read_text()
        assert int(slack) == TIMER_SLACK_US * 1000
