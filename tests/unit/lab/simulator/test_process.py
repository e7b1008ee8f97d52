"""The process: readiness, hostfile, control channel, limits, the way it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.ports import free_port
from tests.unit.lab.simulator.conftest import Simulation
from tests.unit.lab.simulator.raw_client import RawClient

COMMAND = [sys.executable, "-m", "clio_lab.simulator"]


def test_hostfile_names_faults_and_same_address(tmp_path: Path) -> None:
    base, hostfile = free_port(24), tmp_path / "hosts"
    options = ["--nodes", "3", "--base-port", str(base), "--same-address", "--hostfile", str(hostfile)]
    options += [
        "--hostname-format",
        "sim-{index:02d}",
        "--workers",
        "2",
        "--bdevs",
        "0",
        "--fault",
        "1-2=error-rc:1",
    ]
    with SimulatorProcess(*options) as process:
        assert process.ready["nodes"] == 3
        lines = hostfile.read_text().splitlines()
        assert lines == [f"127.96.0.1:{base + 10 * index}" for index in range(3)]
        for index, line in enumerate(lines):
            host, port = line.split(":")
            with RawClient((host, int(port))) as client:
                answer = client.ask("get_host_info")
                assert answer.rc == (1 if index else 0)
                if index == 0:
                    assert answer.results[0]["hostname"] == "sim-00"
                    assert len(client.results("worker_stats")[0]) == 2
                    modules = [entry["chimod_name"] for entry in client.results("container_stats")[0]]
                    assert modules
                    assert not [name for name in modules if name.endswith("_bdev")]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_signals(number: int) -> None:
    arguments = [*COMMAND, "--nodes", "2", "--base-port", str(free_port())]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        os.kill(process.pid, number)
        assert process.wait(10) == 0


def test_it_ends_with_its_control_channel() -> None:
    arguments = [*COMMAND, "--nodes", "2", "--control", "--base-port", str(free_port())]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_taken_port_is_an_error_with_a_remedy(simulation: Simulation) -> None:
    with pytest.raises(
        RuntimeError, match=r"code 1: .*cannot listen on 127\.96\.0\.1.*choose another --address"
    ):
        SimulatorProcess("--nodes", "2", "--base-port", str(simulation.base_port))


def test_bad_options_end_with_2() -> None:
    result = subprocess.run(
        [*COMMAND, "--nodes", "0"], capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 2
    assert "--nodes 0" in result.stderr


def test_too_few_open_files_is_an_error_with_a_remedy() -> None:
    arguments = [*COMMAND, "--nodes", "1000000"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 1
    assert "1000000 nodes need 4000256 open files" in result.stderr


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"do": "dance", "node": 1}, "unknown order"),
        ({"do": "set_fault", "node": 1, "fault": "sleepy"}, "unknown fault"),
        ({"do": "set_fault", "fault": "silent"}, "names no node"),
        ({"do": "restart", "node": 99}, "nodes 0 to 8"),
    ],
)
def test_orders_that_are_refused(simulation: Simulation, order: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        simulation.process.order(**order)
    assert simulation.process.describe(0)["faults"] == []


def test_stats_count_requests_by_query(simulation: Simulation) -> None:
    with simulation.client(0) as client:
        client.connect()
        client.results("system_stats:5")
        client.results("system_stats:6")
        client.results("pool_stats://301.0:local:stats")
    stats = simulation.process.stats()
    assert stats["by_query"] == {"ClientConnect": 1, "system_stats": 2, "pool_stats": 1}
    assert (stats["requests"], stats["answers"]) == (4, 4)
    assert stats["cpu_seconds"] > 0
    assert stats["rss_bytes"] > 10e6
