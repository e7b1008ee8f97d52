"""Older wheels start here, one node each, and are driven like the current one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import ensure_version
from clio_lab.demo.node import greets
from clio_lab.demo.ports import find_base_port
from tests.integration.leftovers import leftovers
from tests.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.compat]

CACHE = ROOT / ".cache" / "runtimes"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["1.0.3", "1.5.1", "1.9.0", "2.1.0", "2.2.1"])
def test_starts_pauses_and_restarts(version: str, tmp_path: Path) -> None:
    install = ensure_version(version, CACHE)
    assert install.version == version
    assert ensure_version(version, CACHE) == install
    cluster = LocalCluster(tmp_path, 1, install=install, base_port=find_base_port(1))
    with cluster:
        (node,) = cluster.nodes
        assert cluster.hostfile is None
        assert greets(node.host, node.client_port)
        node.pause()
        assert not greets(node.host, node.client_port)
        node.resume()
        node.wait_ready(10)
        node.kill()
        node.restart()
    assert leftovers(cluster.user, cluster.base_port, 1) == []
