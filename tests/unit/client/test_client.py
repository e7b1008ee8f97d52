"""The client: one I/O thread for callers in any thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from clio_client.config.settings import Settings
from clio_client.errors import ClientClosedError, HungError, RefusedError, TransportUnavailableError
from clio_client.membership import ClusterMembership, Member
from clio_client.transport.interface import Transport
from tests.unit.client.asking import RuntimeClient
from tests.unit.client.conftest import Simulation
from tests.unit.memory_transport import MemoryNode, MemoryTransport, member

LONG = 10.0
N0, N1 = member("n0").address, member("n1", 1).address


@pytest.fixture
def nodes() -> dict[str, MemoryNode]:
    return {"n0": MemoryNode(), "n1": MemoryNode()}


@pytest.fixture
def memory_client(nodes: dict[str, MemoryNode]) -> Iterator[RuntimeClient]:
    client = RuntimeClient(lambda: MemoryTransport(nodes))
    yield client
    client.close()
    assert not any(thread.name == "clio-runtime-io" for thread in threading.enumerate())


def test_nothing_starts_before_the_first_question(memory_client: RuntimeClient) -> None:
    assert memory_client.counters() == {}
    assert not any(thread.name == "clio-runtime-io" for thread in threading.enumerate())


def test_answers_and_errors_come_in_the_order_of_the_questions(
    memory_client: RuntimeClient, nodes: dict[str, MemoryNode]
) -> None:
    nodes["n1"].down = RefusedError("refused")
    first, second, third = memory_client.monitor_many(
        [(N0, "worker_stats"), (N1, "worker_stats"), (N0, "get_host_info")], LONG
    )
    assert isinstance(first, dict)
    assert isinstance(second, RefusedError)
    assert isinstance(third, dict)
    assert third[0]["node_id"] == 0
    with pytest.raises(RefusedError):
        memory_client.monitor(N1, "worker_stats", LONG)


def test_callers_in_many_threads(memory_client: RuntimeClient) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(memory_client.monitor(N0, "worker_stats", LONG)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(answers) == 16
    assert sum(t.name == "clio-runtime-io" for t in threading.enumerate()) == 1


def test_work_that_does_not_end_is_given_up_and_cancelled(memory_client: RuntimeClient) -> None:
    cancelled = threading.Event()

    async def endless(_transport: Transport) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(HungError, match=r"no result within 0\.05 s"):
        memory_client.call(endless, 0.05)
    assert cancelled.wait(LONG)


def test_a_transport_that_cannot_be_made_leaves_no_thread_and_may_be_tried_again(
    nodes: dict[str, MemoryNode],
) -> None:
    outcomes: list[Callable[[], Transport]] = []

    def fail() -> Transport:
        raise TransportUnavailableError("not here")

    def make() -> Transport:
        return outcomes.pop(0)()

    client = RuntimeClient(make)
    outcomes += [fail, lambda: MemoryTransport(nodes)]
    with pytest.raises(TransportUnavailableError, match="not here"):
        client.monitor(N0, "worker_stats", LONG)
    assert not any(thread.name == "clio-runtime-io" for thread in threading.enumerate())
    assert client.monitor(N0, "worker_stats", LONG)
    client.close()


def test_close_is_final_and_may_be_repeated(nodes: dict[str, MemoryNode]) -> None:
    unused = RuntimeClient(lambda: MemoryTransport(nodes))
    unused.close()
    used = RuntimeClient(lambda: MemoryTransport(nodes))
    used.monitor(N0, "worker_stats", LONG)
    used.close()
    used.close()
    for client in (unused, used):
        with pytest.raises(ClientClosedError):
            client.monitor(N0, "worker_stats", LONG)
        assert client.counters() == {}


def test_close_ends_work_that_would_not_end(nodes: dict[str, MemoryNode]) -> None:
    client = RuntimeClient(lambda: MemoryTransport(nodes))

    async def endless(_transport: Transport) -> None:
        await asyncio.Event().wait()

    future = client.submit(endless)
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 8
    assert future.cancelled()


def test_discovery_over_real_sockets_can_be_repeated(
    simulation: Simulation, client: RuntimeClient, tmp_path: object
) -> None:
    seed = simulation.node(1)
    settings = Settings().with_overrides(seed=str(seed))
    cluster = ClusterMembership(
        settings.clusters[0],
        settings.runtime,
        {},
        tmp_path,  # type: ignore[arg-type]
    )

    async def refresh(transport: Transport) -> tuple[Member, ...]:
        members = await cluster.refresh(transport, asyncio.get_running_loop().time() + LONG)
        transport.retain(frozenset(m.address for m in members))
        # The seed is asked as what it is: member 1.
        await transport.session(
            members[min(1, len(members) - 1)].address, asyncio.get_running_loop().time() + LONG
        )
        cluster._next_discovery = 0.0
        return members

    for _ in range(2):
        members = client.call(refresh, 3 * LONG)
        assert [m.hostname for m in members] == [f"127.96.1.{i + 1}" for i in range(7)]
        assert cluster.error is None
    assert client.counters()["connections_opened"] == 1
