"""The demo's control API, with an sshd of its own, on a real cluster."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.control_api import ControlApiComponent
from clio_lab.demo.errors import DemoError
from clio_lab.demo.stack import ClusterComponent
from clio_lab.demo.state import State
from tests.integration.test_control_cluster import hand_back, listeners
from tests.ports import free_port
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("sshd")]


def test_it_restarts_a_node_and_leaves_nothing_behind(cluster4: LocalCluster, tmp_path: Path) -> None:
    node = cluster4.nodes[1]
    before = node.pid
    state = State(tmp_path / "state.json")
    component = ControlApiComponent(cluster4, state, threading.Event(), free_port())
    lines: list[str] = []
    try:
        component.start(lines.append)
        assert component.health() is None
        address = component.where.split()[-1].removesuffix("/api/topology")
        with urllib.request.urlopen(f"{address}/api/topology", timeout=10) as answer:
            nodes = json.load(answer)["nodes"]
        assert [node["alive"] for node in nodes] == [True] * 4
        url = f"{address}/api/topology/node/1/restart?wait=60"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=20)
        # The line that the demo prints shows how to send the token.
        asked = subprocess.run(
            ["sh", "-c", f"{component.command} -s"], capture_output=True, timeout=20, check=True
        )
        assert len(json.loads(asked.stdout)["nodes"]) == 4
        token_file = cluster4.root / "control-api" / "token"
        assert any(str(token_file) in line for line in lines)
        token = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
        restart = urllib.request.Request(url, method="POST", headers=token)
        with urllib.request.urlopen(restart, timeout=120) as answer:
            assert json.load(answer)["success"] is True
        assert {node.pid} == listeners(node.client_port) != {before}
        assert ClusterComponent(cluster4).health() is None
        component.stop()
        assert [
            p for p in psutil.Process().children() if "sshd" in p.name() or "control_api" in p.cmdline()
        ] == []
        assert component.health() is None
        component.stop()
    finally:
        component.stop()
        hand_back(cluster4)


def test_whoever_has_its_port_is_not_taken_for_it(cluster4: LocalCluster, tmp_path: Path) -> None:
    """Another demo on the machine, for one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        component = ControlApiComponent(cluster4, State(tmp_path / "state.json"), threading.Event(), port)
        with pytest.raises(DemoError, match=rf"port {port}, which the control API needs, is in use"):
            component.start(lambda line: None)
        component.stop()
