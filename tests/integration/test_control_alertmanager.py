"""A real Alertmanager asks the control API to restart the node that an alert is about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.alertmanager import Alertmanager
from tests.integration.sshd import Sshd, make_key
from tests.ports import free_port
from tests.system import needs_system
from tests.unit.control_api.support import TOKENS, Api, control_api

pytestmark = [pytest.mark.integration, needs_system("sshd", "prometheus-alertmanager")]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A served control API on simulated nodes, with a command that notes what it was told to do."""
    key = make_key(tmp_path / "id")
    command = tmp_path / "clio_run"
    command.write_text(
        "#!/bin/sh\ncase $1 in --help) echo '  start  Start' ;; "
        f"start) echo $NODE >>{tmp_path}/started ;; esac\n"
    )
    command.chmod(0o755)
    port = free_port()
    ssh: dict[str, Any] = {
        "host": "127.0.0.1", "key_file": str(key), "program": str(command), "agent": False,
        "environment": {"HOME": str(tmp_path), "NODE": "{node_id}"},
    }  # fmt: skip
    told = {
        "enabled": True, "dry_run": False, "actions": {"ClioNodeHung": "restart"}, "max_down_percent": 50,
    }  # fmt: skip
    with (
        SimulatorProcess("--nodes", "3", "--base-port", str(port)),
        Sshd(tmp_path / "sshd", [key]) as sshd,
        control_api(
            tmp_path, "".join(f"127.96.0.{i + 1}:{port}\n" for i in range(3)), tokens=True,
            ssh={**ssh, "port": sshd.port}, alertmanager=told,
        ) as built,
    ):  # fmt: skip
        built.built.server.start()
        try:
            yield built
        finally:
            built.built.server.stop()


def test_an_alert_restarts_the_node_it_is_about(api: Api, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKENS["anna"][1])
    host, port = api.built.server.addresses[0]
    config = {
        "route": {"receiver": "clio", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s"},
        "receivers": [
            {
                "name": "clio",
                "webhook_configs": [
                    {
                        "url": f"http://{host}:{port}/api/alertmanager", "max_alerts": 50,
                        "http_config": {"authorization": {"credentials_file": str(tmp_path / "token")}},
                    }
                ],
            }
        ],
    }  # fmt: skip
    with Alertmanager(tmp_path, config) as alertmanager:
        alertmanager.send(
            [
                {"alertname": "ClioNodeHung", "node_id": "2", "hostname": "127.96.0.3"},
                {"alertname": "ClioBdevAlmostFull", "node_id": "1", "hostname": "127.96.0.2"},
            ]
        )
        deadline = time.monotonic() + 60
        verdicts: set[str] = set()
        # It repeats what still fires; the node was not seen up as another process since.
        while not {"acted", "not_configured", "not_up_yet"} <= verdicts:
            assert time.monotonic() < deadline, (verdicts, alertmanager.log)
            time.sleep(0.1)
            verdicts = {line["verdict"] for line in api.audit() if line["event"] == "alert_decision"}
    begun = [line for line in api.audit() if line["event"] == "begin"]
    assert [(line["node_id"], line["action"], line["reason"]) for line in begun] == [
        (2, "restart", "alert ClioNodeHung")
    ]
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "started").read_text().split() == ["2"]
