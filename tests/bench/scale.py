"""What a scrape costs the exporter, from 64 to 4,096 simulated nodes, and against prometheus_client's writer.

The exporter is a process of its own, scraped over HTTP as Prometheus does (gzip); CPU and memory are the
kernel's figures for it. Compare ratios, not seconds: the simulator and whatever else runs share the machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from clio_exporter.exposition import Family, Kind, Samples, label_text
from clio_lab.simulator.process import SimulatorProcess

START_SECONDS = 60.0
SCRAPE_SECONDS = 60
WRITER_SAMPLES = 100_000


@dataclass(frozen=True)
class Cost:
    """Medians over the scrapes after the first."""

    nodes: int
    first_wall: float
    wall: float
    cpu: float
    rss: int
    size: int

    @property
    def cpu_per_node(self) -> float:
        """CPU seconds a node and scrape."""
        return self.cpu / self.nodes


@contextmanager
def exporter(hostfile: Path, port: int) -> Iterator[psutil.Process]:
    """An exporter process that answers on ``port``."""
    command = [
        sys.executable,
        "-m",
        "clio_exporter",
        f"--hostfile={hostfile}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen([*command, "--log.level=error"]) as process:
        try:
            wait_ready(f"http://127.0.0.1:{port}/-/ready")
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def wait_ready(url: str) -> None:
    """Wait until the URL answers 200."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def scrape(port: int) -> tuple[float, int]:
    """Seconds and compressed bytes of one scrape."""
    headers = {"Accept-Encoding": "gzip", "X-Prometheus-Scrape-Timeout-Seconds": str(SCRAPE_SECONDS)}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=SCRAPE_SECONDS + 5) as response:
        size = len(response.read())
    return time.monotonic() - started, size


def measure(nodes: int, rounds: int, base_port: int, port: int) -> Cost:
    """Scrape ``nodes`` simulated nodes, of 8 workers and 3 block devices each."""
    with tempfile.TemporaryDirectory() as directory:
        hostfile = Path(directory) / "hosts"
        options = ["--nodes", str(nodes), "--base-port", str(base_port), "--hostfile", str(hostfile)]
        with SimulatorProcess(*options, timeout=START_SECONDS), exporter(hostfile, port) as process:
            first, _ = scrape(port)
            walls, cpus, size = [], [], 0
            for _ in range(rounds):
                before = process.cpu_times()
                wall, size = scrape(port)
                after = process.cpu_times()
                walls.append(wall)
                cpus.append(after.user + after.system - before.user - before.system)
                # The runtimes have one new sample a second, which is what a scrape asks for.
                time.sleep(1)
            rss = process.memory_info().rss
    return Cost(nodes, first, statistics.median(walls), statistics.median(cpus), rss, size)


def writer_ratio() -> float:
    """Time of prometheus_client's writer divided by that of exporter.exposition, for the same samples."""

    class Gauge:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            family = GaugeMetricFamily("clio_bench", "h", labels=["node_id", "worker_id"])
            for number in range(WRITER_SAMPLES):
                family.add_metric([str(number // 8), str(number % 8)], number)
            yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gauge())  # type: ignore[arg-type]
    started = time.perf_counter()
    theirs = generate_latest(registry)
    middle = time.perf_counter()
    family = Family("clio_bench", Kind.GAUGE, "h", "bench")
    samples = Samples([family])
    for number in range(WRITER_SAMPLES):
        samples.add(family, label_text({"node_id": str(number // 8), "worker_id": str(number % 8)}), number)
    ours = b"".join(samples.render(openmetrics=False))
    ended = time.perf_counter()
    assert ours.count(b"\n") == theirs.count(b"\n")
    return (middle - started) / (ended - middle)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base-port", type=int, default=30413)
    parser.add_argument("--port", type=int, default=29777)
    args = parser.parse_args()
    costs = [measure(nodes, args.rounds, args.base_port, args.port) for nodes in args.nodes]
    print("| nodes | first scrape | scrape | CPU of the exporter | CPU a node, ratio | memory | gzip |")
    print("|---|---|---|---|---|---|---|")
    for cost in costs:
        print(
            f"| {cost.nodes} | {cost.first_wall:.2f} s | {cost.wall:.2f} s | {cost.cpu:.2f} s "
            f"| {cost.cpu_per_node / costs[0].cpu_per_node:.2f} | {cost.rss / 2**20:.0f} MiB "
            f"| {cost.size / 2**20:.1f} MiB |"
        )
    print(f"\nprometheus_client's writer takes {writer_ratio():.1f} times as long for the same samples.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
