"""Faults of the exporter's own host: no file descriptors left, no room for its log."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import COMMAND, ExporterProcess, Scrape, clean_environment, eventually
from tests.faults.conftest import WORKERS, is_whole, reasons
from tests.ports import free_port

NODES = 12


@pytest.fixture(scope="module")
def targets() -> Iterator[list[str]]:
    port = free_port()
    options = ["--nodes", str(NODES), "--base-port", str(port), "--address", "127.96.7.1"]
    with SimulatorProcess(*options, "--workers", str(WORKERS), "--bdevs", "1", "--age", "100"):
        yield [f"127.96.7.{i + 1}:{port}" for i in range(NODES)]


def test_file_descriptors_used_up(targets: list[str], tmp_path: Path) -> None:
    with ExporterProcess(tmp_path, f"--nodes={','.join(targets)}", "--log.level=error") as exporter:
        process = psutil.Process(exporter.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        # A connection and one back for each node are more than there will be.
        exporter.scrape("/metrics?collect[]=config")
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + NODES, hard))

        def lacking() -> bool:
            answer = exporter.get("/metrics", timeout=30)
            scrape = Scrape(answer.text)
            return bool(reasons(scrape)) and bool(scrape.series("clio_exporter_build_info"))

        eventually("it is served, and nodes are down", lacking, 120)
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        exporter.scrape_until("all are whole", lambda s: all(is_whole(s, i) for i in range(NODES)), 120)


def test_a_full_disk_under_the_log(targets: list[str], tmp_path: Path) -> None:
    """Each line of the log fails; the scrape is served, with the node that is down and gives cause to log."""
    home = tmp_path / "home"
    home.mkdir()
    nodes = f"--nodes={targets[0]},127.0.0.1:{free_port()}"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "scrape", nodes, "--runtime.reply-port=0", "--log.level=debug"],
            env=clean_environment(home), cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=full, timeout=180, check=False,
        )  # fmt: skip
    scrape = Scrape(done.stdout.decode())
    assert is_whole(scrape, 0)
    assert reasons(scrape) == {"1": "refused"}
