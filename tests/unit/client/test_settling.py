"""What keeps runtimes alive when a connection ends badly: a pause before the next, and the sockets' options.

The pause is made longer than any test, so that a connection which takes it is seen to stand in it, and one
which does not is ready: no time is measured.
"""

from __future__ import annotations

import time

import pytest
import zmq

from clio_client.errors import RuntimeClientError
from clio_client.transport import connection as connection_module
from clio_client.transport.interface import NodeAddress
from clio_client.transport.sockets import MAX_FRAME_BYTES, harden
from tests.unit.client.asking import RuntimeClient
from tests.unit.client.conftest import Simulation
from tests.unit.client.test_zeromq import LONG, SHORT, ZMTP_SIGNATURE, failure, recovers, server, session


@pytest.fixture
def endless_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SETTLE_SECONDS", 600.0)


def check_settles(client: RuntimeClient, node: NodeAddress) -> None:
    """The next connection is not made but waited with."""
    deadline = time.monotonic() + LONG
    problem = ""
    while "stage: settle" not in problem:
        assert time.monotonic() < deadline, problem
        with pytest.raises(RuntimeClientError) as caught:
            client.monitor(node, "worker_stats", SHORT)
        problem = str(caught.value)


@pytest.mark.usefixtures("endless_pause")
def test_after_requests_that_nobody_answered(simulation: Simulation, client: RuntimeClient) -> None:
    node = simulation.node(0)
    session(client, node)
    simulation.process.set_fault(0, "silent")
    assert failure(client, node) == "hung"
    simulation.process.set_fault(0, "refused")
    assert failure(client, node, timeout=LONG) in ("hung", "refused")
    simulation.process.clear(0)
    check_settles(client, node)


@pytest.mark.usefixtures("endless_pause")
def test_after_a_greeting_that_came_late(
    simulation: Simulation, client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SLOW_GREETING_SECONDS", -1.0)
    check_settles(client, simulation.node(0))


@pytest.mark.usefixtures("endless_pause")
def test_after_a_greeting_that_never_came(
    simulation: Simulation, client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "GREETING_SECONDS", 0.1)
    simulation.process.set_fault(1, "hang")
    assert failure(client, simulation.node(1), timeout=LONG) == "hung"
    monkeypatch.undo()
    monkeypatch.setattr(connection_module, "SETTLE_SECONDS", 600.0)
    simulation.process.clear(1)
    check_settles(client, simulation.node(1))


@pytest.mark.usefixtures("endless_pause")
def test_after_a_handshake_that_was_not_finished(
    client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_SECONDS", 0.1 - 1)
    with server(ZMTP_SIGNATURE, stay=True) as node:
        assert failure(client, node, timeout=LONG) == "hung"
        check_settles(client, node)
        client.close()


@pytest.mark.usefixtures("endless_pause")
def test_after_a_probe_that_a_known_runtime_left_unanswered(
    simulation: Simulation, client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = simulation.node(0)
    session(client, node)
    simulation.process.set_fault(0, "refused")
    assert failure(client, node, timeout=LONG) in ("connection_lost", "refused")
    simulation.process.clear(0)
    simulation.process.set_fault(0, "silent")
    monkeypatch.setattr(connection_module, "DETECTION_SECONDS", 0.2)
    deadline = time.monotonic() + LONG
    while failure(client, node, timeout=LONG) == "refused":  # the failure of before answers for a moment
        assert time.monotonic() < deadline
    simulation.process.clear(0)
    check_settles(client, node)


@pytest.mark.usefixtures("endless_pause")
def test_not_after_a_runtime_that_has_ended_as_it_should(
    simulation: Simulation, client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SLOW_GREETING_SECONDS", LONG)  # of a machine that is busy
    node = simulation.node(0)
    session(client, node)
    simulation.process.restart_node(0)
    recovers(client, node)


def test_a_lost_connection_delivers_nothing_after_its_successor() -> None:
    """What a peer does not acknowledge is given up before the next connection could be there (TCP_MAXRT)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        harden(socket)
        assert socket.getsockopt(zmq.TCP_MAXRT) == 10_000  # milliseconds
        assert socket.getsockopt(zmq.LINGER) == 0
        assert socket.getsockopt(zmq.RECONNECT_IVL) == -1
        assert socket.getsockopt(zmq.MAXMSGSIZE) == MAX_FRAME_BYTES
        assert socket.getsockopt(zmq.HANDSHAKE_IVL) == 5_000
        assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
        assert socket.getsockopt(zmq.TCP_KEEPALIVE_IDLE) == 10
        assert socket.getsockopt(zmq.TCP_KEEPALIVE_INTVL) == 5
        assert socket.getsockopt(zmq.TCP_KEEPALIVE_CNT) == 3
