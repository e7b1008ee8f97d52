"""The library on real runtimes: what it tells of them, and what it leaves behind in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clio_client import BdevStats, Cluster
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.node import LocalNode
from tests.integration.footprint import Footprint
from tests.integration.live import Deadline, free_port

pytestmark = pytest.mark.integration

LIVES = 25
PATIENCE = 30.0
"""Seconds that a call may take: the machine may have much to do."""
ABORT_S = 10.0
"""A runtime that was shown one identity twice ends about 8 s later."""
ELASTIC = LIVES // 2
"""What a runtime opens by itself, most of all one just started; a leak would be one or two a life."""


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def hostfile(cluster: LocalCluster) -> Path:
    assert cluster.hostfile is not None
    return cluster.hostfile


def pid_of(node: LocalNode) -> int:
    assert node.pid is not None, f"the runtime ended:\n{node.log_tail(20)}"
    return node.pid


def test_what_it_tells_is_true(cluster4: LocalCluster) -> None:
    with Cluster.from_hostfile(hostfile(cluster4), reply_port=0) as cluster:
        for node, status in zip(cluster4.nodes, cluster.status(), strict=True):
            found = status.get()
            assert found.session.identity is not None
            assert found.session.identity.pid == node.pid
            assert found.host is not None
            assert (found.host.hostname, found.host.node_id) == (node.host, node.index)
        leaders = [result.get()[-1].is_leader for result in cluster.samples(last=1)]
        assert leaders.count(True) == 1
        for result in cluster.devices():
            assert result.get()
            for pool in result.get():
                assert isinstance(pool.stats, BdevStats)
                assert pool.stats.total_capacity


def test_a_killed_node_costs_the_others_nothing_and_comes_back(cluster4: LocalCluster) -> None:
    with Cluster.from_hostfile(hostfile(cluster4), reply_port=0) as cluster:
        before = [result.get().session.identity for result in cluster.status()]
        node = cluster4.nodes[2]
        node.kill()
        try:
            results = cluster.workers(timeout=2)
            assert [result.ok for result in results] == [True, True, False, True]
            assert results[2].error is not None
            assert results[2].error.reason in {"refused", "connection_lost"}
        finally:
            node.start()
            node.wait_ready(30)
        end = Deadline(30)
        while not all(result.ok for result in cluster.status()):
            assert not end.over
        after = [result.get().session.identity for result in cluster.status()]
        assert [was == now for was, now in zip(before, after, strict=True)] == [True, True, False, True]


def test_programs_that_come_and_go_leave_nothing(cluster4: LocalCluster) -> None:
    """Two at a time, as from cron: they share out the ports of one range, and come back to them."""
    port = free_port()

    def live() -> None:
        with (
            Cluster.from_hostfile(hostfile(cluster4), reply_port=port, timeout=PATIENCE) as first,
            Cluster.from_hostfile(hostfile(cluster4), reply_port=port, timeout=PATIENCE) as second,
        ):
            for cluster in (first, second):
                assert all(result.ok for result in cluster.status())
            assert all(result.ok for result in first.workers())

    for _ in range(3):
        live()
    before = [Footprint.of(pid_of(node)) for node in cluster4.nodes]
    lives, end = 0, Deadline(ABORT_S)
    while lives < LIVES or not end.over:
        live()
        lives += 1
    for node, was in zip(cluster4.nodes, before, strict=True):
        now = Footprint.of(pid_of(node))
        print(f"node {node.index}: {was} -> {now} in {lives} lives")
        assert now.descriptors <= was.descriptors + ELASTIC
