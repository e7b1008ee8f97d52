"""Four real runtimes in containers: what the exporter sees of pauses, cut networks and restarts; actions.

The order of the tests is that of the file; each leaves all four nodes up.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.containers.cluster import NODES, ContainerCluster, private_keys, writable
from tests.exporter_process import Scrape, eventually

PER_NODE = (
    "clio_node_memory_total_bytes", "clio_node_leader", "clio_worker_queued_tasks",
    "clio_bdev_capacity_bytes", "clio_pool_info", "clio_cte_targets",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerCluster]:
    with ContainerCluster(tmp_path_factory.mktemp("containers")) as running:
        yield running


def complete(scrape: Scrape, node: int) -> bool:
    """Whether a node's part of a scrape has every subsystem."""
    labels = {"node_id": str(node)}
    return scrape.value("clio_node_up", **labels) == 1 and all(
        scrape.series(name, **labels) for name in PER_NODE
    )


def down_without_cost(cluster: ContainerCluster, victim: int) -> None:
    """The victim is down in a scrape that ends in time and has everything of the others."""
    cluster.wait_for(f"node {victim} is down", lambda: cluster.up()[victim] == 0)
    started = time.monotonic()
    scrape = cluster.scrape(timeout=10)
    assert time.monotonic() - started < 10
    assert scrape.value("clio_node_up", node_id=str(victim)) == 0
    assert scrape.series("clio_worker_queued_tasks", node_id=str(victim)) == []
    assert [node for node in range(NODES) if complete(scrape, node)] == [
        node for node in range(NODES) if node != victim
    ]


def act_on(cluster: ContainerCluster, nodes: set[int], action: str) -> None:
    """The same action on several nodes at once; every one of them succeeds."""
    with ThreadPoolExecutor(NODES) as pool:
        list(pool.map(lambda node: cluster.act(node, action), sorted(nodes)))


def test_four_nodes_are_scraped(cluster: ContainerCluster) -> None:
    # A runtime answers before it has composed its pools.
    cluster.wait_for("all is there", lambda: all(complete(cluster.scrape(), n) for n in range(NODES)), 90)
    scrape = cluster.scrape()
    assert sum(scrape.by("node_id", "clio_node_leader").values()) == 1
    assert scrape.by("node_id", "clio_node_up", hostname=f"{cluster.prefix}.13") == {"3": 1}
    assert all(value == 1 for _, value in scrape.series("clio_collector_success"))


def test_a_paused_node_is_down_and_costs_the_others_nothing(cluster: ContainerCluster) -> None:
    victim = cluster.nodes[2]
    victim.docker.pause()
    try:
        down_without_cost(cluster, 2)
    finally:
        victim.docker.unpause()
    cluster.wait_up(range(NODES))


def test_a_node_cut_off_from_the_network_is_down_and_comes_back(cluster: ContainerCluster) -> None:
    victim = cluster.nodes[1]
    network = victim.docker.client.networks.get(cluster.network.name)
    network.disconnect(victim.docker)
    try:
        down_without_cost(cluster, 1)
    finally:
        network.connect(victim.docker, ipv4_address=victim.address)
    cluster.wait_up(range(NODES))


def test_a_container_that_is_restarted_comes_back_as_the_same_node(cluster: ContainerCluster) -> None:
    victim = cluster.nodes[3]
    victim.docker.stop(timeout=20)
    down_without_cost(cluster, 3)
    victim.docker.start()
    cluster.wait_up(range(NODES))
    # Its host key is the one it had: others are refused.
    cluster.act(3, "restart")
    cluster.wait_up(range(NODES))


def test_a_node_holds_no_key_but_its_own_and_can_change_none(cluster: ContainerCluster) -> None:
    """What somebody who has taken one node finds there gets him nowhere else."""
    ours = private_keys(cluster.control_api.docker)
    assert len(ours) == 1, "the control API has the key that logs in, and no host's"
    found = [private_keys(node.docker) for node in cluster.nodes]
    assert [len(keys) for keys in found] == [1] * NODES
    assert len(set().union(ours, *found)) == 1 + NODES, "no key is in two containers"
    for node in cluster.nodes:
        assert writable(node.docker, "/keys") == []


def test_the_control_api_knows_the_nodes_beforehand(cluster: ContainerCluster) -> None:
    """By their public host keys; a node that shows another's, or a new one, is refused."""
    code, known = cluster.control_api.execute("cat", "/keys/cluster_known_hosts")
    assert code == 0, known
    hosts = dict(line.split(" ", 1) for line in known.splitlines())
    assert list(hosts) == [f"[{node.address}]:2222" for node in cluster.nodes]
    for node in cluster.nodes:
        code, public = node.execute("ssh-keygen", "-y", "-f", "/keys/host_key")
        assert code == 0, public
        assert hosts[f"[{node.address}]:2222"].split()[:2] == public.split()[:2]
    assert writable(cluster.control_api.docker, "/keys") == []


def test_nodes_have_nothing_to_spare(cluster: ContainerCluster) -> None:
    def statuses() -> list[str]:
        # A process may end while it is looked at, and the engine may lose the output of a short command.
        code, status = cluster.nodes[0].execute("sh", "-c", "cat /proc/[0-9]*/status")
        assert code == 0
        return status.splitlines()

    lines = eventually("the node's processes are known", statuses)
    assert {line.split()[1] for line in lines if line.startswith("Uid:")} == {"10001"}
    assert {int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")} == {0}


def test_old_sequence_over_the_control_api(cluster: ContainerCluster) -> None:
    """The steps that the project before this one was tested with, over real SSH between containers."""
    # Topology lists four, with workers and system statistics of each.
    cluster.wait_alive(range(NODES))
    status, topology = cluster.api("/api/topology")
    assert status == 200
    assert [node["ip_address"] for node in topology["nodes"]] == [n.address for n in cluster.nodes]
    assert sum(node["is_leader"] for node in topology["nodes"]) == 1
    for node in range(NODES):
        status, workers = cluster.api(f"/api/node/{node}/workers")
        assert status == 200
        assert workers["summary"]["count"] == len(workers["workers"]) > 0
        status, system = cluster.api(f"/api/node/{node}/system_stats")
        assert status == 200
        assert system["entries"][-1]["ram_total_bytes"] > 0

    # Without a token nothing is said or done; a viewer may look, and not act.
    for method, path in (("GET", "/api/topology"), ("POST", "/api/topology/node/3/shutdown")):
        assert cluster.control_api.request(path, method=method)[0] == 401
    status, refused = cluster.api("/api/topology/node/3/shutdown", method="POST")
    assert status == 403, refused
    assert cluster.alive()[3]

    # The last node is shut down: it stays listed, and its container and sshd stay up.
    cluster.act(NODES - 1, "shutdown")
    cluster.wait_alive(range(NODES - 1), 30)
    assert cluster.nodes[-1].state()["Running"]
    cluster.wait_up(range(NODES - 1))
    cluster.act(NODES - 1, "restart")
    cluster.wait_alive(range(NODES))
    cluster.wait_up(range(NODES))


def test_stress_rounds_then_all_down_and_all_up(cluster: ContainerCluster) -> None:
    """Three rounds of one to three nodes down and up again; then all four."""
    chance = random.Random(6)
    for _ in range(3):
        victims = set(chance.sample(range(NODES), chance.randint(1, NODES - 1)))
        act_on(cluster, victims, "shutdown")
        cluster.wait_alive(set(range(NODES)) - victims, 60)
        act_on(cluster, victims, "restart")
        cluster.wait_alive(range(NODES))

    act_on(cluster, set(range(NODES)), "shutdown")
    cluster.wait_alive(set(), 60)
    cluster.wait_up([])
    status, body = cluster.api("/api/workers")
    assert (status, body["connected"]) == (503, False)
    act_on(cluster, set(range(NODES)), "restart")
    cluster.wait_alive(range(NODES))
    cluster.wait_up(range(NODES))


def test_actions_on_a_paused_or_unreachable_node_end_with_a_clear_error(cluster: ContainerCluster) -> None:
    victim = cluster.nodes[0]
    victim.docker.pause()
    try:
        started = time.monotonic()
        status, body = cluster.api(
            "/api/topology/node/0/shutdown", method="POST", token=cluster.operator_token
        )
        assert time.monotonic() - started < 60
        assert status >= 400
        assert body["success"] is False
        assert victim.address in body["error"]
    finally:
        victim.docker.unpause()
    cluster.wait_alive(range(NODES))
    eventually("node 0 takes log-ins again", lambda: cluster.act(0, "restart"), 60, pause=1)
    cluster.wait_alive(range(NODES))
