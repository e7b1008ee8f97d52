"""A runtime's own answers, of any version, asked with the frames its own client was recorded to send.

Patched are only the request id (the task's `net_key`, in header and body), the port the runtime dials
back to and, in place of the recorded `worker_stats`, the text of the query.
"""

from __future__ import annotations

import secrets
import struct
import time
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

from tests.paths import FIXTURES

FRAMES = FIXTURES
_RECORDED = "native_monitor_worker_stats.request.bin"
_QUERY = b"worker_stats"
_TYPE = 84


@dataclass(frozen=True)
class _Offsets:
    """Where the generation has what is patched, in bytes from the start of the frame."""

    key: int
    body: int
    body_key: int
    reply_port: int | None = None


_OFFSETS = {
    "C": _Offsets(key=64, body=113, body_key=113 + 32, reply_port=85),
    "B": _Offsets(key=64, body=97, body_key=97 + 32, reply_port=85),
    "A": _Offsets(key=64, body=93, body_key=93 + 32),
    "Z": _Offsets(key=52, body=81, body_key=81 + 36),
}
_WORKER_Z = struct.Struct("<QIIIIIIBBI")
_WORKER_Z_FIELDS = (
    "num_tasks_processed",
    "num_queued_tasks",
    "num_blocked_tasks",
    "num_periodic_tasks",
    "num_retry_tasks",
    "suspend_period_us",
    "idle_iterations",
    "is_running",
    "is_active",
    "worker_id",
)


class NativeClient:
    """Asks one runtime of `version` on `host`:`client_port`; use it as a context manager."""

    def __init__(self, version: str, generation: str, host: str, client_port: int) -> None:
        self._offsets = _OFFSETS[generation]
        self._generation = generation
        self._frame = (FRAMES / version / _RECORDED).read_bytes()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._replies = self._context.socket(zmq.ROUTER)
        self._replies.setsockopt(zmq.LINGER, 0)
        self._reply_port = self._replies.bind_to_random_port("tcp://127.0.0.1")
        self._requests = self._context.socket(zmq.DEALER)
        self._requests.setsockopt(zmq.LINGER, 0)
        self._requests.setsockopt(zmq.RECONNECT_IVL, -1)
        # A runtime aborts when an identity is used twice, so this one is nobody's.
        identity = f"127.0.0.1:{self._reply_port}:{secrets.token_hex(4)}"
        self._requests.setsockopt(zmq.ROUTING_ID, identity.encode())
        self._requests.connect(f"tcp://{host}:{client_port}")

    def __enter__(self) -> NativeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, query: str = "worker_stats", seconds: float = 10.0) -> Any:
        """The decoded document of the node's container; None when there is none."""
        key = secrets.randbits(62) + 1
        self._requests.send_multipart([b"", self._request(key, query.encode())])
        deadline = time.monotonic() + seconds
        source = self._replies if self._offsets.reply_port is not None else self._requests
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer to {query} in {seconds} s"
            if source.poll(int(left * 1000) + 1):
                frame = source.recv_multipart()[-1]
                if struct.unpack_from("<Q", frame, self._offsets.key)[0] == key:
                    return self._document(frame, query)

    def _request(self, key: int, query: bytes) -> bytes:
        at = self._offsets
        frame = bytearray(self._frame)
        if self._generation != "Z":
            assert frame.endswith(struct.pack("<Q", len(_QUERY)) + _QUERY)
            frame[-8 - len(_QUERY) :] = struct.pack("<Q", len(query)) + query
            struct.pack_into("<Q", frame, at.body - 8, len(frame) - at.body)
        for offset in (at.key, at.body_key):
            struct.pack_into("<Q", frame, offset, key)
        if at.reply_port is not None:
            struct.pack_into("<I", frame, at.reply_port, self._reply_port)
        return bytes(frame)

    def _document(self, frame: bytes, query: str) -> Any:
        body = frame[self._offsets.body :]
        return_code, _completer, count = struct.unpack_from("<IIQ", body)
        assert return_code == 0, f"{query}: return code {return_code}"
        if self._generation == "Z":
            rows = [_WORKER_Z.unpack_from(body, 16 + index * _WORKER_Z.size) for index in range(count)]
            return [dict(zip(_WORKER_Z_FIELDS, row, strict=True)) for row in rows]
        if count == 0:
            return None
        assert count == 1
        (length,) = struct.unpack_from("<Q", body, 20)
        assert len(body) == 28 + length
        return msgpack.unpackb(body[28:])
