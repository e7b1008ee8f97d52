"""Restarts of real runtimes of every protocol generation: success is a runtime that was started since."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from clio_client.errors import HungError
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall, ensure_version
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities
from tests.exporter_process import eventually
from tests.integration.sshd import Sshd, make_key
from tests.integration.test_control_cluster import hand_back, listeners
from tests.paths import ROOT
from tests.system import needs_system
from tests.unit.control_api.support import Api, control_api

pytestmark = [pytest.mark.integration, needs_system("sshd"), pytest.mark.timeout(900)]

SMALL = Capacities(ram_device=8, file_device=8, ram_tier=8, file_tier=16, file_growth=8)


@pytest.fixture(
    scope="module",
    params=[
        "2.3.2",
        pytest.param("2.2.1", marks=pytest.mark.compat),
        pytest.param("2.1.0", marks=pytest.mark.compat),
    ],
)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, runtime_install: RuntimeInstall
) -> Iterator[LocalCluster]:
    """One runtime: of generation C, B and A."""
    number = request.param
    same = runtime_install.version == number
    install = runtime_install if same else ensure_version(number, ROOT / ".cache" / "runtimes")
    root = tmp_path_factory.mktemp(f"runtime-{number}")
    with LocalCluster(root, 1, install=install, base_port=find_base_port(1), capacities=SMALL) as cluster:
        yield cluster
        hand_back(cluster)


def api_of(
    cluster: LocalCluster, home: Path, sshd: Sshd, key: Path, **ssh: Any
) -> AbstractContextManager[Api]:
    node = cluster.nodes[0]
    settings = {
        "host": "127.0.0.1", "port": sshd.port, "key_file": str(key), "directory": str(node.directory),
        "environment": {**node.environment, "PATH": f"{cluster.install.bin_dir}:/usr/bin:/bin"}, **ssh,
    }  # fmt: skip
    return control_api(home, f"{node.host}:{node.port}\n", ssh=settings)


def await_failure(api: Api, action_id: str) -> None:
    """Wait until a restart has had its time, for which the node is busy."""
    eventually("it is over", lambda: api.get(f"/api/actions/{action_id}").json["state"] == "failed", 60)


def test_a_restart_is_a_success_once_a_runtime_answers_that_was_started_since(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.nodes[0]
    key = make_key(tmp_path / "id")
    restart = "/api/topology/node/0/restart"
    with Sshd(tmp_path / "sshd", [key]) as sshd:
        # A command that does nothing: the runtime goes on as it was, and is asked for the first time.
        with api_of(cluster, tmp_path, sshd, key, commands={"restart": ["true"]}, start_timeout=10) as api:
            answer = api.post(f"{restart}?wait=7")
            assert (answer.status_code, answer.json["reason"]) == (504, "not_up"), answer.text
            await_failure(api, answer.json["id"])
            # Not even when it could not be found out which runtime answered before.
            monkeypatch.setattr("clio_control_api.app.identify", lambda *_: HungError("no answer in time"))
            answer = api.post(f"{restart}?wait=3")
            assert (answer.status_code, answer.json["reason"]) == (504, "not_up"), answer.text
            await_failure(api, answer.json["id"])
        before = listeners(node.client_port)
        with api_of(cluster, tmp_path, sshd, key) as api:
            started = time.monotonic()
            answer = api.post(f"{restart}?wait=90")
            assert answer.status_code == 200, answer.text
            print(f"restarted in {time.monotonic() - started:.1f} s: {answer.json['stdout']}")
        after = listeners(node.client_port)
        assert after
        assert after.isdisjoint(before)
        sshd.await_no_sessions()
