"""What a scrape costs the exporter: as ratios, from 64 to 4,096 simulated nodes and with four real ones.

The exporter is a process of its own, scraped over HTTP as Prometheus does (gzip); CPU and memory are the
kernel's figures for it. Compare ratios, not seconds: the simulator and whatever else runs share the machine.
`--write` puts the ratios into docs/performance.md: from a machine that has nothing else to do, please.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from clio_lab.simulator.process import SimulatorProcess
from tests.bench import real
from tests.bench.ratios import Figure, changes, committed, table, written
from tests.paths import ROOT

START_SECONDS = 60.0
SCRAPE_SECONDS = 60
DOCUMENT = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Cost:
    """Medians over the scrapes after the first; the peak of memory; the CPU of another writer of the same."""

    nodes: int
    first_wall: float
    wall: float
    cpu: float
    peak: int
    size: int
    writer_cpu: float

    @property
    def cpu_per_node(self) -> float:
        """CPU seconds a node and scrape."""
        return self.cpu / self.nodes


@contextmanager
def exporter(hostfile: Path, port: int) -> Iterator[psutil.Process]:
    """An exporter process that answers on ``port``."""
    with subprocess.Popen(exporter_command(hostfile, port)) as process:
        try:
            wait_ready(f"http://127.0.0.1:{port}/-/ready", process)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def exporter_command(hostfile: Path, port: int) -> list[str]:
    """How an exporter of these hosts is started."""
    options = [f"--hostfile={hostfile}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    return [sys.executable, "-m", "clio_exporter", *options]


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the URL answers 200, as long as the process lives."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if time.monotonic() > end or process.poll() is not None:
                raise
            time.sleep(0.05)


def scrape(port: int) -> tuple[float, bytes]:
    """Seconds of one scrape, and its compressed answer."""
    headers = {"Accept-Encoding": "gzip", "X-Prometheus-Scrape-Timeout-Seconds": str(SCRAPE_SECONDS)}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=SCRAPE_SECONDS + 5) as response:
        body = response.read()
    return time.monotonic() - started, body


def measure(nodes: int, rounds: int, base_port: int, port: int) -> Cost:
    """Scrape ``nodes`` simulated nodes, of 8 workers and 3 block devices each."""
    with tempfile.TemporaryDirectory() as directory:
        hostfile = Path(directory) / "hosts"
        options = ["--nodes", str(nodes), "--base-port", str(base_port), "--hostfile", str(hostfile)]
        with SimulatorProcess(*options, timeout=START_SECONDS), exporter(hostfile, port) as process:
            first, _ = scrape(port)
            walls, cpus, body = [], [], b""
            for _ in range(rounds):
                before = process.cpu_times()
                wall, body = scrape(port)
                after = process.cpu_times()
                walls.append(wall)
                cpus.append(after.user + after.system - before.user - before.system)
                # The runtimes have one new sample a second, which is what a scrape asks for.
                time.sleep(1)
            peak = peak_bytes(process.pid)
    text = gzip.decompress(body).decode()
    return Cost(
        nodes, first, statistics.median(walls), statistics.median(cpus), peak, len(body), writer_seconds(text)
    )


def peak_bytes(pid: int) -> int:
    """The most memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def writer_seconds(text: str) -> float:
    """CPU seconds prometheus_client takes to write the samples of an exposition."""

    class Everything:
        def __init__(self) -> None:
            self.families = list(text_string_to_metric_families(text))

        def collect(self) -> Iterator[Metric]:
            yield from self.families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Everything())  # type: ignore[arg-type]
    started = time.process_time()
    generate_latest(registry)
    return time.process_time() - started


def ratios(costs: Mapping[int, Cost], real: tuple[float, float] | None) -> Iterator[Figure]:
    """What budgets are for, of what has been measured."""
    thousand, least, most = costs.get(1024), costs.get(64), costs.get(4096)
    if thousand is not None:
        against = thousand.cpu / thousand.writer_cpu
        yield Figure("1,024 nodes: CPU of a scrape by that of prometheus_client writing it", against, 0.25)
        yield Figure("1,024 nodes: peak memory", thousand.peak / 2**20, 180, " MiB")
        yield Figure("1,024 nodes: first scrape by a later one", thousand.first_wall / thousand.wall, 2.5)
    if most is not None:
        yield Figure("4,096 nodes: peak memory", most.peak / 2**20, 450, " MiB")
        if least is not None:
            each = most.cpu_per_node / least.cpu_per_node
            yield Figure("4,096 nodes: CPU a node by that of 64 nodes", each, 1.1)
    if real is not None:
        everything, workers = real
        tool = "by a scrape of 4 real nodes than by `clio_run monitor`"
        yield Figure(f"times less CPU a node {tool}", everything, 60, most=False)
        yield Figure(f"times less CPU a node {tool}, workers alone", workers, 200, most=False)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base-port", type=int, default=30413)
    parser.add_argument("--port", type=int, default=29777)
    parser.add_argument("--no-real", action="store_true", help="leave out the real runtimes")
    parser.add_argument("--write", action="store_true", help="write the ratios into docs/performance.md")
    args = parser.parse_args()
    costs = {nodes: measure(nodes, args.rounds, args.base_port, args.port) for nodes in args.nodes}
    first = costs[args.nodes[0]]
    print("| nodes | first scrape | scrape | CPU of the exporter | CPU a node, ratio | peak memory | gzip |")
    print("|---|---|---|---|---|---|---|")
    for cost in costs.values():
        print(
            f"| {cost.nodes} | {cost.first_wall:.2f} s | {cost.wall:.2f} s | {cost.cpu:.2f} s "
            f"| {cost.cpu_per_node / first.cpu_per_node:.2f} | {cost.peak / 2**20:.0f} MiB "
            f"| {cost.size / 2**20:.1f} MiB |"
        )
    figures = list(ratios(costs, None if args.no_real else real.times_cheaper()))
    print("", *table(figures), sep="\n")
    text = DOCUMENT.read_text(encoding="utf-8")
    print("", "Against the committed figures:", *changes(figures, committed(text)), sep="\n")
    if args.write:
        DOCUMENT.write_text(written(text, table(figures)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
