"""The examples for large clusters, on real Prometheus servers, against 200 simulated nodes.

Only addresses, intervals and the number of the shard differ from the committed files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, free_port
from tests.paths import ROOT
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, pytest.mark.alone, needs_system("prometheus", "promtool")]

EXAMPLES = ROOT / "prometheus" / "examples"
NODES = 200
SHARDS = 2
INTERVAL = "5s"
SECONDS = 120.0


@dataclass(frozen=True)
class Nodes:
    process: SimulatorProcess
    hostfile: Path
    targets: frozenset[str]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    hostfile = tmp_path_factory.mktemp("nodes") / "hosts"
    options = ("--nodes", str(NODES), "--workers", "2", "--bdevs", "2", "--hostfile", str(hostfile))
    with SimulatorProcess(*options, "--base-port", str(free_port()), timeout=60) as process:
        yield Nodes(process, hostfile, frozenset(hostfile.read_text().split()))


@pytest.fixture
def settings(nodes: Nodes, tmp_path: Path) -> Path:
    """One named cluster with a runtime configuration that the exporter can read."""
    runtime = tmp_path / "clio.yaml"
    runtime.write_text("networking: {port: 9413}\nruntime: {num_threads: 2}\n")
    cluster = {"name": "sim", "hostfile": str(nodes.hostfile), "runtime_config": str(runtime)}
    path = tmp_path / "settings.yml"
    path.write_text(yaml.safe_dump({"clusters": [{**cluster, "generation": "C"}]}))
    return path


def example(name: str, replace: Mapping[str, str]) -> dict[str, Any]:
    """A committed example with these texts replaced; each must be there."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in replace.items():
        assert old in text, f"{name}: {old}"
        text = text.replace(old, new)
    config: dict[str, Any] = yaml.safe_load(text)
    intervals = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    config["global"] |= intervals
    config["rule_files"] = [str((EXAMPLES / path).resolve()) for path in config["rule_files"]]
    config["alerting"]["alertmanagers"] = []
    # Not running here.
    ours = [job for job in config["scrape_configs"] if job["job_name"] in OURS]
    config["scrape_configs"] = ours
    return config


OURS = ("clio-nodes", "clio-exporter", "clio-shards")


def probed(prometheus: Prometheus) -> set[str]:
    """Nodes that this server scrapes, all of them successfully, each under one target."""
    targets = [
        target
        for target in prometheus.api("targets", state="active")["activeTargets"]
        if target["scrapePool"] == "clio-nodes"
    ]
    instances = [target["labels"]["instance"] for target in targets]
    assert len(set(instances)) == len(instances)
    up = {s.labels["instance"] for s in prometheus.query('up{job="clio-nodes"} == 1')}
    assert up == set(instances)
    return up


def wait_for_nodes(prometheus: Prometheus, number: int) -> None:
    prometheus.wait_for(
        'node:clio_node_up:max{cluster="sim"} == 1', lambda found: len(found) == number, SECONDS
    )


def assert_once(prometheus: Prometheus, expression: str) -> None:
    """No two series of the result are about the same node."""
    nodes = Counter(sample.labels["node_id"] for sample in prometheus.query(expression))
    assert nodes
    assert {node: count for node, count in nodes.items() if count != 1} == {}


def test_one_server_discovers_and_probes_every_node_once(
    nodes: Nodes, settings: Path, tmp_path: Path
) -> None:
    with ExporterProcess(tmp_path, f"--config.file={settings}") as exporter:
        config = example("prometheus-probe.yml", {"exporter-host:9777": exporter.address})
        with Prometheus(tmp_path, config) as prometheus:
            wait_for_nodes(prometheus, NODES)
            assert probed(prometheus) == nodes.targets
            assert_once(prometheus, "clio_node_up")
            prometheus.wait_for(f'cluster:clio_nodes:count{{cluster="sim"}} == {NODES}')
            # What is the same for all nodes is there once.
            assert prometheus.value("count(clio_config_digest_info)") == 1
            # The exporter's own metrics come without the nodes.
            assert prometheus.query('{__name__=~"clio_node_.*|clio_worker_.*", job="clio-exporter"}') == []
            assert prometheus.value("count(clio_exporter_build_info)") == 1
            assert prometheus.query('ALERTS{alertstate="firing"}') == []
            assert prometheus.target_errors() == {}
    assert nodes.process.stats()["violations"] == {}


def test_two_shards_have_every_node_once_and_a_global_server_has_all(
    nodes: Nodes, settings: Path, tmp_path: Path
) -> None:
    with ExitStack() as running:
        shards = []
        for number in range(SHARDS):
            directory = tmp_path / f"shard{number}"
            directory.mkdir()
            exporter = running.enter_context(ExporterProcess(directory, f"--config.file={settings}"))
            here = {'"0" # HERE': f'"{number}" # HERE', "exporter-host:9777": exporter.address}
            config = example("prometheus-shard.yml", here)
            assert {"modulus": SHARDS}.items() <= config["scrape_configs"][0]["relabel_configs"][0].items()
            shards.append(running.enter_context(Prometheus(directory, config)))
        for shard in shards:
            shard.wait_for('up{job="clio-nodes"} == 1', seconds=SECONDS)
        addresses = [shard.url.removeprefix("http://") for shard in shards]
        names = {f"shard-{number}-host:9090": address for number, address in enumerate(addresses)}
        config = example("prometheus-global.yml", names)
        overall = running.enter_context(Prometheus(tmp_path, config))

        wait_for_nodes(overall, NODES)
        parts = [probed(shard) for shard in shards]
        assert frozenset().union(*parts) == nodes.targets
        assert sum(map(len, parts)) == NODES
        assert all(len(part) > NODES / SHARDS / 2 for part in parts), [len(part) for part in parts]
        for shard, part in zip(shards, parts, strict=True):
            assert_once(shard, "clio_node_up")
            assert shard.value("count(clio_node_up == 1)") == len(part)
            shard.wait_for(f"count(node:clio_health:score == 100) == {len(part)}")
            # A shard has no opinion about clusters.
            assert shard.query('{__name__=~"(cluster|tier):.*"}') == []
            assert shard.query('ALERTS{alertstate="firing"}') == []
        assert_once(overall, "node:clio_node_up:max")
        assert_once(overall, "node:clio_health:score")
        overall.wait_for(f'cluster:clio_nodes:count{{cluster="sim"}} == {NODES}')
        workers = sum(shard.value("count(clio_worker_running)") for shard in shards)
        assert workers == NODES * 2
        overall.wait_for(f'sum(node:clio_workers:count{{cluster="sim"}}) == {workers}')
        capacity = sum(shard.value("sum(clio_bdev_capacity_bytes)") for shard in shards)
        overall.wait_for(f'cluster:clio_bdev_capacity_bytes:sum{{cluster="sim"}} == {capacity}')
        overall.wait_for(f'sum(tier:clio_bdev_capacity_bytes:sum{{cluster="sim"}}) == {capacity}')
        # Labels of the servers do not make series of their own.
        (sample,) = overall.query('node:clio_node_up:max{node_id="0"}')
        assert set(sample.labels) == {"__name__", "cluster", "node_id", "hostname"}

        nodes.process.set_fault(range(10), "refused")
        try:
            overall.wait_for('cluster:clio_node_up:sum{cluster="sim"} == 190', seconds=SECONDS)
            overall.wait_for('cluster:clio_node_up:ratio{cluster="sim"} == 0.95')
        finally:
            nodes.process.clear()
    assert nodes.process.stats()["violations"] == {}
