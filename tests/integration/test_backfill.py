"""`clio-exporter backfill` on a real Prometheus that missed scrapes, with simulated nodes."""

from __future__ import annotations

import csv
import io
import itertools
import time
from pathlib import Path

import pytest

from clio_exporter.backfill import remote_write
from clio_exporter.service_client import Service
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, run_exporter
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool")]

CPU = "clio_node_cpu_utilization_ratio"
FAMILIES = (CPU, "clio_node_memory_available_bytes", "clio_node_leader")
RECEIVER = "--web.enable-remote-write-receiver"
Stored = dict[tuple[str, str], list[tuple[int, float]]]


def stored(prometheus: Prometheus, until: float) -> Stored:
    """Every sample up to a time, by family and node; each is one series."""
    found: Stored = {}
    for family in FAMILIES:
        for series in prometheus.api("query", query=f"{family}[20m]", time=f"{until:.3f}")["result"]:
            key = family, series["metric"]["node_id"]
            assert key not in found, f"two series: {series['metric']}"
            found[key] = [(round(float(at) * 1000), float(value)) for at, value in series["values"]]
    return found


def longest(samples: list[tuple[int, float]]) -> int:
    """Milliseconds between two samples, at most."""
    return max(after - before for (before, _), (after, _) in itertools.pairwise(samples))


def test_what_was_missed_is_filled_once_and_nothing_live_is_lost(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    nodes = ["--nodes", "2", "--age", "1500", "--base-port", str(free_port(20)), "--hostfile", str(hosts)]
    port = free_port()
    plain = {"scrape_configs": [{"job_name": "clio", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]}
    fitting = {**plain, "storage": {"tsdb": {"out_of_order_time_window": "30m"}}}

    def backfill(prometheus: Prometheus, *more: str) -> tuple[int, str]:
        done = run_exporter(
            tmp_path, "backfill", "--hostfile", str(hosts), "--runtime.reply-port", str(free_port()),
            "--prometheus", prometheus.url, "--timeout", "30s", *more,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    with SimulatorProcess(*nodes):
        with ExporterProcess(tmp_path, "--hostfile", str(hosts), port=port) as exporter:
            with Prometheus(tmp_path, plain) as prometheus:
                prometheus.wait_for_scrapes(3, CPU)
                status, told = backfill(prometheus)
                assert (status, RECEIVER in told) == (1, True), told
            # It was down, and nothing is in the ten minutes before it was there.
            with Prometheus(tmp_path, plain, RECEIVER) as prometheus:
                prometheus.wait_for_scrapes(3, CPU)
                status, told = backfill(prometheus)
                assert (status, "out_of_order_time_window: 30m" in told) == (1, True), told
                untouched = stored(prometheus, time.time())
                prometheus.reload(fitting)

                # A history before the gap of ten minutes: one node was scraped then.
                begin = untouched[CPU, "0"][0][0]
                history = [(begin - 800_000 + 1000 * second, 0.25) for second in range(200)]
                labels = prometheus.wait_for(f'{CPU}{{node_id="0"}}')[0].labels
                remote_write.send(Service(prometheus.url, 60), [(labels, history)])

                # Its exporter goes away, and comes back.
                exporter.stop()
                gone = prometheus.wait_for("max_over_time(up[6s]) == 0")
                assert gone[0].labels["job"] == "clio"
        with ExporterProcess(tmp_path, "--hostfile", str(hosts), port=port):
            with Prometheus(tmp_path, fitting, RECEIVER) as prometheus:
                prometheus.wait_for_scrapes(3, CPU)
                # A scrape that is still under way is not before this.
                until = max(sample.value for sample in prometheus.wait_for(f"timestamp({CPU})"))
                before = stored(prometheus, until)
                status, told = backfill(prometheus, "--dry-run")
                assert (status, told.count("would fill") >= 4) == (0, True), told
                assert stored(prometheus, until) == before

                status, told = backfill(prometheus)
                assert status == 0, told
                after = stored(prometheus, until)
                status, again = backfill(prometheus)
                assert status == 0, again
                assert stored(prometheus, until) == after
                recorded = run_exporter(
                    tmp_path, "record", "--hostfile", str(hosts), "--runtime.reply-port", str(free_port()),
                    "--format", "csv", "--timeout", "30s",
                )  # fmt: skip
            # A restart reads what was written back from the log.
            with Prometheus(tmp_path, fitting, RECEIVER) as prometheus:
                assert stored(prometheus, until) == after

    ring = {
        (round(float(row["timestamp"]) * 1000), row["node_id"]): row
        for row in csv.DictReader(io.StringIO(recorded.stdout))
    }
    assert before.keys() == after.keys()
    assert {node for _, node in after} == {"0", "1"}
    for (family, node), samples in after.items():
        had = before[family, node]
        assert longest(had) > 5000, had
        assert longest(samples) <= 2500, (family, node)
        assert samples[-1][0] - samples[0][0] > 900_000
        assert set(had) <= set(samples)
        times = [at for at, _ in samples]
        assert len(times) == len(set(times))
        new = [(at, value) for at, value in samples if (at, value) not in set(had)]
        for at, value in new:
            assert all(abs(at - other) >= 500 for other, _ in had), (family, node, at)
            if (at, node) in ring:  # by now the oldest are not in it any more
                assert value == pytest.approx(float(ring[at, node][family]), rel=1e-12)
        assert sum((at, node) in ring for at, _ in new) > 600
    # One sample a second, in the ten minutes and more that were missing.
    (ten,) = [samples for (family, node), samples in after.items() if (family, node) == (CPU, "0")]
    filled = [at for at, _ in ten if history[-1][0] < at < begin]
    assert len(filled) == (begin - history[-1][0]) // 1000 - 1
    assert [value for at, value in ten if at <= history[-1][0] and (at, value) in history] == [0.25] * 200
