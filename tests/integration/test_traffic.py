from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.stack import ClusterComponent
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.exporter_process import ExporterProcess, Scrape
from tests.integration.leftovers import leftovers, processes
from tests.paths import ROOT

pytestmark = pytest.mark.integration


def eventually(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_one_client_a_life_of_the_node(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    state = State(tmp_path / "state.json")
    with LocalCluster(
        tmp_path, 1, install=runtime_install, base_port=find_base_port(1), state=state
    ) as cluster:
        traffic = Traffic(cluster, state)
        traffic.start(lambda _line: None)
        try:
            node = cluster.nodes[0]
            log = node.directory / "traffic-0.log"
            eventually(
                lambda: log.exists() and "CTE Core Benchmark" in log.read_text(), "no client connected"
            )
            (first,) = traffic.client_pids
            assert "Node ID: 0 " in log.read_text(), "nodes that put blobs of one name wait for each other"

            def held() -> bool:
                return psutil.Process(first).status() == psutil.STATUS_STOPPED

            eventually(held, "the client is never held between bursts")
            eventually(lambda: not held(), "the client never runs again")
            assert traffic.client_pids == [first]
            node.restart()
            eventually(lambda: traffic.client_pids not in ([], [first]), "no client for the restarted node")
            assert not psutil.pid_exists(first)
            assert traffic.health() is None
        finally:
            traffic.stop()
        assert traffic.client_pids == []
        assert processes(cluster.user) == [node.pid]
        assert [record.role for record in State.load(state.path).processes] == ["runtime node 0"]
    assert leftovers(cluster.user, cluster.base_port, 1) == []


def test_a_node_restarted_from_outside_is_the_node_again(
    tmp_path: Path, runtime_install: RuntimeInstall
) -> None:
    state = State(tmp_path / "state.json")
    cluster = LocalCluster(tmp_path, 1, install=runtime_install, base_port=find_base_port(1), state=state)
    with cluster:
        node = cluster.nodes[0]
        component = ClusterComponent(cluster)
        traffic = Traffic(cluster, state)
        traffic.start(lambda _line: None)
        try:
            eventually(lambda: bool(traffic.client_pids), "no client connected")
            first, first_client = node.pid, traffic.client_pids
            restart_from_outside(cluster, node)
            eventually(lambda: node.pid not in (None, first), "the new runtime is not seen")
            node.wait_ready(60)
            assert component.health() is None
            eventually(lambda: traffic.client_pids not in ([], first_client), "no client for the new runtime")
            with ExporterProcess(tmp_path, f"--nodes={node.host}:{node.port}") as exporter:
                before = exporter.scrape_until("the node is up", lambda s: s.value("clio_node_up") == 1)
                for name in ("clio_worker_tasks_processed_total", "clio_bdev_written_bytes_total"):
                    exporter.scrape_until(f"{name} rises", partial(rises, name, before))
            assert traffic.health() is None
            second = node.pid
            node.pause()
            assert node.is_paused
            node.resume()
            assert node.pid == second
        finally:
            traffic.stop()
        assert processes(cluster.user) == [node.pid]
        node.kill()
        assert not node.is_running
        assert component.health() == "node 0 ended"
        restart_from_outside(cluster, node)
        eventually(lambda: node.is_running, "the third runtime is not seen")
    assert leftovers(cluster.user, cluster.base_port, 1) == []


def test_the_program_alone_loads_the_nodes_of_a_hostfile(
    tmp_path: Path, runtime_install: RuntimeInstall
) -> None:
    with LocalCluster(tmp_path, 1, install=runtime_install, base_port=find_base_port(1)) as cluster:
        assert cluster.hostfile is not None
        environment = {
            "PATH": f"{runtime_install.bin_dir}:{os.environ['PATH']}",
            "CLIO_HOSTFILE": str(cluster.hostfile),
            "CLIO_TRAFFIC_DIR": str(tmp_path),
        }
        # As in the image: an interpreter without this project.
        command = [sys.executable, "-I", "-S", str(ROOT / "lab" / "clio_lab" / "traffic.py")]
        with ChildProcess("traffic", command, log_path=tmp_path / "log", environment=environment) as program:
            eventually(lambda: b"is connected" in program.log(), "no client connected")
            (client,) = psutil.Process(program.pid).children()
            assert program.end(30) == 0
            assert not client.is_running()
    assert leftovers(cluster.user, cluster.base_port, 1) == []


def rises(name: str, before: Scrape, now: Scrape) -> bool:
    return sum(v for _, v in now.series(name)) > sum(v for _, v in before.series(name))


def restart_from_outside(cluster: LocalCluster, node: LocalNode) -> None:
    """Stop and start the runtime as the control API's session does: by its commands, detached."""
    program = str(cluster.install.program)
    command = f'"{program}" stop; setsid "{program}" start </dev/null >>outside.log 2>&1 &'
    subprocess.run(
        ["sh", "-c", command], env=node.environment, cwd=node.directory, timeout=60, check=True,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip


def test_a_burst_longer_than_its_interval_is_refused(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    cluster = LocalCluster(tmp_path, 1, install=runtime_install)
    with pytest.raises(ValueError, match="does not fit"):
        Traffic(cluster, State(tmp_path / "state.json"), burst=2, interval=1)
