"""Reading requests and putting recorded answers around them, on the level of bytes.

All integers are little-endian. Offsets 0 to 84 of the header are the same in the generations A, B and C; then
follow A: u64 body length; B: u32 reply port, u64 body length; C: u32 reply port, u64 sender, u64 incarnation,
u64 body length. The body is pool (8), task id (32), routing block (36 in A, else 56), method u32, 20 bytes,
query.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from clio_lab.simulator.recorded import Recording

MONITOR = 9
CLIENT_CONNECT = 16
PROBE_RECORDS = 256
RECORD = 44

_ONE_RECORD = struct.pack("<5Q", 0, 0, 0, 0, 1)
_U64 = struct.Struct("<Q")
_MONITOR_HEAD = struct.Struct("<IIQ")
_RESULT_HEAD = struct.Struct("<IQ")
_ONE_RESULT_HEAD = struct.Struct("<QIIQIQ")


@dataclass(frozen=True)
class Layout:
    """Where a generation keeps what; ``fields`` spans header and body from offset 40 up to the query."""

    generation: str
    length_at: int
    body_without_query: int
    fields: struct.Struct
    dials_back: bool

    @property
    def body_at(self) -> int:
        """Offset of the body."""
        return self.length_at + 8


# Task id, pool, method, type; reply port, sender, incarnation; body length; pool, task id, routing mode and
# six words of the routing block; method.
_ROUTING_B = "I6I12x16x"
LAYOUTS = {
    "C": Layout("C", 105, 120, struct.Struct("<32s8sIBIQQQ8s32s" + _ROUTING_B + "I20x"), True),
    "B": Layout("B", 89, 120, struct.Struct("<32s8sIBIQ8s32s" + _ROUTING_B + "I20x"), True),
    "A": Layout("A", 85, 100, struct.Struct("<32s8sIBQ8s32s" + "I6I8x" + "I20x"), False),
}


class Request(NamedTuple):
    """A request that a runtime of the generation can read. ``query`` is None for ClientConnect."""

    method: int
    pool: tuple[int, int]
    reply_port: int
    query: bytes | None
    echo: bytes
    """Header bytes 40 to 84: task id, pool and method, repeated in the answer."""
    routing: int
    targets: tuple[int, ...]
    """hash, container id, range offset, range count, node id, return node."""
    records: int


class Rejected(NamedTuple):
    """A frame that is not answered. ``violation`` is None where the safe detection may send it."""

    violation: str | None
    reply_port: int = 0
    dial_back: bool = False


Parsed = Request | Rejected


def _one_record(frame: bytes) -> tuple[bytes, int] | None:
    """``(frame with one task record, number announced)``; None when what it announces is not there."""
    if frame[:40] == _ONE_RECORD:
        return frame, 1
    if len(frame) < 84 or frame[:32] != _ONE_RECORD[:32]:
        return None
    (records,) = _U64.unpack_from(frame, 32)
    end = 40 + records * RECORD
    if records == 0 or end > len(frame):
        return None
    return _ONE_RECORD + frame[40:84] + frame[end:], records


def _has_length_of(layout: Layout, frame: bytes) -> bool:
    if len(frame) < layout.body_at + layout.body_without_query:
        return False
    (length,) = _U64.unpack_from(frame, layout.length_at)
    return bool(length == len(frame) - layout.body_at)


def _foreign(server: Layout, other: Layout, frame: bytes, records: int) -> Rejected:
    """Judge a frame of another generation by what it does to a real server (safe detection is allowed)."""
    (method,) = struct.unpack_from("<I", frame, 80)
    connect = method == CLIENT_CONNECT
    (reply_port,) = struct.unpack_from("<I", frame, 85) if other.dials_back else (0,)
    probe = connect and records == PROBE_RECORDS
    if other.generation == "C" and probe:
        return Rejected(None, reply_port, dial_back=server.generation == "B")
    if other.generation == "B" and connect and server.generation == "C":
        return Rejected(None)
    zeroed = frame[other.body_at + 8 : other.body_at + 40] == bytes(32)
    if other.generation == "A" and probe and zeroed:
        return Rejected("risky_probe" if server.generation == "B" else None)
    return Rejected("foreign_generation")


def parse(server: Layout, frame: bytes) -> Parsed:
    """Read a metadata frame as a runtime of generation ``server.generation`` would, safely."""
    one = _one_record(frame)
    if one is None:
        return Rejected("announced_lengths")
    frame, records = one
    if not _has_length_of(server, frame):
        for other in LAYOUTS.values():
            if other is not server and _has_length_of(other, frame):
                return _foreign(server, other, frame, records)
        return Rejected("announced_lengths")
    values = server.fields.unpack_from(frame, 40)
    task_id, pool, method, kind = values[:4]
    body_pool, body_task_id, routing = values[-10], values[-9], values[-8]
    reply_port = values[4] if server.dials_back else 0
    if kind != 0:
        return Rejected("message_type")
    if method not in (MONITOR, CLIENT_CONNECT):
        return Rejected("method")
    if records != 1 and (records != PROBE_RECORDS or method != CLIENT_CONNECT):
        return Rejected("announced_lengths")
    zeroed_probe = records == PROBE_RECORDS and body_task_id == bytes(32)
    if body_pool != pool or values[-1] != method or (body_task_id != task_id and not zeroed_probe):
        return Rejected("inconsistent_body")
    query: bytes | None = None
    query_at = server.body_at + server.body_without_query
    if method == MONITOR:
        if len(frame) < query_at + 8:
            return Rejected("announced_lengths")
        (length,) = _U64.unpack_from(frame, query_at)
        query = frame[query_at + 8 :]
        if length != len(query):
            return Rejected("announced_lengths")
    elif len(frame) != query_at:
        return Rejected("announced_lengths")
    return Request(
        method, struct.unpack("<II", pool), reply_port, query, frame[40:84], routing, values[-7:-1], records
    )


def answer(recording: Recording, echo: bytes, body: bytes) -> bytes:
    """A whole answer frame: the recorded header around the request's own fields, then ``body``."""
    return b"".join((recording.lead, echo, recording.tail, _U64.pack(len(body)), body))


def monitor_answer(
    recording: Recording, echo: bytes, rc: int, completer: int, results: list[tuple[int, bytes]]
) -> bytes:
    """A Monitor answer with ``results``, pairs of container id and msgpack document."""
    if len(results) == 1:
        container, document = results[0]
        head = _ONE_RESULT_HEAD.pack(28 + len(document), rc, completer, 1, container, len(document))
        return b"".join((recording.lead, echo, recording.tail, head, document))
    parts = [_MONITOR_HEAD.pack(rc, completer, len(results))]
    for container, document in results:
        parts += [_RESULT_HEAD.pack(container, len(document)), document]
    return answer(recording, echo, b"".join(parts))


def connect_body(recording: Recording, pid: int, server_generation: int) -> bytes:
    """The recorded ClientConnect body with another pid (also in the shared-memory ids) and start time."""
    body = bytearray(recording.connect)
    recorded_pid = body[20:24]
    struct.pack_into("<Qi", body, 12, server_generation, pid)
    if recording.generation != "A":
        for at in range(32, 64, 4):
            if body[at : at + 4] == recorded_pid:
                struct.pack_into("<i", body, at, pid)
    return bytes(body)
