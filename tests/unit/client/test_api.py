"""The library: whole clusters and single nodes, synchronous and asynchronous, against simulated runtimes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import clio_client
from clio_client import (
    AsyncCluster,
    BdevStats,
    ClientClosedError,
    Cluster,
    ConfigError,
    ConnectionLostError,
    Generation,
    HungError,
    RefusedError,
    RuntimeClientError,
    questions,
)
from clio_client.config.membership_source import HOSTFILE_VARIABLE, DiscoveredNodes, HostfileNodes
from clio_client.config.runtime_conf import CONFIG_VARIABLES, PORT_VARIABLES
from tests.paths import ROOT
from tests.unit.client.conftest import Simulation

SOON = 5.0
WORKERS = 8
"""Of each simulated node."""

GONE = (RefusedError, ConnectionLostError)
"""A simulated node that has just been told to close its port may still take a connection."""


def targets(simulation: Simulation, *indices: int) -> list[str]:
    return [str(simulation.node(index)) for index in indices]


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the home directory nor the environment tells of a runtime."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in (HOSTFILE_VARIABLE, *CONFIG_VARIABLES, *PORT_VARIABLES):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    def state() -> tuple[int, set[str]]:
        return len(os.listdir("/proc/self/fd")), {t.name for t in threading.enumerate()}  # noqa: PTH208

    before = state()
    yield
    assert state() == before


@pytest.fixture
def cluster(simulation: Simulation) -> Iterator[Cluster]:
    with Cluster.from_nodes(targets(simulation, 0, 1, 2), reply_port=0) as cluster:
        yield cluster


# --- whole clusters --------------------------------------------------------------------------------------


def test_every_question_to_every_node(cluster: Cluster) -> None:
    assert [node.member.node_id for node in cluster.nodes()] == [0, 1, 2]
    for status in cluster.status():
        found = status.get()
        assert found.session.generation is Generation.C
        assert found.session.identity is not None
        assert found.host is not None
        assert found.host.node_id == status.node.node_id
        assert 0 < found.round_trip_seconds < SOON
    assert all(len(result.get()) == WORKERS for result in cluster.workers())
    assert all(len(result.get()) == 5 for result in cluster.samples(last=5))
    for pools, devices in zip(cluster.pools(), cluster.devices(), strict=True):
        every, block = pools.get(), devices.get()
        assert {pool.container.pool_id for pool in every if pool.container.is_bdev} == {
            pool.container.pool_id for pool in block
        }
        assert len(every) > len(block) > 0
        assert all(isinstance(pool.stats, BdevStats) and pool.stats.total_capacity for pool in block)
        assert [pool.stats for pool in every if pool.container.is_admin] == [None]


def test_runtimes_of_every_generation(simulation: Simulation) -> None:
    with Cluster.from_nodes(targets(simulation, 0, 3, 4), reply_port=0) as cluster:
        found = [result.get().session.generation for result in cluster.status(10)]
        assert found == [Generation.C, Generation.B, Generation.A]


def test_a_dead_and_a_hung_node_cost_the_others_nothing(simulation: Simulation) -> None:
    simulation.process.set_fault(1, "refused")
    simulation.process.set_fault(2, "hang")
    with Cluster.from_nodes(targets(simulation, 0, 1, 2), reply_port=0, timeout=1.0) as cluster:
        started = time.monotonic()
        alive, dead, hung = cluster.workers()
        assert time.monotonic() - started < 1.0 + 0.5
        assert alive.ok
        assert alive.get()
        assert (dead.ok, dead.value) == (False, None)
        assert isinstance(dead.error, GONE)
        assert hung.error is not None
        assert hung.error.reason == "hung"
        with pytest.raises(GONE):
            dead.get()


def test_a_node_that_comes_back_is_up_again(simulation: Simulation, cluster: Cluster) -> None:
    simulation.process.set_fault(1, "refused")
    assert [result.ok for result in cluster.status()] == [True, False, True]
    simulation.process.clear()
    end = time.monotonic() + SOON
    while not all(result.ok for result in cluster.status()):
        assert time.monotonic() < end


def test_garbage_is_an_error_of_its_node(simulation: Simulation, cluster: Cluster) -> None:
    assert all(result.ok for result in cluster.status())
    simulation.process.set_fault(1, "garbage")
    assert [result.error and result.error.reason for result in cluster.workers()] == [None, "malformed", None]


def test_a_defect_of_ours_is_an_error_of_its_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(raw: object) -> object:
        raise KeyError("a defect")

    monkeypatch.setattr(questions, "read_workers", broken)
    for result in cluster.workers():
        with pytest.raises(RuntimeClientError, match=r"could not be handled: KeyError\('a defect'\)"):
            result.get()


def test_only_new_samples(cluster: Cluster) -> None:
    newest = {result.node.node_id: result.get()[-1].event_id or 0 for result in cluster.samples(last=1)}
    fresh = cluster.samples(since={node: event + 1 for node, event in newest.items()})
    for result in fresh:
        assert len(result.get()) <= 2
        assert all((s.event_id or 0) > newest[result.node.node_id] for s in result.get())


# --- one node --------------------------------------------------------------------------------------------


def test_one_node_by_id_name_and_address(simulation: Simulation, cluster: Cluster) -> None:
    (target,) = targets(simulation, 1)
    for which in (1, target.partition(":")[0], target):
        node = cluster.node(which)
        assert node.member.node_id == 1
        host = node.status().host
        assert host is not None
        assert host.node_id == 1
    assert len(node.workers()) == WORKERS
    assert len(node.samples(last=2)) == 2
    assert {pool.name for pool in node.devices()} < {pool.name for pool in node.pools()}
    for unknown in (7, "nobody"):
        with pytest.raises(LookupError, match=f"there is no node {unknown!r}; of 3 nodes"):
            cluster.node(unknown)


def test_one_dead_node_raises(simulation: Simulation, cluster: Cluster) -> None:
    simulation.process.set_fault(1, "refused")
    with pytest.raises(GONE):
        cluster.node(1).workers()
    simulation.process.set_fault(1, "silent")
    simulation.process.set_fault(2, "silent")
    started = time.monotonic()
    with pytest.raises(HungError):
        cluster.node(2).workers(timeout=0.3)
    assert time.monotonic() - started < 1.0


# --- where clusters come from ----------------------------------------------------------------------------


def test_a_hostfile_is_read_again_when_it_changes(simulation: Simulation, tmp_path: Path) -> None:
    hostfile = tmp_path / "host file"
    hostfile.write_text("\n".join(targets(simulation, 0)))
    with Cluster.from_hostfile(hostfile, reply_port=0) as cluster:
        assert isinstance(cluster.source, HostfileNodes)
        assert [result.ok for result in cluster.workers()] == [True]
        hostfile.write_text("\n".join(targets(simulation, 0, 1)))
        assert [result.ok for result in cluster.workers()] == [True, True]
        hostfile.unlink()
        assert [result.ok for result in cluster.workers()] == [True, True]
        assert "host file" in (cluster.membership_error or "")


def test_discovery_asks_the_seed(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_HOSTFILE", "/nowhere")  # what is named comes first
    with Cluster.discover(targets(simulation, 0)[0], reply_port=0) as cluster:
        assert isinstance(cluster.source, DiscoveredNodes)
        assert len(cluster.nodes()) == 7
        assert cluster.node(2).workers()


def test_the_environment_as_the_exporter_finds_it(
    simulation: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts").write_text("127.96.1.1\n127.96.1.2\n")
    (tmp_path / "clio.yaml").write_text(
        f"networking: {{port: {simulation.base_port}, hostfile: hosts}}\nweb: {{password: hunter2}}\n"
    )
    monkeypatch.setenv("CLIO_SERVER_CONF", str(tmp_path / "clio.yaml"))
    with Cluster.from_environment(reply_port=0) as cluster:
        assert [result.ok for result in cluster.status()] == [True, True]
        config = cluster.node(1).config_file()
        assert config is not None
        assert dict(config.entries)["networking.hostfile"] == "hosts"
        assert "hunter2" not in repr(config.entries)
        assert cluster.config_files() == (config,)


def test_one_configuration_file_a_node(simulation: Simulation, tmp_path: Path) -> None:
    (tmp_path / "node1.yaml").write_text("networking: {port: 9413}\n")
    with Cluster.from_nodes(
        targets(simulation, 0, 1), reply_port=0, runtime_config=tmp_path / "node{node_id}.yaml"
    ) as cluster:
        first, second = (node.config_file() for node in cluster.nodes())
        assert first is not None
        assert isinstance(first.error, ConfigError)
        assert second is not None
        assert second.entries == (("networking.port", "9413"),)


@pytest.mark.parametrize("nodes", [["bad_host!"], ["a:b:c"], ["a", "a"], ["host:99999"]])
def test_what_is_no_node_is_said_at_once(nodes: list[str]) -> None:
    with pytest.raises(ConfigError, match="from_nodes"):
        Cluster.from_nodes(nodes)


def test_no_nodes_and_no_hostfile(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Cluster.from_nodes([])
    with pytest.raises(ConfigError, match="missing"):
        Cluster.from_hostfile(tmp_path / "missing")
    with pytest.raises(ConfigError):
        Cluster.discover("two words!")


# --- asynchronous ----------------------------------------------------------------------------------------


def test_the_same_on_an_event_loop(simulation: Simulation) -> None:
    simulation.process.set_fault(2, "refused")

    async def ask() -> None:
        async with AsyncCluster.from_nodes(targets(simulation, 0, 1, 2), reply_port=0) as cluster:
            status, workers, samples, pools, devices = await asyncio.gather(
                cluster.status(),
                cluster.workers(),
                cluster.samples(last=1),
                cluster.pools(),
                cluster.devices(),
            )
            for results in (status, workers, samples, pools, devices):
                assert [result.ok for result in results] == [True, True, False]
            first = (await cluster.nodes())[0]
            assert (await first.status()).session.generation is Generation.C
            assert len(await first.workers()) == WORKERS
            assert len(await first.samples(last=1)) == 1
            assert len(await first.devices()) < len(await first.pools())
            assert await cluster.config_files() == ()
            assert await first.config_file() is None
            with pytest.raises(GONE):
                await (await cluster.node(2)).workers()

    asyncio.run(ask())


def test_a_cancelled_call_leaves_the_cluster_usable(simulation: Simulation) -> None:
    simulation.process.set_fault(1, "silent")

    async def ask() -> None:
        async with AsyncCluster.from_nodes(targets(simulation, 0, 1), reply_port=0) as cluster:
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(cluster.workers(timeout=30), 0.3)
            assert await (await cluster.node(0)).workers()

    asyncio.run(ask())


# --- a good guest in the program and on the host ---------------------------------------------------------


def test_nothing_starts_before_the_first_question_and_all_ends() -> None:
    cluster = Cluster.from_nodes(["127.0.0.1:1"])
    assert not any(thread.name == "clio-runtime-io" for thread in threading.enumerate())
    cluster.close()
    cluster.close()
    with pytest.raises(ClientClosedError):
        cluster.workers()


def test_ports_of_its_own() -> None:
    from clio_client import api
    from clio_client.config.settings import RuntimeSettings
    from clio_control_api.settings import DEFAULT_REPLY_PORT

    starts = [RuntimeSettings().reply_port, DEFAULT_REPLY_PORT, api.DEFAULT_REPLY_PORT]
    assert all(later - earlier >= 10 for earlier, later in pairwise(starts))


_FORGETFUL = """
import sys
from clio_client import Cluster
cluster = Cluster.from_nodes(sys.argv[1:], reply_port=0, timeout=2.0)
print([result.ok for result in cluster.workers()])
"""


def test_a_program_that_forgets_to_close_ends_and_stays_quiet(simulation: Simulation) -> None:
    simulation.process.set_fault(1, "refused")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORGETFUL, *targets(simulation, 0, 1)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[True, False]\n", "")


def test_what_is_exported_is_there() -> None:
    assert len(set(clio_client.__all__)) == len(clio_client.__all__)
    for name in clio_client.__all__:
        assert getattr(clio_client, name).__doc__ or name == "PoolStats", name
