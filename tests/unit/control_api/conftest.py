from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.ports import free_port
from tests.unit.control_api.support import NODES, Api, control_api


@pytest.fixture(scope="session")
def _simulated() -> Iterator[tuple[SimulatorProcess, str]]:
    base_port = free_port()
    with SimulatorProcess("--nodes", str(NODES), "--base-port", str(base_port), "--bdevs", "2") as process:
        yield process, "".join(f"127.96.0.{i + 1}:{base_port}\n" for i in range(NODES))


@pytest.fixture
def simulator(_simulated: tuple[SimulatorProcess, str]) -> Iterator[SimulatorProcess]:
    """Five simulated nodes, healthy before and after the test."""
    yield _simulated[0]
    _simulated[0].clear()


@pytest.fixture
def hosts(_simulated: tuple[SimulatorProcess, str]) -> str:
    """The simulator's hostfile."""
    return _simulated[1]


@pytest.fixture
def api(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A control API without tokens, on loopback."""
    with control_api(tmp_path, hosts) as built:
        yield built


@pytest.fixture
def guarded(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Api]:
    """A control API with tokens, one for each role."""
    with control_api(tmp_path, hosts, tokens=True) as built:
        yield built
