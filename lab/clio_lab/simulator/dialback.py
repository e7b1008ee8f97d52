"""The connections that nodes open to their clients' reply sockets.

A real runtime has one DEALER for each of them. Here one ROUTER holds them all, because a socket of its own
for each of thousands of nodes costs a file descriptor and a wake-up more. On the wire the two differ only
in the socket type in the handshake. Every connection has the identity and the source address of its node.
"""

from __future__ import annotations

import errno
from itertools import count
from typing import NamedTuple

import zmq

RECONNECT_MS = 100
"""How often a runtime (2.3.2) dials a client again that has gone."""


class DialBack(NamedTuple):
    """One connection: the name under which it is sent to, and its endpoint."""

    route: bytes
    endpoint: str


class DialBacks:
    """All dial-back connections of a simulation."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], nodes: int) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        # Thousands of nodes that dial a client that has gone ten times a second would fill the machine.
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, max(RECONNECT_MS, nodes))
        self._numbers = count(1)

    def open(self, source: str, identity: str, host: str, port: int) -> DialBack:
        """Connect from ``source`` as ``identity``; :class:`zmq.ZMQError` when ``host`` is no address."""
        link = DialBack(b"%d" % next(self._numbers), f"tcp://{source}:0;{host}:{port}")
        # libzmq takes both options from the socket at the time of the connect.
        self._socket.setsockopt(zmq.ROUTING_ID, identity.encode())
        self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, link.route)
        self._socket.connect(link.endpoint)
        return link

    def send(self, link: DialBack, frame: bytes) -> None:
        """Send an answer; it is dropped where the client has not read a thousand others."""
        self._socket.send(link.route, zmq.NOBLOCK | zmq.SNDMORE)
        self._socket.send(b"", zmq.NOBLOCK | zmq.SNDMORE)
        self._socket.send(frame, zmq.NOBLOCK)

    def close_link(self, link: DialBack) -> None:
        """Close one connection and drop what was not sent."""
        try:
            self._socket.disconnect(link.endpoint)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise  # two links of a node to one port share an endpoint and are closed together

    def close(self) -> None:
        """Close all connections."""
        self._socket.close()
