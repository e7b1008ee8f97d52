"""Who is in a cluster, as the control API sees it: current before every read and every action."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from clio_client.config import membership_source
from clio_control_api.cli import application, settings_from
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.support import NODES, Api, control_api

UNREACHABLE = "127.96.0.250:1\n"
NO_SSH = {"ssh": {"port": 1, "connect_timeout": "1s"}}
"""Nothing listens on port 1: an action ends at once, and its audit record names its target."""


@pytest.fixture
def acting(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A control API whose actions reach nobody."""
    with control_api(tmp_path, hosts, **NO_SSH) as built:
        yield built


def targets(api: Api) -> list[str]:
    return [record["ssh_host"] for record in api.audit() if record["event"] == "begin"]


def test_a_line_put_before_the_others_renumbers_reads_and_actions_at_once(acting: Api, hosts: str) -> None:
    assert len(acting.get("/api/topology").json["nodes"]) == NODES
    (acting.home / "hosts").write_text(UNREACHABLE + hosts)
    answer = acting.post("/api/topology/node/1/shutdown")
    # The runtime there has the number it was started with, and is left alone.
    assert answer.status_code == 409
    assert "node 1 (127.96.0.1)" in answer.json["error"]
    acting.post("/api/topology/node/0/shutdown")
    assert targets(acting) == ["127.96.0.250:1"]
    nodes = acting.get("/api/topology").json["nodes"]
    assert [node["alive"] for node in nodes] == [False] + [True] * NODES
    assert nodes[1]["ip_address"] == "127.96.0.1"


def test_reads_go_on_and_actions_are_refused_while_the_hostfile_cannot_be_read(
    acting: Api, hosts: str
) -> None:
    (acting.home / "hosts").unlink()
    answer = acting.post("/api/topology/node/1/shutdown")
    assert answer.status_code == 503
    assert "hosts" in answer.json["error"]
    assert targets(acting) == []
    assert len(acting.get("/api/topology").json["nodes"]) == NODES
    (acting.home / "hosts").write_text("a:x\n")
    assert acting.post("/api/topology/node/1/shutdown").status_code == 503
    assert len(acting.get("/api/topology").json["nodes"]) == NODES
    (acting.home / "hosts").write_text(hosts)
    acting.post("/api/topology/node/1/shutdown")
    assert targets(acting) == ["127.96.0.2:1"]


def test_a_hostfile_that_hangs_costs_reads_little_and_refuses_actions(
    acting: Api, hosts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    read = membership_source.read_hostfile
    monkeypatch.setattr(membership_source, "read_hostfile", lambda path: gate.wait(60) and read(path))
    try:
        (acting.home / "hosts").write_text(UNREACHABLE + hosts)
        started = time.monotonic()
        answer = acting.post("/api/topology/node/1/shutdown")
        assert answer.status_code == 503
        assert "takes more than" in answer.json["error"]
        assert targets(acting) == []
        assert len(acting.get("/api/topology").json["nodes"]) == NODES
        assert time.monotonic() - started < 30  # the hostfile itself hangs for 60
    finally:
        gate.set()
    acting.post("/api/topology/node/0/shutdown")
    assert targets(acting) == ["127.96.0.250:1"]


def test_pages_of_an_action_are_refused_too(acting: Api) -> None:
    assert acting.get("/nodes/1/restart").status_code == 200
    (acting.home / "hosts").unlink()
    page = acting.get("/nodes/1/restart")
    assert page.status_code == 503
    assert "hosts" in page.text


def test_discovered_members_have_their_runtimes_numbers_and_are_acted_on_only_when_told(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    address, _, port = hosts.split()[1].partition(":")
    (tmp_path / "exporter.yaml").write_text(f"clusters: [{{seed: '{address}:{port}'}}]")
    (tmp_path / "control.yaml").write_text(yaml.safe_dump({"exporter_config": "exporter.yaml", **NO_SSH}))
    given = {"config": str(tmp_path / "control.yaml"), "port": "0", "reply_port": "0"}
    with application(settings_from(given, {}, tmp_path), {}, tmp_path) as built:
        api = Api(built, tmp_path, built.app.test_client())
        simulator.set_fault(1, "refused")
        refused = api.post("/api/topology/node/0/shutdown")
        assert refused.status_code == 503
        assert "hostfile" in refused.json["error"]
        simulator.clear()
        end = time.monotonic() + 15
        while len(api.get("/api/topology").json["nodes"]) < NODES:
            assert time.monotonic() < end
            time.sleep(0.05)  # more often would meet the rate limit
        api.post("/api/topology/node/0/shutdown")
        assert targets(api) == ["127.96.0.1:1"]
        simulator.set_fault(1, "refused")
        api.post("/api/topology/node/1/restart")
        assert targets(api)[1:] == ["127.96.0.2:1"]
