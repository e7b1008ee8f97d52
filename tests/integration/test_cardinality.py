"""The figures of docs/cardinality.md, counted on real and simulated nodes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from clio_exporter.collectors import COLLECTORS
from clio_lab.demo.cluster import LocalCluster
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, Scrape, free_port
from tests.paths import ROOT
from tests.unit.prometheus.rulefiles import recordings

pytestmark = pytest.mark.integration

DOCUMENT = (ROOT / "docs" / "cardinality.md").read_text(encoding="utf-8")
SIMULATED = 16


def per(collector: str, what: str) -> int:
    """Series of a collector for each thing whose description begins with `what`, by the document's table."""
    (number,) = re.findall(rf"^\| `{collector}` \| (\d+) \| {what}", DOCUMENT, re.MULTILINE)
    return int(number)


def measured(row: str) -> dict[str, int]:
    """A row of the document's table of measurements, by collector, with the counts in its description."""
    header = re.search(r"^\| \| (.*) \|$", DOCUMENT, re.MULTILINE)
    found = re.search(rf"^\| ({row}.*?) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert header
    assert found
    names = [name.strip("` ") for name in header[1].split("|")]
    counts = {
        what: int(number)
        for number, what in re.findall(r"(\d+) (that have learned|\w+(?: models)?)", found[1])
    }
    return dict(zip(names, map(int, found[2].split("|")), strict=True)) | counts


def of_nodes(scrape: Scrape) -> dict[str, Counter[str]]:
    """Number of series about each node, by collector."""
    return {
        collector.name: Counter(
            labels["node_id"]
            for family in collector.families
            for labels, _ in scrape.series(family.name)
            if "node_id" in labels
        )
        for collector in COLLECTORS
    }


def check_rules(scrape: Scrape, node: str) -> dict[str, int]:
    """The table of what makes how many series holds for this node; returns how many by collector."""

    def number(metric: str) -> int:
        return len(scrape.series(metric, node_id=node))

    found = {name: counts[node] for name, counts in of_nodes(scrape).items()}
    assert found["node"] == per("node", "node that is up")
    assert found["worker"] == per("worker", "worker") * number("clio_worker_running")
    files = len(scrape.series("clio_bdev_info", node_id=node, type="file"))
    memory = number("clio_bdev_info") - files
    assert found["bdev"] == per("bdev", "block device \\|") * files + per("bdev", "device in memory") * memory
    pools, learned = number("clio_pool_info"), number("clio_method_cost_error_ratio")
    assert found["pool"] == (
        per("pool", "pool with") * pools + per("pool", "such pool") * number("clio_pool_cost_error_ratio")
    )
    assert found["cost"] == per("cost", "pool with") * pools + per("cost", "learned") * learned
    assert found["cte"] == per("cte", "pool") * number("clio_cte_targets")
    assert found["config"] == 0
    return found


def check_measured(row: str, scrape: Scrape, found: dict[str, int]) -> None:
    documented = measured(row)
    for name in ("node", "worker", "bdev", "cte"):
        assert documented[name] == found[name], name
    assert documented["devices"] == len(scrape.series("clio_bdev_info", node_id="0"))
    # Methods learn by and by: of `pool` the document's own arithmetic is checked.
    expected = per("pool", "pool with") * documented["pools"]
    expected += per("pool", "such pool") * documented["that have learned"]
    assert documented["pool"] == expected
    expected = per("cost", "pool with") * documented["pools"]
    assert documented["cost"] == expected + per("cost", "learned") * documented["learned models"]
    names = ("node", "worker", "bdev", "pool", "cte")
    assert documented["sum"] == sum(documented[name] for name in names)


def test_series_of_real_nodes_are_as_documented(cluster4: LocalCluster, tmp_path: Path) -> None:
    config = cluster4.nodes[0].config_path
    with ExporterProcess(
        tmp_path, f"--hostfile={cluster4.hostfile}", f"--runtime-config={config}", "--collector.cost"
    ) as exporter:
        scrape = exporter.scrape_until(
            "all nodes up and complete", lambda s: len(s.by("node_id", "clio_cte_targets")) == 4
        )
    found = [check_rules(scrape, str(node.index)) for node in cluster4.nodes]
    if len(scrape.series("clio_worker_running", node_id="0")) == measured("real")["workers"]:
        check_measured("real", scrape, found[0])
    config_series = scrape.series("clio_config_info")
    files = ("clio_config_digest_info", "clio_config_load_success", "clio_config_modified_timestamp_seconds")
    assert sum(len(scrape.series(name)) for name in files) == per("config", "configuration file")
    assert len({tuple(sorted(labels.items())) for labels, _ in config_series}) == len(config_series)
    assert all("node_id" not in labels for labels, _ in config_series)


def test_series_of_simulated_nodes_are_as_documented(tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    options = ("--nodes", str(SIMULATED), "--workers", "8", "--bdevs", "3", "--hostfile", str(hostfile))
    with (
        SimulatorProcess(*options, "--base-port", str(free_port())) as simulator,
        ExporterProcess(tmp_path, f"--hostfile={hostfile}", "--collector.cost") as exporter,
    ):
        scrape = exporter.scrape_until(
            "all nodes up", lambda s: len(s.by("node_id", "clio_cte_targets")) == SIMULATED
        )
        found = [check_rules(scrape, str(index)) for index in range(SIMULATED)]
        check_measured("simulated", scrape, found[0])
        simulator.set_fault(1, "refused")
        down = exporter.scrape_until("node 1 is down", lambda s: s.value("clio_node_up", node_id="1") == 0)
        left = {name: counts["1"] for name, counts in of_nodes(down).items() if counts["1"]}
        assert left == {"node": per("node", "node that is down")}


def test_recorded_series_are_as_documented() -> None:
    by_level = Counter(rule.name.split(":")[0] for rule in recordings() if not rule.labels)
    parts = sum(bool(rule.labels) for rule in recordings())
    gpu = sum(rule.name == "node:clio_node_hbm_used:ratio" for rule in recordings())
    table = {
        what: int(number)
        for number, what in re.findall(r"^\| (\d+) \| ([a-z][^|(,]*?)(?: \(.*| ?,.*)? \|$", DOCUMENT, re.M)
    }
    assert table == {
        "node": by_level["node"] - gpu,
        "node with GPUs": gpu,
        "part of a node's health score": 1,
        "node and kind of device": by_level["node_tier"],
        "block device": by_level["bdev"],
        "erasure-coded array": by_level["safe_bdev"],
        "worker": by_level["worker"],
        "cluster": by_level["cluster"],
        "cluster and kind of device": by_level["tier"],
    }
    assert f"up to {parts}" in DOCUMENT
