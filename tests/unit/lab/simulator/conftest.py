from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.ports import free_port
from tests.unit.lab.simulator.raw_client import RawClient

NODES = 9
GENERATIONS = {4: "B", 5: "A", 7: "B", 8: "A"}
AGE = 2000.0


@dataclass
class Simulation:
    """A running simulator and where its nodes are.

    Nodes 4 and 7 speak B, 5 and 8 A, the rest C. Nodes 6 to 8 are there to be restarted.
    """

    process: SimulatorProcess
    base_port: int

    def node(self, index: int) -> tuple[str, int]:
        return f"127.96.0.{index + 1}", self.base_port

    def client(self, index: int, **options: object) -> RawClient:
        return RawClient(self.node(index), GENERATIONS.get(index, "C"), **options)  # type: ignore[arg-type]

    def wait_for_requests(self, index: int, number: int) -> None:
        """Wait until a node has read this many requests."""
        deadline = time.monotonic() + 10
        while self.process.describe(index)["requests"] < number:
            assert time.monotonic() < deadline, f"node {index} did not read {number} requests"

    def violations(self) -> dict[str, int]:
        return self.process.stats()["violations"]


@pytest.fixture(scope="session")
def _running() -> Iterator[Simulation]:
    base_port = free_port()
    options = ["--nodes", str(NODES), "--base-port", str(base_port), "--age", str(AGE), "--bdevs", "4"]
    for index, generation in GENERATIONS.items():
        options += ["--node-generation", f"{index}={generation}"]
    with SimulatorProcess(*options) as process:
        yield Simulation(process, base_port)
    assert process.returncode == 0


@pytest.fixture
def simulation(_running: Simulation) -> Iterator[Simulation]:
    """Healthy nodes that have seen nothing yet; 0 to 5 have been up for 2000 s."""
    _running.process.reset_stats()
    yield _running
    _running.process.clear()
