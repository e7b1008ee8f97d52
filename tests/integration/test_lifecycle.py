"""Nodes that hang, die, come back, join and leave; an exporter that starts first, or last, or is stopped.

In every scrape, whatever happens to one node, the other nodes' samples are complete and the answer is
there before the timeout that came with the request.
"""

from __future__ import annotations

import concurrent.futures
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.integration.live import Deadline, Exporter, NodeScrape, Series

pytestmark = pytest.mark.integration

TIMEOUT = 5.0
"""What Prometheus would send; a node has 3 s."""

OF_A_DOWN_NODE = {
    "clio_node_up",
    "clio_node_down_info",
    "clio_node_info",
    "clio_node_probe_duration_seconds",
}
"""All there may be of a node that does not answer: who it is, that it is down, and why."""

SMALL = Capacities(ram_device=8, file_device=8, ram_tier=8, file_tier=16, file_growth=8)


@pytest.fixture(scope="module")
def exporter(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    arguments = [f"--hostfile={cluster4.hostfile}", "--collector.pool.interval=1s"]
    with Exporter(tmp_path_factory.mktemp("lifecycle"), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def whole(cluster4: LocalCluster, exporter: Exporter) -> NodeScrape:
    """A scrape with all nodes up, to compare with."""
    return until(exporter, "all nodes are up", all_up)


def all_up(scrape: NodeScrape) -> bool:
    return all(value == 1 for _labels, value in scrape.series("clio_node_up"))


def until(
    exporter: Exporter,
    what: str,
    accept: Callable[[NodeScrape], bool],
    seconds: float = 60,
    check: Callable[[NodeScrape], None] = lambda _scrape: None,
) -> NodeScrape:
    """Scrape until `accept`; `check` sees every scrape."""
    for scrape in exporter.takes(seconds, timeout=TIMEOUT):
        check(scrape)
        if accept(scrape):
            return scrape
    pytest.fail(f"not within {seconds} s: {what}; {scrape.series('clio_node_up')}\n{exporter.log}")


def shape(scrape: NodeScrape, index: int) -> set[Series]:
    """The node's series, but for what comes and goes by itself: workers by number, methods that learn."""
    kept = set()
    for name, labels in scrape.of_node(index):
        if name.startswith("clio_worker_"):
            kept.add((name, frozenset(pair for pair in labels if pair[0] != "worker_id")))
        elif not name.startswith(("clio_method_", "clio_pool_cost_")):
            kept.add((name, labels))
    return kept


class OthersComplete:
    """Checks of each scrape that every node but one has all its series."""

    def __init__(self, whole: NodeScrape, nodes: LocalCluster, without: int) -> None:
        self._wanted = {n.index: shape(whole, n.index) for n in nodes.nodes if n.index != without}
        self.scrapes = 0

    def __call__(self, scrape: NodeScrape) -> None:
        self.scrapes += 1
        for index, wanted in self._wanted.items():
            assert shape(scrape, index) == wanted
        for labels, value in scrape.series("clio_collector_success"):
            assert value == 1, labels


def down_with(index: int, *reasons: str) -> Callable[[NodeScrape], bool]:
    """Whether the node is down for one of these reasons, and nothing old of it is left."""

    def accept(scrape: NodeScrape) -> bool:
        if scrape.up(index):
            return False
        assert {name for name, _ in scrape.of_node(index)} == OF_A_DOWN_NODE
        return scrape.reason(index) in reasons

    return accept


def up_again(index: int) -> Callable[[NodeScrape], bool]:
    return lambda scrape: scrape.up(index)


def alive_for(
    node: LocalNode, seconds: float, exporter: Exporter, check: Callable[[NodeScrape], None]
) -> None:
    """The node runs on and answers for this long."""
    pid = node.pid
    for scrape in exporter.takes(seconds, timeout=TIMEOUT, pause=0.5):
        check(scrape)
        assert scrape.up(node.index)
        assert node.pid == pid is not None, f"the runtime ended:\n{node.log_tail(20)}"


def test_a_hung_node_and_its_recovery(cluster4: LocalCluster, exporter: Exporter, whole: NodeScrape) -> None:
    node = cluster4.nodes[1]
    check = OthersComplete(whole, cluster4, without=1)
    node.pause()
    try:
        until(exporter, "node 1 is hung", down_with(1, "hung"), check=check)
        for scrape in exporter.takes(3, timeout=TIMEOUT):
            check(scrape)
            assert down_with(1, "hung")(scrape)
    finally:
        node.resume()
    back = until(exporter, "node 1 is up", up_again(1), check=check)
    assert shape(back, 1) == shape(whole, 1)
    assert check.scrapes >= 4
    # The same runtime: its counters went on.
    same = "clio_node_start_time_seconds"
    assert back.value(same, node_id="1") == pytest.approx(whole.value(same, node_id="1"), abs=0.5)
    tasks = "clio_worker_tasks_processed_total"
    assert back.value(tasks, node_id="1", worker_id="1") >= whole.value(tasks, node_id="1", worker_id="1")
    alive_for(node, 10, exporter, check)


def test_a_hang_shorter_than_a_scrape_is_waited_out(
    cluster4: LocalCluster, exporter: Exporter, whole: NodeScrape
) -> None:
    node = cluster4.nodes[0]
    node.pause()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            scraping = pool.submit(exporter.take, TIMEOUT)
            exporter.idle(0.5)
            node.resume()
            assert scraping.result(30).up(0)
    finally:
        node.resume()


def test_a_killed_node_and_its_successor(
    cluster4: LocalCluster, exporter: Exporter, whole: NodeScrape, tmp_path: Path
) -> None:
    node = cluster4.nodes[2]
    load = Traffic(cluster4, State(tmp_path / "state.json"), burst=0.2, interval=0.25)
    load.start(lambda _line: None)
    try:
        written = "clio_bdev_written_bytes_total"
        before = until(exporter, "blobs on node 2", lambda s: s.totals(written).get(2, 0) > 0, 120)
    finally:
        load.stop()
    check = OthersComplete(whole, cluster4, without=2)
    node.kill()
    try:
        until(exporter, "node 2 is down", down_with(2, "refused", "connection_lost"), check=check)
        until(exporter, "node 2 refuses", down_with(2, "refused"), check=check)
    finally:
        began = time.time()
        node.start()
    after = until(exporter, "node 2 is up", up_again(2), 120, check=check)
    node.wait_ready(120)
    assert node.pid is not None
    started = after.value("clio_node_start_time_seconds", node_id="2")
    # The runtime notes the time when it begins to serve, which is later on a busy machine.
    assert psutil.Process(node.pid).create_time() - 1 <= started <= time.time()
    assert started > began - 2 > before.value("clio_node_start_time_seconds", node_id="2")
    whole_again = until(
        exporter, "node 2 has its pools", lambda s: shape(s, 2) == shape(whole, 2), 120, check=check
    )
    assert whole_again.totals(written)[2] < before.totals(written)[2]
    alive_for(node, 10, exporter, check)


def test_a_node_that_hangs_until_its_connection_ends(
    cluster4: LocalCluster, exporter: Exporter, whole: NodeScrape
) -> None:
    """After 30 s without a heartbeat the connection ends; opened too early, the next would abort it."""
    node = cluster4.nodes[3]
    check = OthersComplete(whole, cluster4, without=3)
    opened = "clio_exporter_runtime_connections_opened_total"
    before = exporter.take(TIMEOUT)
    # A runtime sends one each 5 s; a connection that never had any does not miss them.
    alive_for(node, 8, exporter, check)
    node.pause()
    try:
        for scrape in exporter.takes(36, timeout=TIMEOUT, pause=0.5):
            check(scrape)
            assert scrape.up(3) is False
            assert scrape.reason(3) == "hung"
        ended = "clio_exporter_runtime_connections"
        until(exporter, "the connection has ended", lambda scrape: scrape.value(ended) == 3, check=check)
    finally:
        node.resume()
    back = until(exporter, "node 3 is up", up_again(3), check=check)
    assert back.value(opened) > before.value(opened)
    alive_for(node, 15, exporter, check)


def test_started_before_the_cluster_and_after(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    base_port = find_base_port(4)
    cluster = LocalCluster(tmp_path, 4, install=runtime_install, base_port=base_port, capacities=SMALL)
    hostfile = tmp_path / "nodes"
    hostfile.write_text("".join(f"127.0.0.1:{base_port + 10 * index}\n" for index in range(4)))
    with Exporter(tmp_path, f"--hostfile={hostfile}") as early:
        nobody = early.take(TIMEOUT)
        assert [nobody.reason(index) for index in range(4)] == ["refused"] * 4
        assert nobody.value("clio_cluster_nodes") == 4
        assert {name for name, _ in nobody.of_node(0)} == OF_A_DOWN_NODE
        with cluster:
            first = until(early, "all nodes are up", all_up)
            with Exporter(tmp_path, f"--hostfile={hostfile}") as late:
                second = until(late, "all nodes are up", all_up)
                for index in range(4):
                    assert shape(first, index) == shape(second, index)
        gone = until(early, "all nodes are down", lambda s: not any(s.up(index) for index in range(4)))
        for index in range(4):
            assert {name for name, _ in gone.of_node(index)} == OF_A_DOWN_NODE


def test_a_retired_pool_ends(
    cluster4: LocalCluster, exporter: Exporter, whole: NodeScrape, tmp_path: Path
) -> None:
    node = cluster4.nodes[0]
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "compose:\n  - {mod_name: clio_bdev, pool_name: 'ram::passing', pool_query: local,\n"
        "     pool_id: '777.0', bdev_type: ram, capacity: 4MB}\n"
    )

    def compose(verb: str) -> None:
        subprocess.run(
            [cluster4.install.start_command[0], "compose", verb, str(pool)],
            env={**node.environment, "CLIO_WAIT_SERVER": "10"},
            capture_output=True,
            timeout=60,
            check=True,
        )

    def complete(scrape: NodeScrape) -> None:
        for labels, value in scrape.series("clio_collector_success"):
            assert value == 1, labels

    def of_pool(scrape: NodeScrape) -> set[str]:
        return {name for name, labels in scrape.samples if ("pool_id", "777.0") in labels}

    compose("start")
    try:
        wanted = {"clio_pool_info", "clio_bdev_capacity_bytes", "clio_bdev_free_bytes"}
        there = until(exporter, "the new pool", lambda s: of_pool(s) >= wanted, check=complete)
        assert there.value("clio_bdev_capacity_bytes", pool_id="777.0", node_id="0") == 4 * 2**20
    finally:
        compose("stop")
    gone = until(exporter, "the pool's end", lambda s: not of_pool(s), check=complete)
    assert shape(gone, 0) == shape(whole, 0)


def test_a_node_taken_from_the_hostfile_and_added_again(
    cluster4: LocalCluster, whole: NodeScrape, tmp_path: Path
) -> None:
    assert cluster4.hostfile is not None
    lines = cluster4.hostfile.read_text().splitlines(keepends=True)
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(lines))
    with Exporter(tmp_path, f"--hostfile={hostfile}") as running:
        until(running, "all nodes are up", all_up)
        hostfile.write_text("".join(lines[:3]))
        fewer = until(running, "three members", lambda s: s.value("clio_cluster_nodes") == 3)
        assert fewer.of_node(3) == {}
        assert [fewer.up(index) for index in range(3)] == [True] * 3
        until(running, "three connections", lambda s: s.value("clio_exporter_runtime_connections") == 3)
        hostfile.write_text("".join(lines))
        again = until(running, "four members", lambda s: s.value("clio_cluster_nodes") == 4 and all_up(s))
        assert shape(again, 3) == shape(whole, 3)
        # A node that changes its place has its new number at once, and no series under the old one.
        hostfile.write_text("".join(lines[1:]))
        moved = until(running, "three members", lambda s: s.value("clio_cluster_nodes") == 3 and all_up(s))
        hosts = {dict(labels)["hostname"] for name, labels in moved.of_node(0) if name == "clio_node_up"}
        assert hosts == {cluster4.nodes[1].host}
    for node in cluster4.nodes:
        node.wait_ready(30)


def test_stopped_during_a_scrape(cluster4: LocalCluster, tmp_path: Path) -> None:
    node = cluster4.nodes[1]
    with Exporter(tmp_path, f"--hostfile={cluster4.hostfile}") as running:
        until(running, "all nodes are up", all_up)
        node.pause()
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                scraping = pool.submit(running.take, 10.0)
                # Under way: it waits for the paused node. Asked without a scrape, so that it is the only one.
                running.idle(0.7)
                assert not scraping.done()
                running.signal(signal.SIGTERM)
                last = scraping.result(30)
        finally:
            node.resume()
        assert [last.up(index) for index in range(4)] == [True, False, True, True]
        assert last.reason(1) == "hung"
        assert running.wait(20) == 0, running.log
        end = Deadline(5)
        with socket.socket() as probe:
            probe.settimeout(end.left)
            assert probe.connect_ex(("127.0.0.1", running.port)) != 0
    node.wait_ready(30)
