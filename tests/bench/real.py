"""What a scrape of four real runtimes costs, against the runtime's own tool: CPU of the side that asks."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from tests.exporter_process import ExporterProcess

_SCHEDULER_CLOCK = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | _SCHEDULER_CLOCK)


def own_tool(node: LocalNode, program: str) -> float:
    """CPU seconds of `clio_run monitor`, which shows the workers of one node."""
    with subprocess.Popen(
        [program, "monitor", "--once", "--json"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**node.environment, "CLIO_WAIT_SERVER": "10"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert b"num_tasks_processed" in process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def times_cheaper(nodes: int = 4, runs: int = 10, scrapes: int = 100) -> tuple[float, float]:
    """How much cheaper, for one node, everything is than the tool, and workers alone."""
    with tempfile.TemporaryDirectory() as directory:
        install = RuntimeInstall.current()
        with LocalCluster(
            Path(directory) / "c", nodes, install=install, base_port=find_base_port(nodes)
        ) as cluster:
            tool = statistics.median(
                own_tool(cluster.nodes[0], install.start_command[0]) for _ in range(runs)
            )
            with ExporterProcess(Path(directory), f"--hostfile={cluster.hostfile}") as exporter:
                costs = []
                for path in ("/metrics", "/metrics?collect[]=worker"):
                    for _ in range(10):
                        exporter.get(path)
                    before = cpu_seconds(exporter.pid)
                    for _ in range(scrapes):
                        exporter.get(path)
                    costs.append((cpu_seconds(exporter.pid) - before) / scrapes / nodes)
    return tool / costs[0], tool / costs[1]
