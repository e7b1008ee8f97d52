"""The demo's control API, with an sshd of its own, on a real cluster."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import psutil
import pytest

from control_api.demo_component import ControlApiComponent, started_elsewhere
from exporter.demo.cluster import LocalCluster
from exporter.demo.stack import plugged_components
from exporter.demo.state import State
from tests.integration.test_control_cluster import hand_back, listeners
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("sshd")]


def test_the_demo_finds_it() -> None:
    assert ControlApiComponent in plugged_components()


def test_it_restarts_a_node_and_leaves_nothing_behind(cluster4: LocalCluster, tmp_path: Path) -> None:
    component = ControlApiComponent(cluster4, State(tmp_path / "state.json"), threading.Event())
    lines: list[str] = []
    try:
        component.start(lines.append)
        assert component.health() is None
        address = component.where.split()[-1].removesuffix("/api/topology")
        with urllib.request.urlopen(f"{address}/api/topology", timeout=10) as answer:
            nodes = json.load(answer)["nodes"]
        assert [node["alive"] for node in nodes] == [True] * 4
        restart = urllib.request.Request(f"{address}/api/topology/node/1/restart?wait=60", method="POST")
        with urllib.request.urlopen(restart, timeout=120) as answer:
            assert json.load(answer)["success"] is True
        node = cluster4.nodes[1]
        assert not node.is_running
        assert started_elsewhere(node.config_path, None)
        component.stop()
        assert started_elsewhere(node.config_path, None) == []
        assert listeners(node.client_port) == set()
        assert [
            p for p in psutil.Process().children() if "sshd" in p.name() or "control_api" in p.cmdline()
        ] == []
        assert component.health() is None
        component.stop()
    finally:
        component.stop()
        hand_back(cluster4)
