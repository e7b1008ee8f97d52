"""Rolling restart of four real runtimes: under traffic, aborted, stuck, and while the API itself ends."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import yaml

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.exporter_process import free_port
from tests.integration.sshd import Sshd, make_key
from tests.integration.test_control_cluster import hand_back, listeners
from tests.system import needs_system
from tests.unit.control_api.support import TOKENS, write_tokens

pytestmark = [pytest.mark.integration, needs_system("sshd"), pytest.mark.timeout(900)]

ENDED = ("succeeded", "failed", "aborted", "interrupted")


class Desk:
    """The control API as a process of its own, on the cluster."""

    def __init__(self, cluster: LocalCluster, directory: Path, config: Path, bad: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.bad = bad
        self._command = [sys.executable, "-m", "clio_control_api", f"--config={config}"]
        port = yaml.safe_load(config.read_text())["port"]
        headers = {"Authorization": f"Bearer {TOKENS['anna'][1]}"}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, headers=headers)
        self._log: IO[bytes] = (directory / "api.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT)
        self.until("the API answers", self._answers, 300)

    def _answers(self) -> bool:
        try:
            return self.client.get("/-/healthy").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGTERM)
        self.client.close()
        self._log.close()

    def until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (what, (self.directory / "api.log").read_text()[-3000:])
            time.sleep(0.05)

    def begin(self, nodes: str, **more: Any) -> str:
        answer = self.client.post(
            "/api/topology/rolling-restart", json={"nodes": nodes, "wait": 240, "reason": "a test", **more}
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def operation(self, number: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/operations/{number}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def states(self, number: str) -> dict[int, str]:
        return {node["node_id"]: node["state"] for node in self.operation(number)["nodes"]}

    def await_end(self, number: str, seconds: float) -> dict[str, Any]:
        self.until("the operation ends", lambda: self.operation(number)["state"] in ENDED, seconds)
        return self.operation(number)

    def pids(self) -> list[set[int]]:
        return [listeners(node.client_port) for node in self.cluster.nodes]

    def alive(self) -> list[bool]:
        return [node["alive"] for node in self.client.get("/api/topology").json()["nodes"]]

    def begun(self, operation: str) -> list[int]:
        """Nodes on which the audit log says that an action of the operation began."""
        lines = map(json.loads, (self.directory / "state" / "audit.jsonl").read_text().splitlines())
        return [
            line["node_id"]
            for line in lines
            if line["event"] == "begin" and line.get("operation") == operation
        ]


@pytest.fixture(scope="module")
def desk(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("operations")
    key = make_key(home / "id")
    bad = home / "bad"
    bad.mkdir()
    program = home / "clio_run"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = start ] && [ -e "{bad}/$NODE" ] && {{ echo "no device"; exit 3; }}\n'
        f'exec {cluster4.install.program} "$@"\n'
    )
    program.chmod(0o755)
    assert cluster4.hostfile is not None
    (home / "exporter.yaml").write_text(yaml.safe_dump({"clusters": [{"hostfile": str(cluster4.hostfile)}]}))
    with Sshd(home / "sshd", [key]) as sshd:
        nodes = {
            str(node.index): {
                "directory": str(node.directory),
                "environment": {**node.environment, "NODE": str(node.index)},
            }
            for node in cluster4.nodes
        }  # fmt: skip
        config = home / "control.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "exporter_config": str(home / "exporter.yaml"), "port": free_port(), "reply_port": 0,
                    "state_dir": str(home / "state"), "tokens_file": str(write_tokens(home / "tokens")),
                    "nodes": nodes,
                    "ssh": {
                        "host": "127.0.0.1", "port": sshd.port, "key_file": str(key), "agent": False,
                        "program": str(program), "config_file": str(home / "no_ssh_config"),
                    },
                }
            )
        )  # fmt: skip
        (home / "no_ssh_config").touch()
        found = Desk(cluster4, home, config, bad)
        try:
            found.start()
            found.until("all nodes are up", lambda: found.alive() == [True] * 4, 60)
            yield found
            sshd.await_no_sessions()
        finally:
            found.close()
            hand_back(cluster4)


@pytest.fixture(autouse=True)
def _idle(desk: Desk) -> Iterator[None]:
    """What a test that failed has left under way is brought to an end."""
    yield
    for found in desk.client.get("/api/operations").json()["operations"]:
        if found["state"] not in ENDED:
            desk.client.post(f"/api/operations/{found['id']}/abort")
            desk.await_end(found["id"], 300)


class Watch:
    """How many of the nodes refuse connections at once, at most."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._addresses = [(node.host, node.client_port) for node in cluster.nodes]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.worst = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.worst = max(self.worst, sum(self._refuses(address) for address in self._addresses))

    @staticmethod
    def _refuses(address: tuple[str, int]) -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex(address) != 0


def test_all_four_under_traffic(desk: Desk, tmp_path: Path) -> None:
    traffic = Traffic(desk.cluster, State(tmp_path / "state.json"), burst=0.2, interval=0.25)
    before = desk.pids()
    traffic.start(lambda _: None)
    try:
        with Watch(desk.cluster) as watch:
            started = time.monotonic()
            number = desk.begin("")
            with desk.client.stream("GET", f"/api/operations/{number}/events") as stream:
                events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
            seconds = time.monotonic() - started
    finally:
        traffic.stop()
    found = desk.operation(number)
    assert found["state"] == "succeeded", found
    assert events[-1]["state"] == "succeeded"
    assert watch.worst == 1
    # The leader is last, and each was begun when the one before was done.
    order = [node["node_id"] for node in found["nodes"]]
    assert found["nodes"][-1]["was_leader"] is True
    assert desk.begun(number) == order
    times = [(node["began"], node["ended"]) for node in found["nodes"]]
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))
    after = desk.pids()
    assert all(len(pids) == 1 for pids in after)
    assert all(not (old & new) for old, new in zip(before, after, strict=True))
    assert desk.alive() == [True] * 4
    print(f"4 nodes restarted one after the other in {seconds:.1f} s, {len(events)} events")


def test_abort_in_the_middle(desk: Desk) -> None:
    before = desk.pids()
    number = desk.begin("1-3")
    desk.until("node 1 is begun", lambda: desk.states(number)[1] != "waiting", 60)
    assert desk.client.post("/api/topology/node/3/restart").status_code == 409
    assert desk.client.post(f"/api/operations/{number}/abort").json()["state"] == "aborting"
    found = desk.await_end(number, 300)
    assert found["state"] == "aborted", found
    assert desk.states(number) == {1: "done", 2: "skipped", 3: "skipped"}
    after = desk.pids()
    assert not before[1] & after[1]
    assert [before[i] for i in (0, 2, 3)] == [after[i] for i in (0, 2, 3)]
    assert desk.alive() == [True] * 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_api_ends_and_is_started_again_in_the_middle(desk: Desk, number: signal.Signals) -> None:
    before = desk.pids()
    operation = desk.begin("1-2")
    desk.until(
        "node 1's restart runs on the node", lambda: "action_id" in desk.operation(operation)["nodes"][0], 60
    )
    desk.until("node 1 has ended", lambda: not listeners(desk.cluster.nodes[1].client_port) & before[1], 60)
    desk.end(number)
    desk.start()
    assert desk.operation(operation)["state"] == "running"
    found = desk.await_end(operation, 300)
    assert found["state"] == "succeeded", found
    assert desk.begun(operation) == [1, 2], "a node was restarted twice"
    after = desk.pids()
    assert all(not before[i] & after[i] and len(after[i]) == 1 for i in (1, 2))
    assert [before[i] for i in (0, 3)] == [after[i] for i in (0, 3)]
    assert desk.alive() == [True] * 4


def test_a_restart_followed_at_once_by_a_shutdown(desk: Desk) -> None:
    """The shutdown does nothing while the restart lasts, and what is said of the node is what it does."""
    before = desk.pids()
    answer = desk.client.post("/api/topology/node/2/restart", params={"reason": "a test"})
    assert answer.status_code == 200, answer.text
    restart = f"/api/actions/{answer.json()['id']}"
    refused = desk.client.post("/api/topology/node/2/shutdown", params={"reason": "too early"})
    assert refused.status_code == 409, refused.text
    busy = refused.json()["busy"]
    assert (busy["id"], busy["action"], busy["state"]) == (answer.json()["id"], "restart", "running")
    since = datetime.fromisoformat(busy["since"].replace("Z", "+00:00"))
    assert since.timestamp() == pytest.approx(time.time(), abs=60)
    assert "node 2 is busy: a restart by anna has been under way for" in refused.json()["error"]

    desk.until("the restart ends", lambda: desk.client.get(restart).json()["state"] != "running", 200)
    found = desk.client.get(restart).json()
    assert found["state"] == "succeeded", found
    desk.until("all are alive", lambda: desk.alive() == [True] * 4, 60)
    after = desk.pids()
    assert len(after[2]) == 1
    assert not before[2] & after[2]
    assert [before[i] for i in (0, 1, 3)] == [after[i] for i in (0, 1, 3)]

    answer = desk.client.post("/api/topology/node/2/shutdown", params={"reason": "now"}, timeout=200)
    assert (answer.status_code, answer.json()["success"]) == (200, True), answer.text
    desk.until("node 2 is down", lambda: desk.alive() == [True, True, False, True], 60)
    assert desk.pids()[2] == set()
    answer = desk.client.post("/api/topology/node/2/restart", params={"wait": 240}, timeout=300)
    assert answer.status_code == 200, answer.text
    assert desk.alive() == [True] * 4


def test_a_node_that_does_not_come_back(desk: Desk) -> None:
    before = desk.pids()
    (desk.bad / "2").touch()
    try:
        operation = desk.begin("1-3")
        found = desk.await_end(operation, 300)
        assert found["state"] == "failed", found
        assert desk.states(operation) == {1: "done", 2: "failed", 3: "skipped"}
        assert "node 2 did not restart" in found["message"]
        assert desk.alive() == [True, True, False, True]
        assert desk.pids()[2] == set()
        assert [before[i] for i in (0, 3)] == [desk.pids()[i] for i in (0, 3)]
    finally:
        (desk.bad / "2").unlink()
    # What is down already is first, next time.
    operation = desk.begin("1-2")
    assert [node["node_id"] for node in desk.operation(operation)["nodes"]] == [2, 1]
    assert desk.await_end(operation, 300)["state"] == "succeeded"
    assert desk.alive() == [True] * 4
