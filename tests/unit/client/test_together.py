"""Several questions to one node that go out together, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

import pytest

from clio_client.errors import ClientClosedError, ConnectionLostError, RuntimeClientError
from clio_client.protocol.codec import QUERY_WORKER_STATS, Generation
from clio_client.transport.interface import MonitorAnswer, NodeAddress, Transport
from clio_client.transport.requests import Wave
from tests.unit.client.asking import RuntimeClient
from tests.unit.client.conftest import MakeClient, Simulation

LONG = 15.0
SHORT = 0.4
QUERIES = (QUERY_WORKER_STATS, "get_host_info", "system_stats:0", "container_stats")
LOST = "pool_stats://1.0:physical:99:worker_stats"
"""Lost by a runtime that goes on answering everything else (wire protocol, section 6)."""

Told = list[tuple[str, MonitorAnswer | Exception]]


def together(
    client: RuntimeClient,
    node: NodeAddress,
    queries: Sequence[str] = QUERIES,
    timeout: float = LONG,
    head_start: float = 0.0,
    when_told: Callable[[Told], None] = lambda _: None,
) -> Told:
    """What was told of which query, in that order, when all have ended."""
    told: Told = []

    def tell(query: str) -> Callable[[MonitorAnswer | Exception], None]:
        def answered(answer: MonitorAnswer | Exception) -> None:
            told.append((query, answer))
            when_told(told)

        return answered

    async def ask(transport: Transport) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        asked = [(query, tell(query)) for query in queries]
        await transport.monitor_all(node, asked, deadline, head_start=head_start)

    client.call(ask, timeout + 5)
    return told


def reasons(told: Told) -> list[str]:
    return sorted(answer.reason for _, answer in told if isinstance(answer, RuntimeClientError))


@pytest.fixture
def node(simulation: Simulation, client: RuntimeClient) -> NodeAddress:
    """Node 0, connected to."""
    together(client, simulation.node(0))
    simulation.process.reset_stats()
    return simulation.node(0)


def wait_for_requests(simulation: Simulation, count: int) -> None:
    deadline = time.monotonic() + LONG
    while simulation.requests(0) < count:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("index", [0, 3, 4])
def test_every_question_is_told_its_own_answer_in_every_generation(
    simulation: Simulation, client: RuntimeClient, index: int
) -> None:
    told = together(client, simulation.node(index))
    assert sorted(query for query, _ in told) == sorted(QUERIES)
    for query, answer in told:
        assert isinstance(answer, MonitorAnswer)
        assert answer.query == query
        assert answer.sole()


def test_questions_do_not_wait_for_each_other_up_to_the_limit(
    simulation: Simulation, make_client: MakeClient
) -> None:
    client = make_client(max_in_flight=3)
    together(client, simulation.node(0))
    simulation.process.reset_stats()
    simulation.process.set_fault(0, "silent")
    told = together(client, simulation.node(0), timeout=SHORT)
    assert reasons(told) == ["hung"] * 4
    assert simulation.requests(0) == 3
    assert reasons(together(client, simulation.node(0), timeout=SHORT)) == ["hung"] * 4
    assert simulation.requests(0) == 3  # those that were lost keep their places


def test_eight_questions_at_once_are_no_more_than_a_node_gets(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    together(client, node, QUERIES * 3, SHORT)
    assert simulation.requests(0) == 8


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_question_that_is_not_answered_costs_the_others_nothing(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress, place: int
) -> None:
    queries = [*QUERIES[:place], LOST, *QUERIES[place:]]
    at: dict[str, float] = {}
    started = time.monotonic()
    told = together(
        client, node, queries, 1.0, SHORT / 4, lambda told: at.setdefault(told[-1][0], time.monotonic())
    )
    assert [query for query, answer in told if isinstance(answer, Exception)] == [LOST]
    assert told[-1][0] == LOST
    assert reasons(told) == ["hung"]
    # The others are told when they are answered, not when the last of them has ended.
    assert max(at[query] for query in QUERIES) < at[LOST]
    assert at[LOST] - started >= 0.9
    assert reasons(together(client, node)) == []


def test_the_first_has_a_head_start_until_it_is_answered(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    seen: list[int] = []
    told = together(
        client, node, head_start=LONG, when_told=lambda _: seen.append(client.counters()["requests_sent"])
    )
    assert told[0][0] == QUERIES[0]
    assert seen[1] == seen[0] + 3  # the others are sent when the first is known, and at once


def test_a_first_question_that_is_lost_holds_the_others_up_for_its_head_start_only(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    before = client.counters()["requests_sent"]
    started = time.monotonic()
    told = together(client, node, timeout=2 * SHORT, head_start=SHORT / 4)
    assert reasons(told) == ["hung"] * 4
    assert client.counters()["requests_sent"] == before + 4
    assert time.monotonic() - started < LONG


def test_a_connection_that_is_lost_ends_all_that_was_asked_over_it_at_once(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    future = client.submit(lambda transport: _told_by(transport, node, LONG * 4))
    wait_for_requests(simulation, len(QUERIES))
    started = time.monotonic()
    simulation.process.restart_node(0)
    assert reasons(future.result(LONG)) == ["connection_lost"] * 4
    assert time.monotonic() - started < LONG


def test_what_follows_a_lost_first_question_is_asked_over_a_new_connection(
    client: RuntimeClient, node: NodeAddress
) -> None:
    async def lose(transport: Transport) -> Told:
        asking = asyncio.ensure_future(_told_by(transport, node, LONG, head_start=LONG))
        await asyncio.sleep(0)  # the first is out, and cannot have been answered yet
        transport.connections[node]._lost(ConnectionLostError("gone"))  # type: ignore[attr-defined]
        return await asking

    told = client.call(lose, LONG)
    assert [query for query, answer in told if isinstance(answer, Exception)] == [QUERIES[0]]
    assert reasons(told) == ["connection_lost"]
    assert len(told) == len(QUERIES)
    assert client.counters()["connections_opened"] == 2


async def _told_by(transport: Transport, node: NodeAddress, seconds: float, head_start: float = 0.0) -> Told:
    told: Told = []
    asked = [(query, lambda answer, query=query: told.append((query, answer))) for query in QUERIES]
    deadline = asyncio.get_running_loop().time() + seconds
    await transport.monitor_all(node, asked, deadline, head_start=head_start)
    return told


def test_who_is_cancelled_is_told_nothing_more_and_the_answers_are_late(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "slow:0.5")
    told: Told = []

    async def give_up(transport: Transport) -> None:
        asked = [(query, lambda answer, query=query: told.append((query, answer))) for query in QUERIES]
        deadline = asyncio.get_running_loop().time() + LONG
        asking = asyncio.ensure_future(transport.monitor_all(node, asked, deadline))
        await asyncio.wait((asking,), timeout=0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    client.call(give_up, LONG)
    deadline = time.monotonic() + LONG
    while client.counters().get("answers_late", 0) < len(QUERIES):
        assert time.monotonic() < deadline
    assert told == []


def test_of_duplicated_answers_the_first_is_told(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "duplicated")
    for _ in range(2):
        told = together(client, node)
        assert reasons(told) == []
        assert len(told) == len(QUERIES)
    assert client.counters()["answers_unexpected"] >= len(QUERIES)


def test_garbage_and_refusals_are_told_as_errors(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "garbage")
    assert reasons(together(client, node)) == ["malformed"] * 4
    simulation.process.clear(0)
    assert reasons(together(client, simulation.node(0))) == []


def test_no_time_is_no_question(simulation: Simulation, client: RuntimeClient, node: NodeAddress) -> None:
    assert reasons(together(client, node, timeout=0.0)) == ["hung"] * 4
    assert simulation.requests(0) == 0


def accepts(node: NodeAddress) -> bool:
    try:
        socket.create_connection((node.host, node.client_port), LONG).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_node_that_is_down_is_told_once_a_question(simulation: Simulation, client: RuntimeClient) -> None:
    node = simulation.node(1)
    simulation.process.set_fault(1, "refused")
    deadline = time.monotonic() + LONG
    while accepts(node):  # libzmq closes its listener when it comes to it
        assert time.monotonic() < deadline
    assert reasons(together(client, node, head_start=SHORT)) == ["refused"] * 4
    simulation.process.clear(1)


def test_what_a_generation_cannot_be_asked_costs_the_others_nothing(
    simulation: Simulation, make_client: MakeClient
) -> None:
    """Of the first, a node that is said to be of generation Z knows nothing but its workers."""
    client = make_client()

    async def ask(transport: Transport) -> list[str]:
        connection = transport._connection(simulation.node(0))  # type: ignore[attr-defined]
        await connection.ready(asyncio.get_running_loop().time() + LONG)
        told: Told = []
        wave = Wave(asyncio.get_running_loop(), asyncio.get_running_loop().time() + LONG)
        connection._send(Generation.Z, "container_stats", lambda answer: told.append(("", answer)), wave)
        await wave.wait()
        return reasons(told)

    assert client.call(ask, LONG) == ["unsupported"]


def test_a_closed_client_tells_so(simulation: Simulation, client: RuntimeClient) -> None:
    async def ask(transport: Transport) -> Told:
        await transport.close()
        return await _told_by(transport, simulation.node(0), LONG)

    told = client.call(ask, LONG)
    assert [type(answer) for _, answer in told] == [ClientClosedError] * 4
