"""The demo as it is shown: four nodes, every family of metrics, moving counters, nothing left; and again."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_lab.demo.addresses import FALLBACK
from clio_lab.demo.ports import is_free
from tests.exporter_process import eventually
from tests.integration.live import NodeScrape
from tests.integration.test_demo import READY, Demo, ensure_ended
from tests.paths import ROOT

pytestmark = pytest.mark.integration

NODES = 4
READY_WITHIN = 180.0

REFERENCE = ROOT / "docs" / "metrics.md"

ABSENT_HERE = re.compile(
    r"clio_node_(gpu|hbm)_.*"  # no GPU
    r"|clio_node_down_info"  # all are up
    r"|clio_safe_bdev_.*"  # the wheel has no such module
    r"|clio_bdev_(device_health|failure_prediction|predicted_time_to_live_seconds)"  # no such reports
    r"|clio_method_cost_.*|clio_pool_learning_rate"  # the collector is off by default
    r"|clio_node_job_info|clio_job_map_load_success"  # no directory of jobs
    r"|clio_module_stat"  # every module with statistics has families of its own
)

RISING = {
    "tasks": "clio_worker_tasks_processed_total",
    "bytes written": "clio_bdev_written_bytes_total",
    "bytes read": "clio_bdev_read_bytes_total",
    "blobs": "clio_cte_blobs",
}


def documented() -> set[str]:
    """Names of all families of the collectors, from the metrics reference."""
    text = REFERENCE.read_text(encoding="utf-8").split("## About the scrape")[0]
    found = set(re.findall(r"^\| `(clio_\w+)` \|", text, re.MULTILINE))
    assert len(found) > 50
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "demo", nodes=NODES)
    try:
        yield demo
    finally:
        ensure_ended(demo)


def scrape(url: str) -> NodeScrape:
    with urllib.request.urlopen(url, timeout=20) as response:
        return NodeScrape(response.read().decode())


def all_rise(url: str, first: NodeScrape) -> bool:
    now = scrape(url)
    for what, name in RISING.items():
        before, after = first.totals(name), now.totals(name)
        still = [node for node in range(NODES) if after.get(node, 0) <= before.get(node, 0)]
        assert not still, f"{what} do not rise on nodes {still}"
    return True


def families_on_all_nodes(url: str) -> bool:
    found = scrape(url)
    missing = {name for name in documented() - found.names if not ABSENT_HERE.fullmatch(name)}
    assert not missing
    of_nodes = [{name for name, _ in found.of_node(index)} for index in range(NODES)]
    assert all(names == of_nodes[0] for names in of_nodes)
    return True


@pytest.mark.timeout(600)
def test_four_nodes_every_family_and_again(running: Demo, tmp_path: Path) -> None:
    url = running.wait_line(READY, READY_WITHIN)[1]
    first = scrape(url)
    assert [first.up(index) for index in range(NODES)] == [True] * NODES
    hosts = [dict(labels)["hostname"] for labels, _ in first.series("clio_node_up")]
    if FALLBACK not in hosts:  # without the privilege for addresses they share one, and the demo says so
        assert len(set(hosts)) == NODES
    else:
        running.wait_line("no privilege for loopback addresses")
    eventually("all counters rise on all nodes", lambda: all_rise(url, first), 120, pause=1)
    eventually("all families are there", lambda: families_on_all_nodes(url), 60, pause=1)
    assert running.end() == 0
    assert running.left() == []
    assert is_free(int(running.listen.rsplit(":", 1)[1]))

    second = Demo(tmp_path / "demo", nodes=NODES)
    try:
        again = second.wait_line(READY, READY_WITHIN)[1]
        assert [scrape(again).up(index) for index in range(NODES)] == [True] * NODES
    finally:
        ensure_ended(second)
    assert second.left() == []


def test_a_port_in_use_is_named_and_nothing_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = Demo(tmp_path / "demo", f"--listen=127.0.0.1:{port}", nodes=1)
        try:
            assert demo.process.wait(60) == 1
            line = demo.wait_line(rf"port {port}\b|:{port}\b").string
            assert "in use" in line
        finally:
            ensure_ended(demo)
        assert demo.left() == []
        assert not any(line.startswith("node 0 is up") for line in demo.lines)
