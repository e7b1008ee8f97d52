"""The default transport: ZeroMQ and msgpack, straight to every node, from one event loop."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import zmq

from clio_client.errors import ClientClosedError
from clio_client.protocol import codec
from clio_client.protocol.codec import Generation, RuntimeIdentity
from clio_client.transport.connection import NodeConnection
from clio_client.transport.identity import host_mark
from clio_client.transport.interface import Asked, MonitorAnswer, NodeAddress, NodeSession
from clio_client.transport.requests import InFlight, RequestCounter
from clio_client.transport.sockets import ReplySocket, RequestSocket

DEFAULT_REPLY_PORT: Final = 9778
DEFAULT_MAX_IN_FLIGHT: Final = 8
_MAX_SOCKETS: Final = 1 << 16


class ZmqTransport:
    """Asks nodes over ZeroMQ. Create it and call it on one event loop only."""

    def __init__(
        self,
        *,
        role: str = "client",
        reply_port: int = DEFAULT_REPLY_PORT,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
    ) -> None:
        """``role`` names the program in the identities it shows (`identity.routing_identity`).

        Two transports of one process, like two processes, must have different reply ports; the second one
        finds the first one's port taken and steps on by itself.
        """
        self.role = role
        self.host = host_mark()
        self.loop = asyncio.get_running_loop()
        self.ids = RequestCounter()
        self.max_in_flight = max_in_flight
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self._counters: Counter[str] = Counter()
        self.connections: dict[NodeAddress, NodeConnection] = {}
        self.met: defaultdict[RuntimeIdentity, set[NodeConnection]] = defaultdict(set)
        self._by_endpoint: dict[str, NodeConnection] = {}
        self.registry: dict[int, InFlight] = {}
        self._requests = RequestSocket(self.context, self.loop, self._on_event, self._on_routed_answer)
        self.reply = ReplySocket(self.context, self.loop, reply_port, self._on_answer)
        self._closed = False

    # --- Transport --------------------------------------------------------------------------------

    async def session(self, node: NodeAddress, deadline: float) -> NodeSession:
        """Connect when needed; which runtime answers there."""
        return await self._connection(node).ready(deadline)

    async def monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        """Ask one query of one node."""
        return await self._connection(node).monitor(query, deadline)

    async def monitor_all(
        self, node: NodeAddress, asked: Sequence[Asked], deadline: float, *, head_start: float = 0.0
    ) -> None:
        """Ask several queries of one node together: one task, future and timer for all of them."""
        try:
            connection = self._connection(node)
        except ClientClosedError as error:
            for _, answered in asked:
                answered(error)
            return
        await connection.monitor_all(asked, deadline, head_start)

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        """Close connections to every node but these."""
        for node in [node for node in self.connections if node not in nodes]:
            self.connections.pop(node).close(ClientClosedError(f"{node} is no longer a member"))

    def counters(self) -> Mapping[str, int]:
        """Requests sent, answers by fate, connections by event; and how many connections are open."""
        return {
            **dict(self._counters),
            "connections_open": sum(c.session is not None for c in tuple(self.connections.values())),
        }

    async def close(self) -> None:
        """Close sockets; pending calls fail with `ClientClosedError`."""
        if self._closed:
            return
        self._closed = True
        error = ClientClosedError("the client is closed")
        attempts = [connection.close(error) for connection in self.connections.values()]
        self.connections.clear()
        # Attempts own sockets of their own; the context cannot end before those are closed.
        await asyncio.gather(*(a for a in attempts if a is not None), return_exceptions=True)
        self._requests.close()
        self.reply.close()
        self.context.destroy(0)

    # --- what connections use ---------------------------------------------------------------------

    def connected_to(self, endpoint: str) -> NodeConnection | None:
        """Whose connection leads to this endpoint."""
        return self._by_endpoint.get(endpoint)

    def connect(self, connection: NodeConnection, endpoint: str, identity: bytes) -> bytes:
        """Open a connection whose events go to ``connection``, the only one to this endpoint.

        Returns its routing id.
        """
        self._by_endpoint[endpoint] = connection
        self._counters["connections_opened"] += 1
        return self._requests.connect(endpoint, identity)

    def disconnect(self, connection: NodeConnection) -> None:
        """Close the connection to the endpoint of ``connection``, if it has one."""
        for endpoint, owner in list(self._by_endpoint.items()):
            if owner is connection:
                del self._by_endpoint[endpoint]
                self._counters["connections_closed"] += 1
                self._requests.disconnect(endpoint)

    def send(self, routing_id: bytes, frame: bytes) -> None:
        """Send a request."""
        self._counters["requests_sent"] += 1
        self._requests.send(routing_id, frame)

    # --- events -----------------------------------------------------------------------------------

    def _connection(self, node: NodeAddress) -> NodeConnection:
        if self._closed:
            raise ClientClosedError("the client is closed")
        connection = self.connections.get(node)
        if connection is None:
            connection = self.connections[node] = NodeConnection(self, node)
        elif node.index >= 0:
            connection.node = node  # it may have another number since the hostfile has changed
        return connection

    def _on_event(self, event: zmq.Event, endpoint: str, value: int) -> None:
        connection = self._by_endpoint.get(endpoint)
        if connection is not None:
            connection.on_event(event, value)

    def _on_routed_answer(self, _routing_id: bytes, frame: bytes) -> None:
        # Answers on the request socket come from generations A and Z, whose ids lie at different offsets.
        for generation in (Generation.A, Generation.Z):
            request_id = codec.peek_request_id(frame, generation)
            if request_id in self.registry:
                self._deliver(request_id, frame)
                return
        self._counters["answers_unexpected"] += 1

    def _on_answer(self, frame: bytes) -> None:
        self._deliver(codec.peek_request_id(frame), frame)

    def _deliver(self, request_id: int | None, frame: bytes) -> None:
        requests = None if request_id is None else self.registry.get(request_id)
        if requests is None or request_id is None:
            self._counters["answers_unexpected"] += 1
        elif requests.answered(request_id, frame):
            self._counters["answers_received"] += 1
        else:
            self._counters["answers_late"] += 1
