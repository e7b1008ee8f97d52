from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clio_client.protocol.codec import Generation
from clio_client.transport.interface import NodeAddress
from clio_client.transport.zeromq import ZmqTransport
from clio_lab.simulator.process import SimulatorProcess
from tests.ports import free_port
from tests.unit.client.asking import RuntimeClient

GENERATIONS = {3: "B", 4: "A", 5: "B", 6: "A"}
NODES = 7


class Simulation:
    """A simulator: nodes 0 to 2 speak C, 3 and 5 B, 4 and 6 A."""

    def __init__(self, process: SimulatorProcess, base_port: int) -> None:
        self.process = process
        self.base_port = base_port

    def node(
        self, index: int, generation: Generation | None = None, reply_address: str | None = None
    ) -> NodeAddress:
        return NodeAddress(f"127.96.1.{index + 1}", self.base_port, index, generation, reply_address)

    def requests(self, index: int) -> int:
        count = self.process.describe(index)["requests"]
        assert isinstance(count, int)
        return count


@pytest.fixture(scope="package")
def _running() -> Iterator[Simulation]:
    port = free_port()
    options = ["--nodes", str(NODES), "--base-port", str(port), "--address", "127.96.1.1", "--age", "100"]
    for index, generation in GENERATIONS.items():
        options += ["--node-generation", f"{index}={generation}"]
    with SimulatorProcess(*options) as process:
        yield Simulation(process, port)


@pytest.fixture
def simulation(_running: Simulation) -> Iterator[Simulation]:
    """Healthy nodes; afterwards none of them may have seen anything a real runtime suffers from."""
    _running.process.reset_stats()
    yield _running
    stats = _running.process.stats()
    _running.process.clear()
    assert stats["violations"] == {}, stats["violated_nodes"]


MakeClient = Callable[..., RuntimeClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Makes clients with their own reply port; they must leave no thread and no descriptor behind."""
    clients: list[RuntimeClient] = []
    before = _open()

    def make(**options: Any) -> RuntimeClient:
        options.setdefault("reply_port", 0)
        client = RuntimeClient(lambda: ZmqTransport(**options))
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
    assert _open() == before


@pytest.fixture
def client(make_client: MakeClient) -> RuntimeClient:
    return make_client()


def _open() -> tuple[int, set[str]]:
    """Descriptors of this process, and threads."""
    return len(os.listdir("/proc/self/fd")), {thread.name for thread in threading.enumerate()}  # noqa: PTH208
