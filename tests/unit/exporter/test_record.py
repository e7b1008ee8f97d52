"""`clio-exporter record`: what is kept and how it is written, over simulated nodes."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pyarrow import parquet as pq

from clio_client import SystemSample
from clio_exporter import cli
from clio_exporter.collectors.node import GPU_SAMPLE, SAMPLE
from clio_exporter.exposition import format_value
from clio_exporter.record import parquet
from clio_exporter.record.store import Store
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import eventually
from tests.ports import free_port


def sample(event: int, **values: Any) -> SystemSample:
    everything = dict.fromkeys(field.name for field in fields(SystemSample))
    return SystemSample(**{**everything, "event_id": event, "wall_time_ns": event * 10**9 + 5, **values})


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[SimulatorProcess, str]]:
    port = free_port()
    with SimulatorProcess(
        "--nodes", "3", "--base-port", str(port), "--address", "127.96.9.1", "--age", "50"
    ) as process:
        yield process, ",".join(f"127.96.9.{i}:{port}" for i in (1, 2, 3))
        assert process.stats()["violations"] == {}


def record(nodes: str, *more: str) -> int:
    return cli.main(["record", "--nodes", nodes, "--generation", "C", "--runtime.reply-port", "0", *more])


def test_a_sample_is_kept_once_and_written_in_order() -> None:
    store = Store()
    store.add({"node_id": "1"}, [sample(8, cpu_usage_pct=50.0), sample(7, cpu_usage_pct=25.0)])
    store.add({"node_id": "0"}, [sample(7, ram_total_bytes=2**53 + 1)])
    store.add({"node_id": "1"}, [sample(8, cpu_usage_pct=99.0), sample(9, wall_time_ns=None)])
    assert len(store) == 3
    text = "".join(store.openmetrics())
    assert 'clio_node_cpu_utilization_ratio{node_id="1"} 0.25 7.000\n' in text
    assert 'clio_node_cpu_utilization_ratio{node_id="1"} 0.5 8.000\n' in text
    assert f'clio_node_memory_total_bytes{{node_id="0"}} {2**53 + 1} 7.000\n' in text
    assert "gpu" not in text
    assert text.endswith("# EOF\n")
    rows = list(csv.DictReader(io.StringIO("".join(store.csv()))))
    assert [(row["timestamp"], row["node_id"]) for row in rows] == [
        ("7.000", "1"),
        ("7.000", "0"),
        ("8.000", "1"),
    ]
    assert rows[0]["clio_node_memory_total_bytes"] == ""
    store.close()


def test_parquet_has_the_rows_of_csv_with_types(tmp_path: Path) -> None:
    store = Store()
    store.add({"node_id": "0"}, [sample(7, ram_total_bytes=2**53 + 1, cpu_usage_pct=12.5)])
    store.add({"node_id": "1", "cluster": "x"}, [sample(event, is_leader=True) for event in (6, 8)])
    file = tmp_path / "out.parquet"
    with file.open("wb") as stream:
        parquet.write(store, stream)
    found = pq.read_table(file)
    rows = list(csv.DictReader(io.StringIO("".join(store.csv()))))
    assert found.column_names == list(rows[0])
    assert [as_csv(row) for row in found.to_pylist()] == rows
    assert found.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")
    assert found["clio_node_memory_total_bytes"].to_pylist() == [None, 2**53 + 1, None]
    assert found["cluster"].to_pylist() == ["x", None, "x"]
    assert found["clio_node_gpu_utilization_ratio"].type == pa.float64()
    store.close()


def as_csv(row: dict[str, Any]) -> dict[str, str]:
    """A row of Parquet as CSV has it."""
    return {
        name: f"{value.timestamp():.3f}"
        if name == "timestamp"
        else ("" if value is None else value if isinstance(value, str) else format_value(value))
        for name, value in row.items()
    }


def test_more_rows_than_a_group_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 2)
    store = Store()
    store.add({"node_id": "0"}, [sample(event) for event in range(1, 6)])
    file = tmp_path / "out.parquet"
    with file.open("wb") as stream:
        parquet.write(store, stream)
    assert pq.ParquetFile(file).num_row_groups == 3
    assert [at.timestamp() for at in pq.read_table(file)["timestamp"].to_pylist()] == [1, 2, 3, 4, 5]
    store.close()


def test_counts_of_the_runtime_are_integers_in_parquet() -> None:
    tables = [*SAMPLE._columns, *GPU_SAMPLE._columns]
    assert {family for _, family, convert in tables if convert is None} == parquet.WHOLE


def test_parquet_needs_a_file_and_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record("127.0.0.1:1", "--format", "parquet") == 2
    assert "needs --output" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "clio_exporter.record.parquet", None)
    monkeypatch.delattr("clio_exporter.record.parquet")
    assert record("127.0.0.1:1", "--format", "parquet", "--output", str(tmp_path / "x")) == 2
    assert "pip install 'clio-exporter[parquet]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nodes_without_gpu_have_no_samples_of_them() -> None:
    store = Store()
    store.add(
        {"node_id": "0"},
        [sample(1, gpu_count=0, gpu_usage_pct=0.0), sample(2, gpu_count=1, gpu_usage_pct=50.0)],
    )
    found = [line for line in store.openmetrics() if line.startswith("clio_node_gpu_utilization_ratio{")]
    assert found == ['clio_node_gpu_utilization_ratio{node_id="0"} 0.5 2.000\n']
    store.close()


def test_the_ring_of_every_node(
    simulator: tuple[SimulatorProcess, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.om"
    assert record(simulator[1], "--label", "job_id=7", "--output", str(file)) == 0
    assert "of 3 of 3 nodes" in capsys.readouterr().err
    families = {family.name: family for family in text_string_to_metric_families(file.read_text())}
    cpu = families["clio_node_cpu_utilization_ratio"].samples
    for node in "012":
        times = [float(s.timestamp) for s in cpu if s.labels["node_id"] == node]
        assert len(times) >= 50
        assert times == sorted(set(times))
    assert {s.labels["job_id"] for s in cpu} == {"7"}


def test_csv_on_standard_output_and_a_node_that_is_down(
    simulator: tuple[SimulatorProcess, str], capsys: pytest.CaptureFixture[str]
) -> None:
    simulator[0].set_fault(1, "refused")
    try:
        assert record(simulator[1], "--format", "csv", "--timeout", "2s") == 3
    finally:
        simulator[0].clear()
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["node_id"] for row in rows} == {"0", "2"}
    assert "tells nothing" in err


def test_it_goes_on_until_it_is_stopped_and_writes_what_it_has(
    simulator: tuple[SimulatorProcess, str], tmp_path: Path
) -> None:
    file = tmp_path / "out.csv"
    command = [sys.executable, "-m", "clio_exporter", "record", "--nodes", simulator[1], "--generation", "C"]
    command += ["--runtime.reply-port", "0", "--format", "csv", "--for", "10m", "--interval", "1s"]
    simulator[0].reset_stats()
    with subprocess.Popen([*command, "--output", str(file)], stderr=subprocess.PIPE) as running:
        try:
            # More questions than one round asks: it is in a later one.
            eventually("it has asked again", lambda: simulator[0].stats()["requests"] > 15, 60)
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
        finally:
            running.kill()
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    by_node = [row["timestamp"] for row in rows if row["node_id"] == "0"]
    assert len(by_node) == len(set(by_node)) >= 51


def test_a_place_that_cannot_be_written(simulator: tuple[SimulatorProcess, str], tmp_path: Path) -> None:
    assert record(simulator[1], "--output", str(tmp_path / "none" / "x")) == 2
