"""`clio-exporter record` on real runtimes: it writes their rings, and a real Prometheus takes them in."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pyarrow import parquet as pq

from clio_client import Cluster
from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.ports import find_base_port
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import COMMAND, clean_environment, eventually, run_exporter
from tests.ports import free_port
from tests.prometheus import Prometheus, backfill
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool")]


def test_the_ring_is_written_whole_and_prometheus_takes_it_in(
    runtime_install: RuntimeInstall, tmp_path: Path
) -> None:
    with LocalCluster(tmp_path / "c", 2, install=runtime_install, base_port=find_base_port(2)) as cluster:
        assert cluster.hostfile is not None
        with Cluster.from_hostfile(cluster.hostfile, reply_port=free_port()) as client:
            eventually("ten samples each", lambda: all(len(r.get()) >= 10 for r in client.samples()), 60)
            before = {result.node.node_id: result.get() for result in client.samples()}
        asked = ["record", "--hostfile", str(cluster.hostfile), "--runtime.reply-port", str(free_port())]
        blocks = tmp_path / "ring.om"
        told = run_exporter(tmp_path, *asked, "--label", "site=here", "--output", str(blocks))
        table = run_exporter(tmp_path, *asked, "--format", "csv")
        columns = tmp_path / "ring.parquet"
        typed = run_exporter(tmp_path, *asked, "--format", "parquet", "--output", str(columns))
    for done in (told, table, typed):
        assert done.returncode == 0, done.stderr

    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    same_values(before, blocks.read_text(), rows, pq.read_table(columns).to_pylist())
    for node_id, samples in before.items():
        found = {row["timestamp"]: row for row in rows if row["node_id"] == str(node_id)}
        for sample in samples:
            assert sample.wall_time_ns is not None
            row = found[f"{sample.wall_time_ns // 1_000_000 / 1000:.3f}"]
            assert int(row["clio_node_memory_available_bytes"]) == sample.ram_available_bytes
            assert sample.cpu_usage_pct is not None
            assert float(row["clio_node_cpu_utilization_ratio"]) == sample.cpu_usage_pct / 100

    backfill(tmp_path, blocks)
    with Prometheus(tmp_path, {}) as prometheus:
        for node_id, samples in before.items():
            series = f'clio_node_memory_available_bytes{{node_id="{node_id}",site="here"}}'
            stored = {round(at, 3): value for at, value in prometheus.history(series, "30m")}
            for sample in samples:
                assert sample.wall_time_ns is not None
                assert stored[sample.wall_time_ns // 1_000_000 / 1000] == sample.ram_available_bytes


Samples = dict[tuple[str, str, str], float]
"""By family, node and Unix time in seconds, as it is written."""


def same_values(
    before: dict[int, Any], openmetrics: str, rows: list[dict[str, str]], typed: list[dict[str, Any]]
) -> None:
    """Three recordings, one after the other, say the same of all that the first one knew."""
    in_text: Samples = {}
    for family in text_string_to_metric_families(openmetrics):
        for sample in family.samples:
            in_text[sample.name, sample.labels["node_id"], f"{float(sample.timestamp):.3f}"] = sample.value
    in_csv: Samples = {}
    in_parquet: Samples = {}
    for row in rows:
        for name in (name for name in row if name.startswith("clio_") and row[name]):
            in_csv[name, row["node_id"], row["timestamp"]] = float(row[name])
    for found in typed:
        at = f"{found['timestamp'].timestamp():.3f}"
        for name in (name for name in found if name.startswith("clio_") and found[name] is not None):
            in_parquet[name, found["node_id"], at] = found[name]
    assert {name for name, _, _ in in_text} == {name for name, _, _ in in_parquet}
    assert len(in_text) >= sum(map(len, before.values()))
    for written in (in_csv, in_parquet):
        assert {key: written.get(key) for key in in_text} == in_text


def test_a_recording_that_is_killed_leaves_what_it_had(tmp_path: Path) -> None:
    hosts, written = tmp_path / "hosts", tmp_path / "ring.csv"
    options = ["--nodes", "2", "--age", "100", "--base-port", str(free_port(20)), "--hostfile", str(hosts)]
    (tmp_path / "home").mkdir()
    with SimulatorProcess(*options):
        command = [
            *COMMAND, "record", "--hostfile", str(hosts), "--runtime.reply-port", str(free_port()),
            "--for", "10m", "--interval", "1", "--format", "csv", "--output", str(written),
        ]  # fmt: skip
        environment = clean_environment(tmp_path / "home")
        with ChildProcess(
            "record", command, log_path=tmp_path / "log", environment=environment, directory=tmp_path
        ) as child:

            def lines() -> int:
                return len(written.read_text().splitlines())

            first = eventually("a file", lines, 60)
            eventually("more in it", lambda: lines() > first, 60)
            child.kill()
    rows = list(csv.DictReader(io.StringIO(written.read_text())))
    assert len(rows) >= first
    assert {row["node_id"] for row in rows} == {"0", "1"}
    assert {*map(len, rows)} == {len(rows[0])}
