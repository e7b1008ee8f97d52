"""Wire codec: pure functions between Python values and metadata frames.

Three generations of the client protocol share their first 85 bytes and differ
after them; a fourth, Z (runtime 1.0.x), is older and can only be asked for
worker statistics. Offsets are those of the protocol notes, summarised here:

=====  ==============  ===========  ====================================
layout runtime         header       answers come
=====  ==============  ===========  ====================================
C      2.3             113 bytes    by dial-back to the client's reply port
B      2.2             97 bytes     by dial-back
A      1.5 to 2.1      93 bytes     on the request socket
Z      1.0             81 bytes     on the request socket
=====  ==============  ===========  ====================================

All integers are little-endian and unpadded. Nothing here does I/O, and nothing
announces a count or a length that is not in the frame: a runtime trusts them.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from clio_client.errors import MalformedAnswerError

METHOD_MONITOR: Final = 9
METHOD_CLIENT_CONNECT: Final = 16
METHOD_WORKER_STATS_Z: Final = 17
"""Z has no Monitor; its method 17 returns worker statistics in a binary layout."""

QUERY_WORKER_STATS: Final = "worker_stats"

_MESSAGE_REQUEST: Final = 0
_MESSAGE_ANSWER: Final = 1
_ROUTING_LOCAL: Final = 0
_CONTAINER_ANY: Final = 0xFFFFFFFF
_PARALLELISM: Final = 32
_ADMIN_POOL: Final = (1, 0)

PROBE_RECORDS: Final = 256
"""Task records in a detection frame.

With 256 copies of the record, the layouts that would misread the frame find a
count or length of 0 where one record would make them read a huge number.
"""

_COUNTS = struct.Struct("<5Q")
_TASK_ID = struct.Struct("<6IQ")
_TASK_ID_Z = struct.Struct("<5IQQ")
_POOL = struct.Struct("<II")
_ROUTING = struct.Struct("<7I")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_RESULT_HEAD = struct.Struct("<IIQ")
_RESULT = struct.Struct("<IQ")
_CONNECT = struct.Struct("<IIiQ")
_WORKER_Z = struct.Struct("<QIIIIIIBBI")


class Generation(enum.Enum):
    """A generation of the client protocol; the value is the name used in settings and labels."""

    A = "A"
    B = "B"
    C = "C"
    Z = "Z"

    @property
    def dials_back(self) -> bool:
        """Whether answers arrive on a connection the runtime opens to our reply port."""
        return self in (Generation.B, Generation.C)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the generations differ: bytes after the message type, and the body's routing block."""

    tail: struct.Struct
    """Header after the message type byte, ending in the body length."""
    long_routing: bool
    """Whether the routing block has a second timeout and two collective words."""


_LAYOUTS: Final = {
    Generation.A: _Layout(struct.Struct("<Q"), long_routing=False),
    Generation.B: _Layout(struct.Struct("<IQ"), long_routing=True),
    Generation.C: _Layout(struct.Struct("<IQQQ"), long_routing=True),
}
_TYPE_OFFSET: Final = 84
_RECORD: Final = slice(40, _TYPE_OFFSET)
_REQUEST_ID_OFFSET: Final = 64
_METHOD_OFFSET: Final = 80
_BODY_OFFSET: Final = {g: _TYPE_OFFSET + 1 + layout.tail.size for g, layout in _LAYOUTS.items()}
_REQUEST_ID_OFFSET_Z: Final = 52
_METHOD_OFFSET_Z: Final = 68
_TYPE_OFFSET_Z: Final = 72
_BODY_OFFSET_Z: Final = 81


@dataclass(frozen=True, slots=True)
class RequestIds:
    """What identifies a request.

    Attributes:
        request_id: 64 bit number the runtime echoes in its answer (TaskId.net_key).
        sequence: 32 bit counter; the runtime uses it in its own logs.
        pid: the client's process id; logged by the runtime, never interpreted.
    """

    request_id: int
    sequence: int
    pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's header fields and undecoded body."""

    request_id: int
    method: int
    body: bytes


@dataclass(frozen=True, slots=True)
class MonitorResult:
    """Body of a Monitor answer.

    Attributes:
        return_code: 0 is ok, also for unknown queries (then ``documents`` is empty).
        documents: one msgpack document per answering container, by container id.
    """

    return_code: int
    completer: int
    documents: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class RuntimeIdentity:
    """What tells one run of a runtime from the next (ClientConnect answer).

    Attributes:
        start_ns: the host's CLOCK_MONOTONIC when the runtime started, nanoseconds.
        pid: process id on its host; None where the generation does not tell (Z).
    """

    start_ns: int
    pid: int | None


# --- requests -----------------------------------------------------------------------------------


def encode_connect(generation: Generation, ids: RequestIds, reply_port: int) -> bytes:
    """Frame of a ClientConnect request (method 16): who are you, when did you start."""
    return _encode(generation, METHOD_CLIENT_CONNECT, ids, reply_port, query=None)


def encode_monitor(generation: Generation, ids: RequestIds, reply_port: int, query: str) -> bytes:
    """Frame of a Monitor request to the admin pool, routed to the asked node only.

    Raises:
        ValueError: Z is asked for anything but worker statistics.
    """
    if generation is Generation.Z:
        if query != QUERY_WORKER_STATS:
            raise ValueError(f"a generation Z runtime reports {QUERY_WORKER_STATS} only, not {query!r}")
        return _encode_z(METHOD_WORKER_STATS_Z, ids)
    return _encode(generation, METHOD_MONITOR, ids, reply_port, query=query)


def encode_probe(generation: Generation, ids: RequestIds, reply_port: int) -> bytes:
    """ClientConnect frame for detection: answered by ``generation``, harmless to every other one.

    Only C and A can be probed for (B dials back to a C probe). See ``PROBE_RECORDS``; the A probe also
    leaves the body's TaskId zero, so that C reads a body length of 0.

    Raises:
        ValueError: for B and Z.
    """
    if generation not in (Generation.A, Generation.C):
        raise ValueError(f"there is no safe probe for generation {generation.value}")
    frame = _encode(generation, METHOD_CLIENT_CONNECT, ids, reply_port, query=None)
    body_offset = _BODY_OFFSET[generation]
    body = bytearray(frame[body_offset:])
    if generation is Generation.A:
        body[_POOL.size : _POOL.size + _TASK_ID.size] = bytes(_TASK_ID.size)
    counts = _COUNTS.pack(0, 0, 0, 0, PROBE_RECORDS)
    return b"".join((counts, frame[_RECORD] * PROBE_RECORDS, frame[_TYPE_OFFSET:body_offset], bytes(body)))


def _encode(
    generation: Generation, method: int, ids: RequestIds, reply_port: int, query: str | None
) -> bytes:
    if generation is Generation.Z:
        return _encode_z(method, ids)
    layout = _LAYOUTS[generation]
    task_id = _TASK_ID.pack(ids.pid, 0, ids.sequence, 0, ids.sequence, 0, ids.request_id)
    pool = _POOL.pack(*_ADMIN_POOL)
    body = [
        pool,
        task_id,
        _ROUTING.pack(_ROUTING_LOCAL, 0, _CONTAINER_ANY, 0, 0, 0, 0),
        struct.pack("<ffIQQ", -1.0, -1.0, _PARALLELISM, 0, 0)
        if layout.long_routing
        else struct.pack("<fI", -1.0, _PARALLELISM),
        struct.pack("<IIdII", method, 0, 0.0, 0, 0),
    ]
    if query is not None:
        text = query.encode()
        body += [_U64.pack(len(text)), text]
    length = sum(map(len, body))
    if generation is Generation.C:
        tail = layout.tail.pack(reply_port, 0, 0, length)
    elif generation is Generation.B:
        tail = layout.tail.pack(reply_port, length)
    else:
        tail = layout.tail.pack(length)
    record = task_id + pool + _U32.pack(method)
    return b"".join((_COUNTS.pack(0, 0, 0, 0, 1), record, bytes([_MESSAGE_REQUEST]), tail, *body))


def _encode_z(method: int, ids: RequestIds) -> bytes:
    task_id = _TASK_ID_Z.pack(ids.pid, 0, ids.sequence, 0, ids.sequence, 0, ids.request_id)
    pool = _POOL.pack(*_ADMIN_POOL)
    body = b"".join(
        (
            pool,
            task_id,
            _ROUTING.pack(_ROUTING_LOCAL, 0, _CONTAINER_ANY, 0, 0, 0, 0),
            struct.pack("<IIdI", method, 0, 0.0, 0),
        )
    )
    header = struct.pack("<3Q", 0, 0, 1) + task_id + pool + _U32.pack(method) + bytes([_MESSAGE_REQUEST])
    return header + _U64.pack(len(body)) + body


# --- answers ------------------------------------------------------------------------------------


def peek_request_id(frame: bytes, generation: Generation = Generation.C) -> int | None:
    """The request id an answer frame echoes, or None when the frame is too short to hold one."""
    offset = _REQUEST_ID_OFFSET_Z if generation is Generation.Z else _REQUEST_ID_OFFSET
    if len(frame) < offset + _U64.size:
        return None
    return int(_U64.unpack_from(frame, offset)[0])


def decode_answer(generation: Generation, frame: bytes) -> Answer:
    """Check an answer frame's header and split off its body.

    Raises:
        MalformedAnswerError: too short, not an answer, or lengths that do not add up.
    """
    if generation is Generation.Z:
        return _decode_answer_z(frame)
    offset = _BODY_OFFSET[generation]
    if len(frame) < offset:
        raise MalformedAnswerError(f"answer of {len(frame)} bytes is shorter than its header ({offset})")
    send, recv, send_bulks, recv_bulks, records = _COUNTS.unpack_from(frame)
    if (send, recv, send_bulks, recv_bulks, records) != (0, 0, 0, 0, 1):
        raise MalformedAnswerError("answer announces bulk data or a record count other than 1")
    if frame[_TYPE_OFFSET] != _MESSAGE_ANSWER:
        raise MalformedAnswerError(f"message type {frame[_TYPE_OFFSET]} is not an answer")
    (length,) = _U64.unpack_from(frame, offset - _U64.size)
    if length != len(frame) - offset:
        raise MalformedAnswerError(f"answer announces a body of {length} bytes and has {len(frame) - offset}")
    return Answer(
        request_id=_U64.unpack_from(frame, _REQUEST_ID_OFFSET)[0],
        method=_U32.unpack_from(frame, _METHOD_OFFSET)[0],
        body=frame[offset:],
    )


def _decode_answer_z(frame: bytes) -> Answer:
    if len(frame) < _BODY_OFFSET_Z:
        raise MalformedAnswerError(
            f"answer of {len(frame)} bytes is shorter than its header ({_BODY_OFFSET_Z})"
        )
    if frame[_TYPE_OFFSET_Z] != _MESSAGE_ANSWER:
        raise MalformedAnswerError(f"message type {frame[_TYPE_OFFSET_Z]} is not an answer")
    (length,) = _U64.unpack_from(frame, _BODY_OFFSET_Z - _U64.size)
    if length != len(frame) - _BODY_OFFSET_Z:
        raise MalformedAnswerError(
            f"answer announces a body of {length} bytes and has {len(frame) - _BODY_OFFSET_Z}"
        )
    return Answer(
        request_id=_U64.unpack_from(frame, _REQUEST_ID_OFFSET_Z)[0],
        method=_U32.unpack_from(frame, _METHOD_OFFSET_Z)[0],
        body=frame[_BODY_OFFSET_Z:],
    )


def decode_connect(generation: Generation, body: bytes) -> RuntimeIdentity:
    """Body of a ClientConnect answer.

    Raises:
        MalformedAnswerError: too short, or the runtime refuses (response not 0).
    """
    needed = _CONNECT.size if generation is Generation.Z else _CONNECT.size + _U32.size
    if len(body) < needed:
        raise MalformedAnswerError(f"ClientConnect answer of {len(body)} bytes is shorter than {needed}")
    return_code, _completer, response, start_ns = _CONNECT.unpack_from(body)
    if return_code or response:
        raise MalformedAnswerError(f"the runtime refused ClientConnect (code {return_code}, {response})")
    pid = None if generation is Generation.Z else int(_U32.unpack_from(body, _CONNECT.size)[0])
    return RuntimeIdentity(start_ns=start_ns, pid=pid)


def decode_monitor(generation: Generation, body: bytes) -> MonitorResult:
    """Body of a Monitor answer.

    Raises:
        MalformedAnswerError: counts or lengths that the bytes do not bear out.
    """
    if generation is Generation.Z:
        return _decode_worker_stats_z(body)
    if len(body) < _RESULT_HEAD.size:
        raise MalformedAnswerError(f"Monitor answer of {len(body)} bytes has no result count")
    return_code, completer, count = _RESULT_HEAD.unpack_from(body)
    offset = _RESULT_HEAD.size
    if count > (len(body) - offset) // _RESULT.size:
        raise MalformedAnswerError(f"Monitor answer announces {count} results in {len(body)} bytes")
    documents: dict[int, bytes] = {}
    for _ in range(count):
        if offset + _RESULT.size > len(body):
            raise MalformedAnswerError("Monitor answer ends inside a result")
        container, length = _RESULT.unpack_from(body, offset)
        offset += _RESULT.size
        if length > len(body) - offset:
            raise MalformedAnswerError(f"result of container {container} is cut short")
        if container in documents:
            raise MalformedAnswerError(f"container {container} answered twice")
        documents[container] = body[offset : offset + length]
        offset += length
    if offset != len(body):
        raise MalformedAnswerError(f"{len(body) - offset} bytes after the last result")
    return MonitorResult(return_code, completer, documents)


def _decode_worker_stats_z(body: bytes) -> MonitorResult:
    """Method 17 of generation Z, re-expressed as the ``worker_stats`` document of the later ones."""
    if len(body) < _RESULT_HEAD.size:
        raise MalformedAnswerError(f"worker statistics of {len(body)} bytes have no count")
    return_code, completer, count = _RESULT_HEAD.unpack_from(body)
    if len(body) - _RESULT_HEAD.size != count * _WORKER_Z.size:
        raise MalformedAnswerError(f"{count} workers announced in {len(body)} bytes")
    workers = []
    for row in _WORKER_Z.iter_unpack(body[_RESULT_HEAD.size :]):
        processed, queued, blocked, periodic, retry, suspend_us, idle, running, active, worker_id = row
        workers.append(
            {
                "worker_id": worker_id,
                "is_running": bool(running),
                "is_active": bool(active),
                "idle_iterations": idle,
                "num_queued_tasks": queued,
                "num_blocked_tasks": blocked,
                "num_periodic_tasks": periodic,
                "num_retry_tasks": retry,
                "suspend_period_us": suspend_us,
                "num_tasks_processed": processed,
            }
        )
    return MonitorResult(return_code, completer, {0: msgpack.packb(workers)})


def decode_document(document: bytes) -> Any:
    """One msgpack document; text that is not UTF-8 keeps its readable part.

    Raises:
        MalformedAnswerError: not msgpack, trailing bytes, or nested too deep.
    """
    try:
        return msgpack.unpackb(document, raw=False, unicode_errors="replace", strict_map_key=False)
    except (ValueError, TypeError, MemoryError, msgpack.UnpackException) as error:
        raise MalformedAnswerError(f"not a msgpack document: {error or type(error).__name__}") from error


def decode_tail(document: bytes, keep: int) -> list[Any]:
    """The last ``keep`` elements of a msgpack array, without building the ones before.

    The first answer to ``system_stats`` may hold 1,024 samples of which a minute is wanted.

    Raises:
        MalformedAnswerError: not a msgpack array, cut short, or trailing bytes.
    """
    unpacker = msgpack.Unpacker(
        # The bound on what an element inside may announce, as unpackb sets it by itself.
        max_buffer_size=max(1, len(document)),
        raw=False,
        unicode_errors="replace",
        strict_map_key=False,
    )
    unpacker.feed(document)
    try:
        count = unpacker.read_array_header()
        if count > len(document):
            raise MalformedAnswerError(f"array announces {count} elements in {len(document)} bytes")
        for _ in range(max(0, count - keep)):
            unpacker.skip()
        elements = [unpacker.unpack() for _ in range(min(count, keep))]
    except (ValueError, TypeError, MemoryError, msgpack.UnpackException) as error:
        raise MalformedAnswerError(f"not a msgpack array: {error or type(error).__name__}") from error
    if unpacker.tell() != len(document):
        raise MalformedAnswerError("bytes after the msgpack array")
    return elements
