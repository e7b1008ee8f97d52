"""A client of the wire protocol, bare, so that the simulator is not tested with the exporter's codec."""

from __future__ import annotations

import struct
from itertools import count

import msgpack
import zmq

VERSION = {"C": "2.3.2", "B": "2.2.1", "A": "2.1.0"}
BODY_AT = {"C": 113, "B": 97, "A": 93}
CONNECT, MONITOR = 16, 9

_keys = count(1)
_identities = count(1)


def build(
    generation: str,
    method: int,
    query: bytes | None,
    key: int,
    reply_port: int,
    *,
    routing: int = 0,
    targets: tuple[int, ...] = (0, 0xFFFFFFFF, 0, 0, 0, 0),
    pool: tuple[int, int] = (1, 0),
    records: int = 1,
    zero_body_id: bool = False,
    kind: int = 0,
) -> bytes:
    """A request's metadata frame."""
    task = struct.pack("<6IQ", 4711, 0, key & 0xFFFFFFFF, 0, key & 0xFFFFFFFF, 0, key)
    pool_id = struct.pack("<II", *pool)
    block = struct.pack("<I6I", routing, *targets)
    block += (
        struct.pack("<fI", -1.0, 32) if generation == "A" else struct.pack("<ffIQQ", -1.0, -1.0, 32, 0, 0)
    )
    body = (
        pool_id + (bytes(32) if zero_body_id else task) + block + struct.pack("<IIdII", method, 0, 0.0, 0, 0)
    )
    if query is not None:
        body += struct.pack("<Q", len(query)) + query
    tail = struct.pack("<B", kind)
    if generation != "A":
        tail += struct.pack("<I", reply_port)
    if generation == "C":
        tail += struct.pack("<QQ", 0, 0)
    record = task + pool_id + struct.pack("<I", method)
    return (
        struct.pack("<5Q", 0, 0, 0, 0, records)
        + record * records
        + tail
        + struct.pack("<Q", len(body))
        + body
    )


class RawAnswer:
    """An answer frame taken apart; ``results`` is decoded msgpack by container id."""

    def __init__(self, generation: str, identity: bytes, frame: bytes) -> None:
        self.identity = identity
        self.frame = frame
        self.body = frame[BODY_AT[generation] :]
        self.key = struct.unpack_from("<Q", frame, 64)[0]
        (self.length,) = struct.unpack_from("<Q", frame, BODY_AT[generation] - 8)

    @property
    def rc(self) -> int:
        return struct.unpack_from("<I", self.body)[0]

    @property
    def results(self) -> dict[int, object]:
        assert self.length == len(self.body)
        (number,) = struct.unpack_from("<Q", self.body, 8)
        at, results = 16, {}
        for _ in range(number):
            container, length = struct.unpack_from("<IQ", self.body, at)
            results[container] = msgpack.unpackb(self.body[at + 12 : at + 12 + length])
            at += 12 + length
        assert at == len(self.body)
        return results

    @property
    def process(self) -> tuple[int, int]:
        """(pid, server generation) of a ClientConnect answer."""
        generation, pid = struct.unpack_from("<Qi", self.body, 12)
        return pid, generation


class RawClient:
    """One request socket to one node, one reply socket; their types are ``dealer`` or ``router``."""

    def __init__(
        self, node: tuple[str, int], generation: str = "C", *, request: str = "dealer", reply: str = "router",
        identity: bytes | None = None, port: int | None = None,
    ) -> None:  # fmt: skip
        self.generation = generation
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.reply = self.context.socket(zmq.ROUTER if reply == "router" else zmq.DEALER)
        if port is None:
            self.port = self.reply.bind_to_random_port("tcp://127.0.0.1")
        else:
            self.port = port
            self.reply.bind(f"tcp://127.0.0.1:{port}")
        self.monitor = self.reply.get_monitor_socket(zmq.EVENT_ACCEPTED)
        self.identity = identity or f"127.0.0.1:{self.port}:t{next(_identities)}".encode()
        self.request = self.context.socket(zmq.ROUTER if request == "router" else zmq.DEALER)
        self.request.setsockopt(zmq.ROUTING_ID, self.identity)
        self._prefix = [b""]
        if request == "router":
            self.request.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self.request.setsockopt(zmq.CONNECT_ROUTING_ID, b"node")
            self._prefix = [b"node", b""]
        self.request.connect(f"tcp://{node[0]}:{node[1] + 3}")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.reply.disable_monitor()
        self.context.destroy(linger=0)

    def send(self, frame: bytes) -> None:
        self.request.send_multipart([*self._prefix, frame])

    def receive(self, timeout: float = 5.0) -> RawAnswer | None:
        """The next answer, None when none comes within ``timeout`` seconds."""
        source = self.request if self.generation == "A" else self.reply
        if not source.poll(int(timeout * 1000)):
            return None
        *identity, delimiter, frame = source.recv_multipart()
        assert delimiter == b""
        return RawAnswer(self.generation, identity[0] if identity else b"", frame)

    def monitor_query(self, query: str, **fields: object) -> int:
        """Send a Monitor request, return its key."""
        key = 0xABCD_0000_0000 + next(_keys)
        self.send(build(self.generation, MONITOR, query.encode(), key, self.port, **fields))  # type: ignore[arg-type]
        return key

    def ask(self, query: str, **fields: object) -> RawAnswer:
        """Send a Monitor request and return its answer, which must come."""
        key = self.monitor_query(query, **fields)
        answer = self.receive()
        assert answer is not None, f"no answer to {query}"
        assert answer.key == key
        return answer

    def results(self, query: str, **fields: object) -> dict[int, object]:
        answer = self.ask(query, **fields)
        assert answer.rc == 0
        return answer.results

    def connect(self, **fields: object) -> RawAnswer | None:
        """Send a ClientConnect, return its answer, None after half a second."""
        generation = str(fields.pop("generation", self.generation))
        self.send(build(generation, CONNECT, None, next(_keys), self.port, **fields))  # type: ignore[arg-type]
        return self.receive(0.5)

    def was_dialled(self, timeout: float = 1.0) -> bool:
        """Whether somebody connected to the reply socket."""
        return bool(self.monitor.poll(int(timeout * 1000)))
