"""ZeroMQ sockets on an asyncio loop: one ROUTER for all requests, one DEALER for all dial-backs.

A ROUTER may connect to any number of nodes, each under a routing id of our choosing, and one monitor
reports the connections of all of them; so a thousand nodes cost a thousand TCP connections, not a
thousand sockets. libzmq never reconnects by itself (RECONNECT_IVL -1): a silent reconnect could reach
a restarted runtime that speaks another generation, with frames that hurt it.

The reply socket is a bound DEALER, not a ROUTER: a ROUTER refuses a second runtime with the same
``hostname:pid`` (containers!), a DEALER does not look at identities at all.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable, Mapping
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from clio_client.errors import ConnectionLostError, TransportUnavailableError
from clio_client.logs import get_logger

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Largest answer accepted; a full ring is about 0.3 MB, ``container_stats`` 45 KB."""

HANDSHAKE_SECONDS: Final = 5.0

_KEEPALIVE_IDLE_S: Final = 10
_KEEPALIVE_INTERVAL_S: Final = 5
_KEEPALIVE_COUNT: Final = 3
_UNACKED_MS: Final = 10_000
_BATCH: Final = 256
# As plain numbers: pyzmq's flags cost as much to combine as a message to send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_FIXED_PORTS: Final = 10

_log = get_logger(__name__)


def harden(socket: zmq.Socket[bytes]) -> None:
    """Options every socket of ours has: bounded frames, no lingering, dead peers found by TCP.

    Data a peer does not acknowledge is dropped by the kernel after 10 s, so that nothing of a lost
    connection can arrive after its successor (wire protocol, section 1: that aborts the runtime).
    """
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_COUNT)
    socket.setsockopt(zmq.TCP_MAXRT, _UNACKED_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_SECONDS * 1000))
    socket.setsockopt(zmq.RECONNECT_IVL, -1)


class Receiver:
    """Feeds every message of a ZeroMQ socket to a callback on the loop.

    The socket's descriptor is edge-triggered: after any use of the socket, call `poke`, or a message
    that arrived meanwhile may wait for the next one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[bytes]], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._on_message = on_message
        self._poked = False
        self._closed = False
        self._fd = int(socket.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._drain)
        self.poke()

    def poke(self) -> None:
        """Look for messages on the loop's next turn."""
        if not self._poked and not self._closed:
            self._poked = True
            self._loop.call_soon(self._drain_poked)

    def _drain_poked(self) -> None:
        self._poked = False
        self._drain()

    def _drain(self) -> None:
        for _ in range(_BATCH):
            if self._closed:
                return
            try:
                parts = self._socket.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            self._on_message(parts)
        self.poke()

    def close(self) -> None:
        """Stop listening; the socket itself stays the caller's."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)


ConnectionEvents = Callable[[zmq.Event, str, int], None]
"""Called with (event, endpoint, value); value is the descriptor for CONNECTED and DISCONNECTED."""


class RequestSocket:
    """The ROUTER all requests leave by, with the events of its connections."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        loop: asyncio.AbstractEventLoop,
        on_event: ConnectionEvents,
        on_answer: Callable[[bytes, bytes], None],
    ) -> None:
        self._on_event = on_event
        self._on_answer = on_answer
        self._routing_ids = itertools.count(1)
        self._socket = context.socket(zmq.ROUTER)
        harden(self._socket)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_CONNECTED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CLOSED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._events = Receiver(loop, self._monitor, self._event)
        self._answers = Receiver(loop, self._socket, self._answer)

    def connect(self, endpoint: str, identity: bytes) -> bytes:
        """Open a connection under ``identity``; returns the routing id requests to it carry.

        Routing ids are never used twice: libzmq aborts the process on a duplicate.
        """
        routing_id = b"n%d" % next(self._routing_ids)
        self._socket.setsockopt(zmq.ROUTING_ID, identity)
        self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, routing_id)
        self._socket.connect(endpoint)
        self._answers.poke()
        return routing_id

    def disconnect(self, endpoint: str) -> None:
        """Close a connection; one that libzmq already gave up is no error."""
        try:
            self._socket.disconnect(endpoint)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise
        self._answers.poke()

    def send(self, routing_id: bytes, frame: bytes) -> None:
        """Hand a request to the connection.

        Raises:
            ConnectionLostError: the connection is gone or its queue is full.
        """
        try:
            self._socket.send(routing_id, _NOBLOCK_MORE)
            self._socket.send(b"", _NOBLOCK_MORE)
            self._socket.send(frame, _NOBLOCK)
        except zmq.ZMQError as error:
            raise ConnectionLostError(f"request could not be sent: {error}") from error
        finally:
            self._answers.poke()

    def _event(self, parts: list[bytes]) -> None:
        event = parse_monitor_message(parts)
        self._on_event(
            zmq.Event(event["event"]), event["endpoint"].decode(errors="replace"), int(event["value"])
        )

    def _answer(self, parts: list[bytes]) -> None:
        self._on_answer(parts[0], parts[-1])

    def close(self) -> None:
        """Close the socket and its monitor."""
        self._events.close()
        self._answers.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)


class ReplySocket:
    """The DEALER that runtimes of generations B and C dial back to.

    It binds exactly the local addresses that nodes need, each on the fixed port; when another process
    has it, on one of the nine ports above it, and only then on a random one: a runtime never closes
    a dial-back, so ports that come back are kinder to it than ports that do not.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        loop: asyncio.AbstractEventLoop,
        port: int,
        on_answer: Callable[[bytes], None],
    ) -> None:
        self._port = port
        self._bound: dict[str, int] = {}
        self._socket = context.socket(zmq.DEALER)
        harden(self._socket)
        self._receiver = Receiver(loop, self._socket, lambda parts: on_answer(parts[-1]))

    def port_for(self, address: str) -> int:
        """Port under which ``address`` receives answers, bound on first use.

        An address that is not of this host (a NAT's outer address) is served by binding all.

        Raises:
            TransportUnavailableError: nothing could be bound.
        """
        port = self._bound.get(address)
        if port is None:
            port = self._bound[address] = self._bind(address)
        return port

    def endpoints(self) -> Mapping[str, int]:
        """Where answers arrive by now: port by address; one that is not this host's is there with 0.0.0.0."""
        return dict(self._bound)

    def _bind(self, address: str) -> int:
        candidates = [self._port + step for step in range(_FIXED_PORTS) if self._port + step <= 0xFFFF]
        for port in [*candidates, 0] if self._port else [0]:
            try:
                self._socket.bind(f"tcp://{address}:{port or '*'}")
            except zmq.ZMQError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV) and address != "0.0.0.0":  # noqa: S104
                    return self.port_for("0.0.0.0")  # noqa: S104 - every address, because ours is not local
                raise TransportUnavailableError(
                    f"cannot bind the reply socket to {address}:{port}: {error.strerror}. "
                    "Set --runtime.reply-address to an address of this host, or --runtime.reply-port"
                ) from error
            endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self._receiver.poke()
            bound = int(endpoint.rsplit(":", 1)[1])
            if self._port and bound != self._port:
                _log.warning(
                    "the reply port is taken; runtimes must reach another one",
                    address=address,
                    wanted=self._port,
                    port=bound,
                )
            return bound
        raise TransportUnavailableError(f"no free port for the reply socket on {address}")

    def close(self) -> None:
        """Close the socket."""
        self._receiver.close()
        self._socket.close(0)
