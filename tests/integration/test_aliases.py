"""One runtime under several addresses, asked by one program or by many: it lives, and is shown once.

A 2.3.2 runtime that is shown one identity by two living connections ends about eight seconds after one of
them has sent again and closed, so each test watches the cluster for longer than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_client.client import RuntimeClient
from clio_client.errors import RuntimeClientError
from clio_client.transport.interface import NodeAddress, Transport
from clio_client.transport.zeromq import ZmqTransport
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.ports import find_base_port
from tests.exporter_process import eventually, run_exporter
from tests.integration.footprint import Footprint
from tests.integration.live import Deadline, Exporter, NodeScrape, free_port

pytestmark = pytest.mark.integration

FATAL_S = 11.0
"""After this long a runtime that was shown an identity twice has ended."""

ELASTIC = 4
"""Descriptors by which a runtime's own number goes up and down."""


@pytest.fixture(scope="module")
def cluster(
    runtime_install: RuntimeInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Four runtimes of these tests' own: what they do ended runtimes, once."""
    root = tmp_path_factory.mktemp("aliases")
    with LocalCluster(root, 4, install=runtime_install, base_port=find_base_port(4)) as running:
        yield running


def pids(cluster: LocalCluster) -> list[int | None]:
    return [node.pid for node in cluster.nodes]


def live_on(cluster: LocalCluster, before: list[int | None], seconds: float = FATAL_S) -> None:
    """Watch the runtimes; fails as soon as one has ended."""
    assert None not in before
    end = Deadline(seconds)
    while not end.over:
        for node, pid in zip(cluster.nodes, before, strict=True):
            assert node.pid == pid, f"node {node.index} ended, see {node.log_path}"
        threading.Event().wait(0.25)


def descriptors(cluster: LocalCluster, index: int = 0) -> int:
    pid = cluster.nodes[index].pid
    assert pid is not None
    return Footprint.of(pid).descriptors


def aliases(cluster: LocalCluster, index: int = 0, count: int = 1) -> list[str]:
    """The node as its hostfile has it, and by ``count`` more of the addresses it listens on."""
    node = cluster.nodes[index]
    return [f"{node.host}:{node.port}", *(f"127.0.0.{i + 1}:{node.port}" for i in range(count))]


def shell(tmp_path: Path, *arguments: str, reply_port: int) -> NodeScrape:
    done = run_exporter(tmp_path, "scrape", *arguments, f"--runtime.reply-port={reply_port}")
    assert done.returncode in (0, 3), done.stderr
    return NodeScrape(done.stdout)


def shown_once(scrape: NodeScrape, shown: int, nodes: int) -> None:
    """Node ``shown`` is up and leads, every other one is down as its duplicate."""
    assert [scrape.reason(i) for i in range(nodes)] == [
        None if i == shown else "duplicate" for i in range(nodes)
    ]
    assert scrape.by("node_id", "clio_node_leader") == {str(shown): 1}


def test_a_shell_by_two_addresses(cluster: LocalCluster, tmp_path: Path) -> None:
    before, reply_port = pids(cluster), free_port()
    hostfile, loopback = aliases(cluster)
    for _ in range(2):
        # The number decides, not the order of connecting.
        shown_once(shell(tmp_path, f"--nodes={hostfile},{loopback}", reply_port=reply_port), 0, 2)
        shown_once(shell(tmp_path, f"--nodes={loopback},{hostfile}", reply_port=reply_port), 0, 2)
    live_on(cluster, before)


def test_discovery_where_the_ports_differ(cluster: LocalCluster, tmp_path: Path) -> None:
    before, reply_port = pids(cluster), free_port()
    seed = f"--seed=127.0.0.1:{cluster.nodes[0].port}"
    for _ in range(3):
        scrape = shell(tmp_path, seed, reply_port=reply_port)
        starts = [value for _, value in scrape.series("clio_node_start_time_seconds")]
        assert len(starts) == len(set(starts)) > 0
        assert sum(scrape.by("node_id", "clio_node_leader").values()) == 1
    live_on(cluster, before)


def test_every_program_at_once_by_every_address(cluster: LocalCluster, tmp_path: Path) -> None:
    """Two exporters, what the control API asks by, and shells; all with the same reply port to begin with."""
    before, reply_port = pids(cluster), free_port()
    every = [address for i in range(4) for address in aliases(cluster, i)]
    # Numbers 0 to 3 are the hostfile's, 4 to 7 the same runtimes again.
    nodes = ",".join([*every[::2], *every[1::2]])
    as_listed = [None] * 4 + ["duplicate"] * 4

    def control_api() -> None:
        client = RuntimeClient(lambda: ZmqTransport(role="control-api", reply_port=reply_port))
        with contextlib.closing(client):
            asked = [
                NodeAddress(host, int(port), index)
                for index, (host, _, port) in enumerate(a.partition(":") for a in nodes.split(","))
            ]
            end = Deadline(6.0)
            while not end.over:
                assert client.call(lambda transport: reasons(transport, asked), 10.0) == as_listed

    def shells() -> None:
        for _ in range(3):
            scrape = shell(tmp_path, f"--nodes={nodes}", reply_port=reply_port)
            assert [scrape.reason(i) for i in range(8)] == as_listed

    with (
        Exporter(tmp_path, f"--nodes={nodes}", reply_port=reply_port) as one,
        Exporter(tmp_path, f"--nodes={nodes}", reply_port=reply_port) as two,
    ):
        for exporter in (one, two):
            exporter.take()
        used = [descriptors(cluster, i) for i in range(4)]
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=_noting, args=(work, failures)) for work in (control_api, shells, shells)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for exporter in (one, two):
                scrape = exporter.take()
                assert [scrape.reason(i) for i in range(8)] == as_listed
        for thread in threads:
            thread.join()
        assert failures == []
        for exporter in (one, two):
            # One question more of each runtime by each address, and no connection again and again.
            assert exporter.take().value("clio_exporter_runtime_connections_opened_total") == 8
        live_on(cluster, before)
    for index in range(4):
        # Five programs by two addresses; two exporters had left theirs before the count.
        assert descriptors(cluster, index) <= used[index] + 3 * 2 + ELASTIC


async def reasons(transport: Transport, nodes: list[NodeAddress]) -> list[str | None]:
    """Why each node does not answer; None for one that does."""
    deadline = asyncio.get_running_loop().time() + 8.0

    async def reason(node: NodeAddress) -> str | None:
        try:
            await transport.monitor(node, "worker_stats", deadline)
        except RuntimeClientError as error:
            return error.reason
        return None

    return list(await asyncio.gather(*map(reason, nodes)))


def _noting(work: object, failures: list[BaseException]) -> None:
    assert callable(work)
    try:
        work()
    except BaseException as failure:  # noqa: BLE001 - for the test's own thread to see
        failures.append(failure)


def test_what_an_address_costs_a_runtime(cluster: LocalCluster, tmp_path: Path) -> None:
    """One descriptor for each identity, once, however often the program is started again."""
    before, reply_port, count = pids(cluster), free_port(), 20
    nodes = f"--nodes={','.join(aliases(cluster, 0, count))}"
    own = shell(tmp_path, f"--nodes={aliases(cluster)[0]}", reply_port=reply_port)
    assert own.up(0)
    counts = [descriptors(cluster)]
    for _ in range(4):
        shown_once(shell(tmp_path, nodes, reply_port=reply_port), 0, count + 1)
        counts.append(descriptors(cluster))
    print(f"{count} more addresses: descriptors of the runtime {counts}")
    assert counts[1] <= counts[0] + count + ELASTIC
    assert counts[-1] <= counts[1] + ELASTIC
    live_on(cluster, before)


def test_a_restarted_runtime_stays_under_its_member(cluster: LocalCluster, tmp_path: Path) -> None:
    nodes = ",".join(aliases(cluster)[::-1])
    with Exporter(tmp_path, f"--nodes={nodes}") as exporter:
        shown_once(exporter.take(), 0, 2)
        cluster.nodes[0].restart()

        def shown_again() -> bool:
            scrape = exporter.take()
            assert scrape.reason(1) is not None
            return scrape.up(0) and scrape.reason(1) == "duplicate"

        eventually("the member shows the runtime again", shown_again)
        live_on(cluster, pids(cluster), 1.0)
