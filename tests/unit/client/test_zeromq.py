"""The ZeroMQ transport over real sockets, against simulated runtimes and worse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from clio_client import errors
from clio_client.errors import RuntimeClientError
from clio_client.protocol.codec import Generation
from clio_client.transport import connection as connection_module
from clio_client.transport.interface import CLIENT_PORT_OFFSET, NodeAddress, NodeSession, Transport
from clio_client.transport.zeromq import ZmqTransport
from tests.ports import free_port
from tests.unit.client.asking import RuntimeClient
from tests.unit.client.conftest import GENERATIONS, MakeClient, Simulation

LONG = 15.0
SHORT = 0.4


def session(client: RuntimeClient, node: NodeAddress, timeout: float = LONG) -> NodeSession:
    async def ask(transport: Transport) -> NodeSession:
        return await transport.session(node, asyncio_time() + timeout)

    return client.call(ask, timeout + 5)


def asyncio_time() -> float:
    import asyncio

    return asyncio.get_running_loop().time()


def failure(
    client: RuntimeClient, node: NodeAddress, query: str = "worker_stats", timeout: float = SHORT
) -> str:
    """Reason of the error that asking ends with, in bounded time."""
    started = time.monotonic()
    with pytest.raises(RuntimeClientError) as caught:
        client.monitor(node, query, timeout)
    assert time.monotonic() - started < timeout + 5
    assert str(caught.value)
    return caught.value.reason


def recovers(client: RuntimeClient, node: NodeAddress) -> None:
    """The same client reaches the node again without being told."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            assert client.monitor(node, "worker_stats", 3.0)
            return
        except RuntimeClientError:
            assert time.monotonic() < deadline, "the node was not reached again"


@pytest.fixture
def quick_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "DETECTION_SECONDS", 0.4)


# --- healthy ------------------------------------------------------------------------------------------


def test_a_healthy_node_answers_everything(simulation: Simulation, client: RuntimeClient) -> None:
    node = simulation.node(0)
    described = simulation.process.describe(0)
    found = session(client, node)
    assert found.generation is Generation.C
    assert found.identity is not None
    assert found.identity.pid == described["pid"]
    assert found.identity.start_ns == described["server_generation"]
    (workers,) = client.monitor(node, "worker_stats", LONG).values()
    assert [w["worker_id"] for w in workers] == list(range(8))
    (samples,) = client.monitor(node, "system_stats:0", LONG).values()
    newest = samples[-1]["event_id"]
    (samples,) = client.monitor(node, f"system_stats:{newest}", LONG).values()
    assert samples[0]["event_id"] == newest
    (pools,) = client.monitor(node, "container_stats", LONG).values()
    device = next(p["pool_id"] for p in pools if p["chimod_name"] == "clio_bdev")
    (stats,) = client.monitor(node, f"pool_stats://{device}:local:stats", LONG).values()
    assert stats["total_capacity"] > 0
    assert client.monitor(node, "nonsense", LONG) == {}


@pytest.mark.usefixtures("quick_detection")
def test_each_generation_is_found_and_spoken(simulation: Simulation, client: RuntimeClient) -> None:
    nodes = {i: simulation.node(i) for i in (0, 3, 4)}
    outcomes = client.monitor_many([(node, "worker_stats") for node in nodes.values()], LONG)
    assert [len(next(iter(o.values()))) for o in outcomes if isinstance(o, dict)] == [8, 8, 8]
    for index, node in nodes.items():
        found = session(client, node)
        assert found.generation is Generation(GENERATIONS.get(index, "C"))
        assert found.identity is not None
        assert found.identity.pid == simulation.process.describe(index)["pid"]


@pytest.mark.parametrize("index", [0, 5, 6])
def test_a_fixed_generation_is_not_probed_for(
    simulation: Simulation, client: RuntimeClient, index: int
) -> None:
    generation = Generation(GENERATIONS.get(index, "C"))
    assert session(client, simulation.node(index, generation)).generation is generation
    assert simulation.process.stats()["probes"] == 0


def test_one_connection_serves_all_questions(simulation: Simulation, client: RuntimeClient) -> None:
    for _ in range(3):
        client.monitor_many([(simulation.node(i), "worker_stats") for i in (0, 1, 2)] * 10, LONG)
    counters = client.counters()
    assert counters["connections_opened"] == counters["connections_open"] == 3
    assert counters["answers_received"] == counters["requests_sent"] == 3 * 2 + 90
    assert "answers_late" not in counters
    assert "answers_unexpected" not in counters


def test_a_runtime_under_another_number_is_the_same_runtime(
    simulation: Simulation, client: RuntimeClient
) -> None:
    node = simulation.node(0)
    client.monitor(node, "worker_stats", LONG)
    client.monitor(NodeAddress(node.host, node.port, 17), "worker_stats", LONG)
    assert client.counters()["connections_opened"] == 1


def test_a_runtime_listed_twice_is_told_so(simulation: Simulation, client: RuntimeClient) -> None:
    client.monitor(simulation.node(0), "worker_stats", LONG)
    with pytest.raises(RuntimeClientError, match=r"same runtime.*list it once"):
        client.monitor(simulation.node(0, Generation.C), "worker_stats", LONG)
    client.monitor(simulation.node(0), "worker_stats", LONG)


# --- faults of a node that is connected --------------------------------------------------------------


@pytest.fixture
def node(simulation: Simulation, client: RuntimeClient) -> NodeAddress:
    """Node 0, connected to."""
    node = simulation.node(0)
    session(client, node)
    return node


def test_a_slow_node_is_waited_for(simulation: Simulation, client: RuntimeClient, node: NodeAddress) -> None:
    simulation.process.set_fault(0, "slow:0.3")
    assert client.monitor(node, "worker_stats", LONG)


def test_a_node_slower_than_its_time_is_hung_and_its_late_answer_harmless(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "slow:1")
    assert failure(client, node) == "hung"
    simulation.process.clear(0)
    assert client.monitor(node, "worker_stats", LONG)
    deadline = time.monotonic() + LONG
    while not client.counters().get("answers_late"):
        assert time.monotonic() < deadline
        client.monitor(node, "get_host_info", LONG)


def test_a_silent_node_costs_the_others_nothing_and_gets_no_more_than_its_share(
    simulation: Simulation, make_client: MakeClient
) -> None:
    client = make_client(max_in_flight=3)
    nodes = [simulation.node(i) for i in (0, 1, 2)]
    for each in nodes:
        session(client, each)
    simulation.process.set_fault(0, "silent")
    simulation.process.reset_stats()
    outcomes = client.monitor_many([(n, "worker_stats") for _ in range(10) for n in nodes], 1.5)
    for outcome, asked in zip(outcomes, nodes * 10, strict=True):
        if asked is nodes[0]:
            assert isinstance(outcome, errors.HungError)
        else:
            assert isinstance(outcome, dict)
    assert simulation.requests(0) == 3
    assert failure(client, nodes[0]) == "hung"
    assert simulation.requests(0) == 3  # the slots stay taken


def test_garbage_is_malformed(simulation: Simulation, client: RuntimeClient, node: NodeAddress) -> None:
    simulation.process.set_fault(0, "garbage")
    for query in ("worker_stats", "container_stats", "system_stats:0"):
        assert failure(client, node, query, LONG) == "malformed"
    simulation.process.clear(0)
    assert client.monitor(node, "worker_stats", LONG)


@pytest.mark.parametrize(
    ("length", "reason"), [(0, "hung"), (71, "hung"), (72, "malformed"), (120, "malformed")]
)
def test_truncated_answers(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress, length: int, reason: str
) -> None:
    simulation.process.set_fault(0, f"truncated:{length}")
    assert failure(client, node, timeout=LONG if reason == "malformed" else SHORT) == reason
    simulation.process.clear(0)
    assert client.monitor(node, "worker_stats", LONG)


def test_duplicated_answers_are_dropped(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "duplicated")
    for _ in range(5):
        assert client.monitor(node, "worker_stats", LONG)
    assert client.counters()["answers_unexpected"] >= 4


def test_answers_to_nobodys_question_are_dropped(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "wrong-id")
    assert failure(client, node) == "hung"
    assert client.counters()["answers_unexpected"] == 1
    simulation.process.clear(0)
    assert client.monitor(node, "worker_stats", LONG)


def test_a_return_code_is_an_error_with_that_code(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "error-rc:4294966296")
    with pytest.raises(errors.QueryFailedError) as caught:
        client.monitor(node, "worker_stats", LONG)
    assert caught.value.return_code == 4294966296
    assert caught.value.reason == "query_failed"


def test_a_restarted_node_is_another_runtime(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    before = session(client, node)
    simulation.process.restart_node(0)
    recovers(client, node)
    after = session(client, node)
    assert after.identity != before.identity
    assert after.identity is not None
    assert after.identity.pid == simulation.process.describe(0)["pid"]
    assert client.counters()["connections_open"] == 1


def failure_when_it_ends(simulation: Simulation, client: RuntimeClient, node: NodeAddress) -> str:
    """Ask node 0, which is silent, end it when it has the request, and tell the reason of the error."""
    before = simulation.requests(0)
    outcome: list[str] = []
    asking = threading.Thread(target=lambda: outcome.append(failure(client, node, timeout=60)))
    asking.start()
    deadline = time.monotonic() + LONG
    while simulation.requests(0) == before:
        assert time.monotonic() < deadline
    simulation.process.set_fault(0, "refused")
    asking.join(LONG)
    (reason,) = outcome
    return reason


def test_what_was_asked_of_a_node_that_ends_is_lost_at_once(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    assert failure_when_it_ends(simulation, client, node) == "connection_lost"
    assert failure(client, node, timeout=LONG) == "refused"
    simulation.process.clear(0)
    recovers(client, node)


def test_a_hung_node_is_hung_also_when_its_connection_ends(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    session(client, node)
    simulation.process.set_fault(0, "silent")
    assert failure(client, node) == "hung"
    assert failure_when_it_ends(simulation, client, node) == "hung"
    assert failure(client, node, timeout=LONG) == "refused"
    simulation.process.clear(0)
    recovers(client, node)


@pytest.mark.parametrize(("fault", "reason"), [("refused", "refused"), ("hang", "hung"), ("non-zmq", "hung")])
def test_a_port_without_a_runtime(
    simulation: Simulation, client: RuntimeClient, fault: str, reason: str
) -> None:
    # An HTTP server waits for a request, and nothing is ever sent to what has not greeted.
    simulation.process.set_fault(1, fault)
    assert failure(client, simulation.node(1)) == reason
    simulation.process.clear(1)
    recovers(client, simulation.node(1))


@pytest.mark.usefixtures("quick_detection")
def test_a_node_that_answers_no_generation_is_unsupported_and_left_alone(
    simulation: Simulation, client: RuntimeClient
) -> None:
    simulation.process.set_fault(2, "silent")
    assert failure(client, simulation.node(2), timeout=LONG) == "unsupported"
    before = simulation.requests(2)
    assert failure(client, simulation.node(2), timeout=LONG) == "unsupported"
    assert simulation.requests(2) == before


@pytest.mark.usefixtures("quick_detection")
def test_a_known_node_that_went_silent_is_hung_not_unsupported(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    simulation.process.restart_node(0)
    reasons = {failure(client, node, timeout=LONG) for _ in range(2)}
    assert reasons <= {"hung", "connection_lost", "refused"}
    assert "hung" in reasons
    simulation.process.clear(0)
    recovers(client, node)


@pytest.mark.usefixtures("quick_detection")
def test_a_fixed_generation_that_is_not_answered_is_hung(
    simulation: Simulation, client: RuntimeClient
) -> None:
    simulation.process.set_fault(1, "silent")
    assert failure(client, simulation.node(1, Generation.C), timeout=LONG) == "hung"


# --- other servers -------------------------------------------------------------------------------------


@contextmanager
def server(greeting: bytes, *, stay: bool) -> Iterator[NodeAddress]:
    """A TCP server that sends ``greeting``, then hangs up or stays."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.sendall(greeting)
            if stay:
                accepted.append(peer)
            else:
                peer.close()

    thread = threading.Thread(target=serve, name="test-server")
    thread.start()
    try:
        yield NodeAddress("127.0.0.1", listener.getsockname()[1] - CLIENT_PORT_OFFSET)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for peer in accepted:
            peer.close()


ZMTP_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


@pytest.mark.parametrize(
    ("greeting", "stay"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", True), (b"", False), (b"\xff\0\0", False), (b"\xff" + b"x" * 20, True),
     (ZMTP_SIGNATURE, False), (ZMTP_SIGNATURE + b"\x03\x01NOPE" + bytes(48), True)],
)  # fmt: skip
def test_a_server_that_is_no_runtime(client: RuntimeClient, greeting: bytes, stay: bool) -> None:
    with server(greeting, stay=stay) as node:
        reason = failure(client, node, timeout=LONG)
        assert reason in ("not_a_runtime", "connection_lost")
        if not greeting.startswith(ZMTP_SIGNATURE):
            assert reason == "not_a_runtime"


def test_a_host_that_does_not_resolve(client: RuntimeClient) -> None:
    for host in ("host..name", "x" * 64 + ".example"):
        assert failure(client, NodeAddress(host), timeout=LONG) == "unresolvable"


# --- reply port and address -----------------------------------------------------------------------------


def ports_of(client: RuntimeClient) -> dict[str, int]:
    async def ports(transport: Transport) -> dict[str, int]:
        assert isinstance(transport, ZmqTransport)
        return dict(transport.reply._bound)

    return client.call(ports, LONG)


def test_exporters_of_one_host_take_the_ports_in_order(
    simulation: Simulation, make_client: MakeClient
) -> None:
    first = free_port(3)
    clients = [make_client(reply_port=first) for _ in range(3)]
    for each in clients:
        assert each.monitor(simulation.node(0), "worker_stats", LONG)
    assert [set(ports_of(each).values()) for each in clients] == [{first}, {first + 1}, {first + 2}]
    for each in clients:  # and they do not disturb each other
        assert each.monitor(simulation.node(0), "worker_stats", LONG)


def test_where_all_fixed_ports_are_taken_any_will_do(simulation: Simulation, make_client: MakeClient) -> None:
    first = free_port(10)
    taken = [socket.create_server(("0.0.0.0", port)) for port in range(first, first + 10)]
    try:
        client = make_client(reply_port=first)
        assert client.monitor(simulation.node(0), "worker_stats", LONG)
        (port,) = ports_of(client).values()
        assert not first <= port < first + 10
    finally:
        for listener in taken:
            listener.close()


def test_only_the_address_of_the_route_is_bound(simulation: Simulation, client: RuntimeClient) -> None:
    client.monitor(simulation.node(0), "worker_stats", LONG)
    assert list(ports_of(client)) == ["127.0.0.1"]


def test_the_reply_address_can_be_set_and_be_a_name(simulation: Simulation, client: RuntimeClient) -> None:
    assert client.monitor(simulation.node(0, reply_address="localhost"), "worker_stats", LONG)
    assert list(ports_of(client)) == ["localhost"]


def test_a_foreign_reply_address_binds_all(client: RuntimeClient) -> None:
    async def bind(transport: Transport) -> int:
        assert isinstance(transport, ZmqTransport)
        return transport.reply.port_for("192.0.2.1")

    port = client.call(bind, LONG)
    with socket.create_connection(("127.0.0.1", port), LONG) as peer:
        assert peer.recv(1) == b"\xff"


def test_a_fixed_port_comes_back_after_a_restart(simulation: Simulation, make_client: MakeClient) -> None:
    port = free_port(1)
    for _ in range(3):
        client = make_client(reply_port=port)
        assert client.monitor(simulation.node(1), "worker_stats", LONG)
        assert set(ports_of(client).values()) == {port}
        client.close()


# --- the end ----------------------------------------------------------------------------------------------


def closes_while_asking(
    client: RuntimeClient, node: NodeAddress, ready: threading.Event | None = None
) -> str:
    """Close the client while a call is under way; returns the reason the call ended with."""
    outcome: list[str] = []

    def ask() -> None:
        try:
            client.monitor(node, "worker_stats", 60)
        except RuntimeClientError as error:
            outcome.append(error.reason)

    asking = threading.Thread(target=ask)
    asking.start()
    assert (ready or threading.Event()).wait(0.3 if ready is None else LONG) or ready is None
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 5
    asking.join(LONG)
    assert not asking.is_alive()
    return outcome[0]


def test_close_while_waiting_for_the_greeting(simulation: Simulation, client: RuntimeClient) -> None:
    simulation.process.set_fault(2, "hang")
    assert closes_while_asking(client, simulation.node(2)) == "client_closed"


def test_close_during_the_handshake(client: RuntimeClient) -> None:
    with server(ZMTP_SIGNATURE, stay=True) as node:
        assert closes_while_asking(client, node) == "client_closed"


def test_close_during_detection(simulation: Simulation, client: RuntimeClient) -> None:
    simulation.process.set_fault(2, "silent")
    assert closes_while_asking(client, simulation.node(2)) == "client_closed"


def test_close_with_a_request_in_flight(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "silent")
    assert closes_while_asking(client, node) == "client_closed"


def test_a_node_that_left_is_disconnected(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    session(client, simulation.node(1))

    async def keep_only(transport: Transport) -> None:
        transport.retain(frozenset({node}))

    client.call(keep_only, LONG)
    assert client.counters()["connections_open"] == 1
    assert client.counters()["connections_closed"] == 1
    client.monitor(node, "worker_stats", LONG)
    client.monitor(simulation.node(1), "worker_stats", LONG)  # and may come back
    assert client.counters()["connections_open"] == 2


def test_the_descriptor_of_a_lost_connection_is_freed(
    simulation: Simulation, client: RuntimeClient, node: NodeAddress
) -> None:
    simulation.process.set_fault(0, "refused")
    assert failure(client, node, timeout=LONG) in ("connection_lost", "refused")
    assert failure(client, node, timeout=LONG) == "refused"
    assert client.counters()["connections_open"] == 0


def test_every_error_has_a_reason_of_its_own() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, RuntimeClientError)]
    reasons = {kind.reason for kind in kinds}
    assert len(reasons) == len(kinds) == 14
    assert all(reason.replace("_", "").isalpha() and reason.islower() for reason in reasons)


def test_no_socket_reconnects_by_itself(client: RuntimeClient) -> None:
    async def options(transport: Transport) -> tuple[int, int]:
        assert isinstance(transport, ZmqTransport)
        socket = transport._requests._socket
        return socket.getsockopt(zmq.RECONNECT_IVL), socket.getsockopt(zmq.LINGER)

    assert client.call(options, LONG) == (-1, 0)
