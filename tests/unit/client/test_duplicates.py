"""One runtime under two members: which of them is shown, over real sockets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from clio_client.client import RuntimeClient
from clio_client.errors import DuplicateNodeError, RuntimeClientError
from clio_client.transport.duplicates import rank
from clio_client.transport.interface import NodeAddress, Transport
from tests.unit.client.conftest import MakeClient, Simulation
from tests.unit.client.forwarder import Forwarder

LONG = 15.0

Alias = Callable[[int, int], NodeAddress]


@pytest.fixture
def alias(simulation: Simulation) -> Iterator[Alias]:
    """Gives simulated node ``index`` one more address, there to be called node ``number``."""
    with contextlib.ExitStack() as stack:

        def make(index: int, number: int) -> NodeAddress:
            return stack.enter_context(Forwarder(simulation.node(index))).node(number)

        yield make


def numbered(simulation: Simulation, index: int, number: int) -> NodeAddress:
    address = simulation.node(index)
    return NodeAddress(address.host, address.port, number)


def scrape(client: RuntimeClient, nodes: Sequence[NodeAddress]) -> list[str]:
    """`up`, or the reason why not, of each node; all are asked at once."""
    outcomes = client.monitor_many([(node, "worker_stats") for node in nodes], LONG)
    return [o.reason if isinstance(o, RuntimeClientError) else "up" for o in outcomes]


def test_the_members_own_number_wins_then_the_lowest() -> None:
    members = [
        NodeAddress("a", 1, 3),
        NodeAddress("b", 1, 1),
        NodeAddress("c", 1, 2),
        NodeAddress("d", 1, -1),
    ]
    by_claim = sorted(members, key=lambda m: rank(m, 2))
    assert [m.host for m in by_claim] == ["c", "b", "a", "d"]
    assert min(members, key=lambda m: rank(m, None)).host == "b"


def test_a_session_says_who_the_runtime_is(simulation: Simulation, client: RuntimeClient) -> None:
    node = simulation.node(1)

    async def session(transport: Transport) -> tuple[int | None, str | None]:
        import asyncio

        found = await transport.session(node, asyncio.get_running_loop().time() + LONG)
        return found.node_id, found.hostname

    assert client.call(session, LONG) == (1, simulation.process.describe(1)["hostname"])


@pytest.mark.parametrize("order", [1, -1])
def test_two_addresses_of_one_runtime_are_shown_once(
    simulation: Simulation, client: RuntimeClient, alias: Alias, order: int
) -> None:
    right, other = simulation.node(0), alias(0, 5)
    nodes = [right, other][::order]
    for _ in range(3):
        assert scrape(client, nodes) == ["up", "duplicate"][::order]
    # The other one was tried once, and not at each scrape.
    assert client.counters()["connections_opened"] == 2
    assert client.counters()["connections_open"] == 1
    with pytest.raises(DuplicateNodeError, match="same runtime") as caught:
        client.monitor(other, "worker_stats", LONG)
    assert str(right) in str(caught.value)
    assert str(other) in str(caught.value)
    assert "host:port" in str(caught.value)


def test_many_addresses_of_one_runtime_are_shown_once(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    nodes = [simulation.node(0), *(alias(0, number) for number in range(1, 12))]
    for _ in range(2):
        assert scrape(client, nodes) == ["up"] + ["duplicate"] * 11


def test_without_its_own_number_the_lowest_shows_it(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    nodes = [alias(2, 7), numbered(simulation, 2, 4), alias(2, 9), alias(2, -1)]
    for _ in range(3):
        assert scrape(client, nodes) == ["duplicate", "up", "duplicate", "duplicate"]


def test_who_comes_second_with_the_right_number_takes_over_and_nobody_is_shown_twice(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    right, other = simulation.node(0), alias(0, 5)
    assert scrape(client, [other]) == ["up"]
    # What is asked for now may have the other one's answers in it already.
    assert scrape(client, [right]) == ["duplicate"]
    assert scrape(client, [other]) == ["duplicate"]
    time.sleep(0.25)
    for _ in range(3):
        assert scrape(client, [other, right]) == ["duplicate", "up"]
    assert client.counters()["connections_open"] == 1


def test_one_endpoint_under_two_members_is_settled_the_same_way(
    simulation: Simulation, make_client: MakeClient
) -> None:
    right = simulation.node(0)
    other = NodeAddress(right.host, right.port, 4, reply_address="127.0.0.1")
    for nodes, expected in (([right, other], ["up", "duplicate"]), ([other, right], ["duplicate", "up"])):
        client = make_client()
        for _ in range(3):
            assert scrape(client, nodes) == expected


def test_the_other_one_is_tried_at_once_when_the_shown_one_is_lost(
    simulation: Simulation, client: RuntimeClient
) -> None:
    other = numbered(simulation, 0, 5)
    with Forwarder(simulation.node(0)) as forwarder:
        right = forwarder.node(0)
        assert scrape(client, [right, other]) == ["up", "duplicate"]
    deadline = time.monotonic() + LONG
    while (found := scrape(client, [right, other])) != ["refused", "up"]:
        assert time.monotonic() < deadline, found


def test_a_member_that_left_frees_the_other_one(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    right, other = simulation.node(0), alias(0, 5)
    assert scrape(client, [right, other]) == ["up", "duplicate"]

    async def keep(transport: Transport) -> None:
        transport.retain(frozenset({other}))

    client.call(keep, LONG)
    assert scrape(client, [other]) == ["up"]


def test_a_target_that_is_no_member_never_takes_a_runtime_away(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    member, foreign = alias(0, 0), numbered(simulation, 0, -1)
    assert scrape(client, [member]) == ["up"]
    assert scrape(client, [foreign]) == ["duplicate"]
    assert scrape(client, [member]) == ["up"]


def test_a_member_takes_a_runtime_from_a_target_that_is_none_without_a_gap(
    simulation: Simulation, make_client: MakeClient, alias: Alias
) -> None:
    for member in (
        alias(0, 3),
        NodeAddress(simulation.node(0).host, simulation.base_port, 3, None, "127.0.0.1"),
    ):
        client = make_client()
        foreign = numbered(simulation, 0, -1)
        assert scrape(client, [foreign]) == ["up"]
        assert scrape(client, [member]) == ["up"]
        assert scrape(client, [foreign]) == ["duplicate"]


def test_a_new_number_does_not_make_a_new_connection(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    first, other = numbered(simulation, 0, 3), alias(0, 5)
    assert scrape(client, [first, other]) == ["up", "duplicate"]
    assert scrape(client, [simulation.node(0), other]) == ["up", "duplicate"]
    assert client.counters()["connections_opened"] == 2


def test_a_restarted_runtime_is_shown_under_the_same_member(
    simulation: Simulation, client: RuntimeClient, alias: Alias
) -> None:
    right, other = simulation.node(2), alias(2, 5)
    assert scrape(client, [right, other]) == ["up", "duplicate"]
    simulation.process.restart_node(2)
    deadline = time.monotonic() + LONG
    while (found := scrape(client, [right, other])) != ["up", "duplicate"]:
        assert found.count("up") <= 1
        assert found[1] != "up"
        assert time.monotonic() < deadline, found


def test_programs_and_addresses_at_once_hurt_nobody(
    simulation: Simulation, make_client: MakeClient, alias: Alias
) -> None:
    nodes = [simulation.node(0), alias(0, 1), alias(0, 2)]
    clients = [make_client(role=role) for role in ("exporter", "exporter", "control-api", "scrape")]
    for _ in range(3):
        for client in clients:
            assert scrape(client, nodes) == ["up", "duplicate", "duplicate"]
