"""The newest runtime of each protocol generation, and older names: found, true, restarted, unharmed.

Each version is installed from its wheel into a cached virtual environment of its own and runs as one
node. Not covered here are 2.3.1, 2.2.0, 2.0.0, 1.9.7 and 1.5.8, whose frames equal those of a version
that is (docs/compatibility.md); a version that cannot be installed or started fails, it is not skipped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall, ensure_version
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities
from tests.exporter_process import ExporterProcess, Scrape, eventually, run_exporter
from tests.integration.native_client import NativeClient
from tests.paths import ROOT

# A version that was never here is installed first.
pytestmark = [pytest.mark.integration, pytest.mark.compat, pytest.mark.timeout(900)]

CACHE = ROOT / ".cache" / "runtimes"
SMALL = Capacities(ram_device=8, file_device=8, ram_tier=8, file_tier=16, file_growth=8)
SURVIVAL_SECONDS = 10.0
"""A reused identity or a foreign layout ends a runtime after 8 seconds."""


@dataclass(frozen=True)
class Version:
    """A runtime version and what is known of it. `detected` False: the generation has to be configured."""

    number: str
    generation: str
    device_module: str = "clio_bdev"
    engine_module: str = "clio_cte_core"
    detected: bool = True


VERSIONS = (
    Version("2.3.2", "C"),
    Version("2.2.1", "B"),
    Version("2.1.0", "A"),
    Version("1.9.0", "A"),
    Version("1.5.1", "A", "chimaera_bdev", "wrp_cte_core"),
    Version("1.0.3", "Z", detected=False),
)

WORKERS = {
    "clio_worker_running": ("is_running", 1),
    "clio_worker_active": ("is_active", 1),
    "clio_worker_queued_tasks": ("num_queued_tasks", 1),
    "clio_worker_blocked_tasks": ("num_blocked_tasks", 1),
    "clio_worker_periodic_tasks": ("num_periodic_tasks", 1),
    "clio_worker_retry_tasks": ("num_retry_tasks", 1),
    "clio_worker_tasks_processed_total": ("num_tasks_processed", 1),
    "clio_worker_load": ("load", 1e-6),
}
NODE = {
    "clio_node_cpu_utilization_ratio": ("cpu_usage_pct", 0.01),
    "clio_node_memory_total_bytes": ("ram_total_bytes", 1),
    "clio_node_memory_available_bytes": ("ram_available_bytes", 1),
    "clio_node_memory_used_ratio": ("ram_usage_pct", 0.01),
    "clio_node_gpus": ("gpu_count", 1),
    "clio_node_leader": ("is_leader", 1),
}
DEVICES = {
    "clio_bdev_capacity_bytes": ("total_capacity", 1),
    "clio_bdev_free_bytes": ("remaining_capacity", 1),
    "clio_bdev_reads_total": ("total_reads", 1),
    "clio_bdev_writes_total": ("total_writes", 1),
    "clio_bdev_read_bytes_total": ("total_bytes_read", 1),
    "clio_bdev_written_bytes_total": ("total_bytes_written", 1),
    "clio_bdev_read_bandwidth_bytes_per_second": ("read_bandwidth_mbps", 2**20),
    "clio_bdev_write_latency_seconds": ("write_latency_us", 1e-6),
    "clio_bdev_iops": ("iops", 1),
}
ENGINE = {"clio_cte_targets": "num_targets", "clio_cte_tags": "num_tags", "clio_cte_blobs": "num_blobs"}
COUNTED = {name for name in DEVICES if name.endswith("_total")}
"""Of files only: the runtime does not count what devices in memory read and write."""
STATE = {"clio_node_up", "clio_node_info", "clio_node_probe_duration_seconds"}
ALWAYS = STATE | {"clio_node_round_trip_seconds", "clio_node_questions_total"}


@dataclass
class Subject:
    """A runtime under test and the exporter that watches it."""

    version: Version
    node: LocalNode
    exporter: ExporterProcess

    def ask(self, *queries: str) -> list[Any]:
        """The runtime's own answers."""
        with native(self.version, self.node) as client:
            return [client.ask(query) for query in queries]

    def up(self) -> Scrape:
        """A scrape in which the node is up and its pools are known (as far as it can tell them)."""
        name = "clio_worker_running" if self.version.generation == "Z" else "clio_bdev_capacity_bytes"
        return self.exporter.scrape_until(
            f"{self.version.number} is up", lambda scrape: bool(scrape.series(name))
        )


def native(version: Version, node: LocalNode) -> NativeClient:
    return NativeClient(version.number, version.generation, node.host, node.client_port)


def stays_alive(version: Version, node: LocalNode, pid: int | None) -> None:
    """The process is there for SURVIVAL_SECONDS, and answers then."""
    ends = time.monotonic() + SURVIVAL_SECONDS
    while time.monotonic() < ends:
        assert node.pid == pid, node.log_tail(20)
        time.sleep(0.25)
    with native(version, node) as client:
        assert client.ask("worker_stats")


@contextlib.contextmanager
def running(root: Path, version: Version, current: RuntimeInstall) -> Iterator[LocalNode]:
    """One node of this version; the tests' own environment serves where it has it."""
    install = current if current.version == version.number else ensure_version(version.number, CACHE)
    cluster = LocalCluster(root, 1, install=install, base_port=find_base_port(1), capacities=SMALL)
    with cluster:
        yield cluster.nodes[0]


def _number(version: Version) -> str:
    return version.number


# 1.0 comes last, so that the tests it cannot take part in share the runtimes of the others.
@pytest.fixture(scope="module", params=VERSIONS, ids=_number)
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, runtime_install: RuntimeInstall
) -> Iterator[Subject]:
    version: Version = request.param
    directory = tmp_path_factory.mktemp(f"runtime-{version.number}")
    with running(directory / "cluster", version, runtime_install) as node:
        configured = () if version.detected else (f"--generation={version.generation}",)
        target = f"{node.host}:{node.port}"
        config = str(node.config_path)
        with ExporterProcess(
            directory,
            "--nodes",
            target,
            "--runtime-config",
            config,
            "--collector.pool.interval=1s",
            *configured,
        ) as exporter:
            yield Subject(version, node, exporter)


def test_the_generation_is_found(subject: Subject) -> None:
    pid = subject.node.pid
    scrape = subject.up()
    assert scrape.value("clio_node_up", node_id="0") == 1
    labels, _ = scrape.series("clio_node_info")[0]
    assert labels["generation"] == subject.version.generation
    assert scrape.series("clio_node_down_info") == []
    assert {value for _, value in scrape.series("clio_collector_success")} == {1}
    assert subject.node.pid == pid


def test_what_the_version_reports_is_there_and_nothing_else(subject: Subject) -> None:
    names = subject.up().names_of(node_id="0")
    generation = subject.version.generation
    if generation == "Z":
        unknown = {"clio_worker_load"}
        assert names == ALWAYS | (set(WORKERS) - unknown) | {
            "clio_worker_idle_iterations",
            "clio_worker_suspend_period_seconds",
        }
        return
    assert names >= ALWAYS | set(WORKERS) | set(NODE) | set(DEVICES) | {
        "clio_bdev_info",
        "clio_pool_info",
        "clio_node_start_time_seconds",
        "clio_node_sample_timestamp_seconds",
    }
    # Newer fields of a device are not in the older answers at all; the engine's statistics came with C.
    assert (set(ENGINE) <= names) == (generation == "C")
    if generation != "C":
        assert not names & set(ENGINE)
    if generation == "A":
        assert not names & {
            "clio_bdev_predicted_time_to_live_seconds",
            "clio_bdev_device_health",
            "clio_bdev_failure_prediction",
        }
    assert not names & {"clio_node_gpu_utilization_ratio", "clio_node_hbm_total_bytes"}


def test_workers_are_as_the_runtime_says(subject: Subject) -> None:
    def misfits() -> list[str]:
        (before,) = subject.ask("worker_stats")
        scrape = subject.exporter.scrape()
        (after,) = subject.ask("worker_stats")
        assert before
        workers = {str(worker["worker_id"]): worker for worker in after}
        assert scrape.by("worker_id", "clio_worker_running").keys() == workers.keys()
        found = []
        for first in before:
            worker = str(first["worker_id"])
            for name, (field, factor) in WORKERS.items():
                if field not in first:
                    assert scrape.series(name) == []
                    continue
                value = scrape.value(name, worker_id=worker)
                low, high = sorted((first[field] * factor, workers[worker][field] * factor))
                if name == "clio_worker_load":
                    low, high = max(low, 0), max(high, 0)
                if not low <= value <= high:
                    found.append(f"{name} of worker {worker}: {low} <= {value} <= {high}")
        # What only rises lies between the two answers at any time; the rest does where it stood still.
        assert not [line for line in found if "_total" in line]
        return found

    subject.up()
    seen: list[list[str]] = []

    def all_fit() -> bool:
        seen.append(misfits())
        return not seen[-1]

    eventually("every value lies between the runtime's own before and after", all_fit)


@pytest.mark.parametrize("subject", VERSIONS[:-1], indirect=True, ids=_number)
def test_the_host_is_as_the_runtime_says(subject: Subject) -> None:
    scrape = subject.up()
    (ring,) = subject.ask("system_stats:0")
    at = scrape.value("clio_node_sample_timestamp_seconds")
    fitting = [
        sample for sample in ring if math.isclose(sample["wall_time_ns"] / 1e9, at, rel_tol=0, abs_tol=1e-3)
    ]
    assert len(fitting) == 1, f"{at} is the time of {len(fitting)} samples"
    for name, (field, factor) in NODE.items():
        assert scrape.value(name) == pytest.approx(fitting[0][field] * factor, rel=1e-9), name
    started = scrape.value("clio_node_start_time_seconds")
    assert at - 3600 < started <= at


@pytest.mark.parametrize("subject", VERSIONS[:-1], indirect=True, ids=_number)
def test_pools_and_devices_are_as_the_runtime_says(subject: Subject) -> None:
    version = subject.version
    subject.up()
    (containers,) = subject.ask("container_stats")
    modules = {container["pool_id"]: container["chimod_name"] for container in containers}
    devices = [pool for pool, module in modules.items() if module.endswith("_bdev")]
    assert {modules[pool] for pool in devices} == {version.device_module}
    assert version.engine_module in modules.values()
    queries = [f"pool_stats://{pool}:local:stats" for pool in devices]
    before = subject.ask(*queries)
    scrape = subject.up()
    after = subject.ask(*queries)
    assert scrape.by("pool_id", "clio_pool_info").keys() == modules.keys()
    for labels, _ in scrape.series("clio_pool_info"):
        assert labels["module"] == modules[labels["pool_id"]]
    assert scrape.by("pool_id", "clio_bdev_capacity_bytes").keys() == set(devices)
    for pool, first, last in zip(devices, before, after, strict=True):
        for name, (field, factor) in DEVICES.items():
            if name in COUNTED and first["bdev_type"] != 0:
                assert first[field] == 0
                assert scrape.series(name, pool_id=pool) == []
                continue
            low, high = sorted((first[field] * factor, last[field] * factor))
            value = scrape.value(name, pool_id=pool)
            assert low * (1 - 1e-9) <= value <= high * (1 + 1e-9), f"{name} of {pool}"
    if version.generation == "C":
        (engine,) = subject.ask("pool_stats://512.0:local:stats")
        for name, field in ENGINE.items():
            assert scrape.value(name) == engine[field]


def test_a_hung_runtime_is_down_and_comes_back(subject: Subject) -> None:
    before = subject.up()
    subject.node.pause()
    try:
        down = subject.exporter.scrape_until(
            "a stopped runtime is down", lambda scrape: scrape.value("clio_node_up") == 0
        )
        labels, _ = down.series("clio_node_down_info")[0]
        assert labels["reason"] == "hung"
        assert down.names_of(node_id="0") == STATE | {"clio_node_down_info"}
    finally:
        subject.node.resume()
    after = subject.up()
    assert after.names_of(node_id="0") == before.names_of(node_id="0")
    if subject.version.generation != "Z":
        assert after.value("clio_node_start_time_seconds") == pytest.approx(
            before.value("clio_node_start_time_seconds"), abs=0.1
        )


def test_a_restart_is_noticed(subject: Subject) -> None:
    before = subject.up()
    pid = subject.node.pid
    subject.node.restart()
    assert subject.node.pid != pid
    after = subject.up()
    assert after.series("clio_node_info")[0][0]["generation"] == subject.version.generation
    (workers,) = subject.ask("worker_stats")
    for worker in workers:
        exported = after.value("clio_worker_tasks_processed_total", worker_id=str(worker["worker_id"]))
        assert exported <= worker["num_tasks_processed"]
    if subject.version.generation != "Z":
        started = after.value("clio_node_start_time_seconds")
        assert started > before.value("clio_node_start_time_seconds") + 0.5


def test_the_runtime_is_unharmed(subject: Subject) -> None:
    """Last of its version: after everything above, 10 s after the exporter has gone."""
    subject.up()
    pid = subject.node.pid
    subject.exporter.stop()
    stays_alive(subject.version, subject.node, pid)


def test_asking_1_0_without_configuration_ends_in_unsupported(
    tmp_path: Path, runtime_install: RuntimeInstall
) -> None:
    version = VERSIONS[-1]
    assert not version.detected
    with running(tmp_path / "cluster", version, runtime_install) as node:
        pid = node.pid
        target = f"{node.host}:{node.port}"
        result = run_exporter(
            tmp_path, "scrape", "--nodes", target, "--runtime.reply-port=0", "--timeout=10s"
        )
        assert result.returncode == 1
        assert Scrape(result.stdout).series("clio_node_down_info")[0][0]["reason"] == "unsupported"
        assert "generation to Z" in result.stderr
        stays_alive(version, node, pid)


def test_one_exporter_asks_all_generations_at_once(tmp_path: Path, runtime_install: RuntimeInstall) -> None:
    versions = [version for version in VERSIONS if version.number in ("2.3.2", "2.2.1", "2.1.0")]
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(running(tmp_path / version.number, version, runtime_install))
            for version in versions
        ]
        targets = ",".join(f"{node.host}:{node.port}" for node in nodes)
        exporter = stack.enter_context(ExporterProcess(tmp_path, "--nodes", targets))

        def complete(scrape: Scrape) -> bool:
            return len({labels["node_id"] for labels, _ in scrape.series("clio_bdev_capacity_bytes")}) == 3

        scrape = exporter.scrape_until("all three are up", complete)
        generations = {
            labels["node_id"]: labels["generation"] for labels, _ in scrape.series("clio_node_info")
        }
        assert generations == {"0": "C", "1": "B", "2": "A"}
        for index, (version, node) in enumerate(zip(versions, nodes, strict=True)):
            with native(version, node) as client:
                ids = {str(worker["worker_id"]) for worker in client.ask("worker_stats")}
            assert set(scrape.by("worker_id", "clio_worker_running", node_id=str(index))) == ids
        pids = [node.pid for node in nodes]
        for stopped in range(3):
            nodes[stopped].pause()
            try:
                down = exporter.scrape_until(
                    "one is down",
                    lambda scrape, stopped=stopped: scrape.value("clio_node_up", node_id=str(stopped)) == 0,
                )
                for other in {0, 1, 2} - {stopped}:
                    assert down.names_of(node_id=str(other)) == scrape.names_of(node_id=str(other))
            finally:
                nodes[stopped].resume()
            exporter.scrape_until("it is back", complete)
        assert [node.pid for node in nodes] == pids
