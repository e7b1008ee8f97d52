"""A runtime's own answers, by recorded request frames and nothing of the exporter's.

The frames were recorded from a native client of 2.3.2. Patched are only the request id (the task's
`net_key`, in the header and in the body), the port the runtime dials back to, and, for a pool of
which no request was recorded, its id in the query text.
"""

from __future__ import annotations

import struct
import time
from typing import Any

import msgpack
import zmq

from tests.paths import FIXTURES

FRAMES = FIXTURES / "2.3.2"

_NET_KEY = 64
_METHOD = 80
_MONITOR = 9
_REPLY_PORT = 85
_BODY = 113
_BODY_NET_KEY = _BODY + 8 + 24


class RawRuntime:
    """Asks nodes directly; one identity and one fixed reply port for all of them."""

    def __init__(self, reply_port: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._reply_port = reply_port
        self._replies = self._context.socket(zmq.ROUTER)
        self._replies.setsockopt(zmq.LINGER, 0)
        self._replies.bind(f"tcp://127.0.0.1:{reply_port}")
        self._requests: dict[tuple[str, int], zmq.Socket[bytes]] = {}
        self._key = time.time_ns() & 0x7FFF_FFFF_FFFF

    def __enter__(self) -> RawRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, node: tuple[str, int], name: str, pool_id: str | None = None, seconds: float = 10.0) -> Any:
        """The decoded answer of `node` (host, client port); None when the runtime has nothing to say.

        `name` is that of a recorded frame. `pool_id` replaces the pool in a `pool_stats` query.
        """
        frame = bytearray((FRAMES / f"{name}.request.bin").read_bytes())
        if pool_id is not None:
            recorded = b"pool_stats://301.0:local:stats"
            at = frame.index(recorded)
            query = f"pool_stats://{pool_id}:local:stats".encode()
            frame[at - 8 :] = struct.pack("<Q", len(query)) + query
            frame[_BODY - 8 : _BODY] = struct.pack("<Q", len(frame) - _BODY)
        self._key += 1
        for at in (_NET_KEY, _BODY_NET_KEY):
            struct.pack_into("<Q", frame, at, self._key)
        struct.pack_into("<I", frame, _REPLY_PORT, self._reply_port)
        self._request_socket(node).send_multipart([b"", bytes(frame)])
        return self._result(name, self._key, seconds)

    def _request_socket(self, node: tuple[str, int]) -> zmq.Socket[bytes]:
        socket = self._requests.get(node)
        if socket is None:
            socket = self._requests[node] = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            socket.setsockopt(zmq.ROUTING_ID, f"127.0.0.1:{self._reply_port}:truth".encode())
            socket.connect(f"tcp://{node[0]}:{node[1]}")
        return socket

    def _result(self, name: str, key: int, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"the runtime did not answer {name} in {seconds} s"
            if not self._replies.poll(int(left * 1000) + 1):
                continue
            _server, _empty, frame = self._replies.recv_multipart()
            if request_id(frame) == key:
                break
        return decode(frame)


def request_id(frame: bytes) -> int:
    """The id that a request and its answer share."""
    key: int = struct.unpack_from("<Q", frame, _NET_KEY)[0]
    return key


def query_of(frame: bytes) -> str | None:
    """The query of a Monitor request; None for other requests."""
    if struct.unpack_from("<I", frame, _METHOD)[0] != _MONITOR:
        return None
    return frame[_BODY + 128 :].decode()


def decode(frame: bytes) -> Any:
    """The document of an answer to Monitor; None when it has none."""
    return_code, _completer, count = struct.unpack_from("<IIQ", frame, _BODY)
    assert return_code == 0, f"return code {return_code}"
    if not count:
        return None
    assert count == 1
    (length,) = struct.unpack_from("<Q", frame, _BODY + 20)
    document = frame[_BODY + 28 :]
    assert len(document) == length
    return msgpack.unpackb(document)
