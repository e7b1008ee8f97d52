from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.demo.cluster import LocalCluster
from exporter.demo.install import RuntimeInstall
from exporter.demo.ports import find_base_port
from exporter.demo.state import State, stat_fields
from exporter.demo.traffic import Traffic
from tests.integration.leftovers import leftovers, processes

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
            log = node.directory / "traffic.log"
            eventually(
                lambda: log.exists() and "CTE Core Benchmark" in log.read_text(), "no client connected"
            )
            (first,) = traffic.client_pids
            assert "Node ID: 0 " in log.read_text(), "nodes that put blobs of one name wait for each other"

            def held() -> bool:
                fields = stat_fields(first)
                return fields is not None and fields[0] == "T"

            eventually(held, "the client is never held between bursts")
            eventually(lambda: not held(), "the client never runs again")
            assert traffic.client_pids == [first]
            node.restart()
            eventually(lambda: traffic.client_pids not in ([], [first]), "no client for the restarted node")
            assert stat_fields(first) is None
            assert traffic.health() is None
        finally:
            traffic.stop()
        assert traffic.client_pids == []
        assert processes(cluster.user) == [node.pid]
        assert [record.role for record in State.load(state.path).processes] == ["runtime node 0"]
    assert leftovers(cluster.user, cluster.base_port, 1) == []


def test_a_burst_longer_than_its_interval_is_refused(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    cluster = LocalCluster(tmp_path, 1, install=runtime_install)
    with pytest.raises(ValueError, match="does not fit"):
        Traffic(cluster, State(tmp_path / "state.json"), burst=2, interval=1)
