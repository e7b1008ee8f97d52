"""The default transport: ZeroMQ and msgpack, straight to every node, from one event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

import zmq

from exporter.runtime import codec
from exporter.runtime.codec import Generation
from exporter.runtime.connection import NodeConnection
from exporter.runtime.errors import ClientClosedError, DuplicateNodeError
from exporter.runtime.requests import Owner, RequestCounter
from exporter.runtime.sockets import ReplySocket, RequestSocket
from exporter.runtime.transport import MonitorAnswer, NodeAddress, NodeSession

DEFAULT_REPLY_PORT: Final = 9778
DEFAULT_MAX_IN_FLIGHT: Final = 4
_MAX_SOCKETS: Final = 1 << 16


class ZmqTransport:
    """Asks nodes over ZeroMQ. Create it and call it on one event loop only."""

    def __init__(
        self, *, reply_port: int = DEFAULT_REPLY_PORT, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.ids = RequestCounter()
        self.max_in_flight = max_in_flight
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self._counters: Counter[str] = Counter()
        self._connections: dict[NodeAddress, NodeConnection] = {}
        self._by_endpoint: dict[str, NodeConnection] = {}
        self.registry: dict[int, Owner] = {}
        self._requests = RequestSocket(self.context, self.loop, self._on_event, self._on_routed_answer)
        self.reply = ReplySocket(self.context, self.loop, reply_port, self._on_answer)
        self._closed = False

    # --- Transport --------------------------------------------------------------------------------

    async def session(self, node: NodeAddress, deadline: float) -> NodeSession:
        """See `Transport.session`."""
        return await self._connection(node).ready(deadline)

    async def monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        """See `Transport.monitor`."""
        return await self._connection(node).monitor(query, deadline)

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        """See `Transport.retain`."""
        for node in [node for node in self._connections if node not in nodes]:
            self._connections.pop(node).close(ClientClosedError(f"{node} is no longer a member"))

    def counters(self) -> Mapping[str, int]:
        """Requests sent, answers by fate, connections by event; and how many connections are open."""
        return {
            **dict(self._counters),
            "connections_open": sum(c.session is not None for c in tuple(self._connections.values())),
        }

    async def close(self) -> None:
        """See `Transport.close`."""
        if self._closed:
            return
        self._closed = True
        error = ClientClosedError("the client is closed")
        attempts = [connection.close(error) for connection in self._connections.values()]
        self._connections.clear()
        # Attempts own sockets of their own; the context cannot end before those are closed.
        await asyncio.gather(*(a for a in attempts if a is not None), return_exceptions=True)
        self._requests.close()
        self.reply.close()
        self.context.destroy(0)

    # --- what connections use ---------------------------------------------------------------------

    def connect(self, connection: NodeConnection, endpoint: str, identity: bytes) -> bytes:
        """Open a connection whose events go to ``connection``; returns its routing id.

        Raises:
            DuplicateNodeError: another member already has a connection to this endpoint.
        """
        other = self._by_endpoint.get(endpoint)
        if other is not None and other is not connection:
            raise DuplicateNodeError(
                f"{connection.node} and {other.node} are the same runtime ({endpoint}); list it once"
            )
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
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = NodeConnection(self, node)
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
        owner = None if request_id is None else self.registry.get(request_id)
        if owner is None or request_id is None:
            self._counters["answers_unexpected"] += 1
        elif owner.on_answer(request_id, frame):
            self._counters["answers_received"] += 1
        else:
            self._counters["answers_late"] += 1
