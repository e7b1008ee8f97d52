"""The codec against the frames that real runtimes and their own clients exchanged."""

from __future__ import annotations

import json
import struct

import msgpack
import pytest

from clio_client.errors import MalformedAnswerError
from clio_client.protocol import codec
from clio_client.protocol.codec import Generation, RequestIds
from tests.unit import recorded
from tests.unit.recorded import Frame

IDS = RequestIds(request_id=0x1122334455667788, sequence=0xA1B2C3D4, pid=4711)
PORT = 9778


def without_thread_id(frame: Frame, data: bytes) -> bytes:
    """1.0.3's own client leaves the thread id of ClientConnect uninitialised."""
    if frame.generation is not Generation.Z:
        return data
    clean = bytearray(data)
    clean[28:32] = clean[93:97] = bytes(4)
    return bytes(clean)


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", recorded.requests(), ids=str)
def test_requests_are_byte_for_byte_what_was_recorded(frame: Frame) -> None:
    if frame.is_connect:
        encoded = codec.encode_connect(frame.generation, frame.ids, frame.reply_port)
    else:
        encoded = codec.encode_monitor(frame.generation, frame.ids, frame.reply_port, frame.query)
    assert encoded == without_thread_id(frame, frame.data)


def test_every_generation_and_both_requests_were_recorded() -> None:
    assert {(f.generation, f.is_connect) for f in recorded.requests()} == {
        (generation, connect) for generation in Generation for connect in (False, True)
    }


def test_generation_z_can_be_asked_for_worker_statistics_only() -> None:
    with pytest.raises(ValueError, match="system_stats"):
        codec.encode_monitor(Generation.Z, IDS, 0, "system_stats")


def test_a_query_is_counted_in_bytes() -> None:
    frame = codec.encode_monitor(Generation.C, IDS, PORT, "é")
    assert struct.unpack_from("<Q", frame, 105)[0] == 120 + 8 + 2
    assert frame[-10:] == struct.pack("<Q", 2) + "é".encode()


# --- probes: read as each generation's runtime would ------------------------------------------------

RECORDS_END = 40 + 256 * 44


@pytest.mark.parametrize("generation", [Generation.A, Generation.C])
def test_a_probe_announces_the_256_equal_records_it_has(generation: Generation) -> None:
    frame = codec.encode_probe(generation, IDS, PORT)
    assert struct.unpack_from("<5Q", frame) == (0, 0, 0, 0, 256)
    records = frame[40:RECORDS_END]
    assert records == records[:44] * 256
    assert records[:44] == codec.encode_connect(generation, IDS, PORT)[40:84]
    assert frame[RECORDS_END] == 0  # a request


@pytest.mark.parametrize("generation", [Generation.A, Generation.C])
def test_its_own_generation_reads_a_probe_like_a_connect_request(generation: Generation) -> None:
    tail = codec.encode_probe(generation, IDS, PORT)[RECORDS_END:]
    plain = codec.encode_connect(generation, IDS, PORT)[84:]
    body_at = recorded.BODY_AT[generation] - 84
    assert len(tail) == len(plain)
    assert tail[:body_at] == plain[:body_at]
    if generation is Generation.C:
        assert tail == plain
    else:  # the body's TaskId, and nothing else, is zero
        assert tail[body_at + 8 : body_at + 40] == bytes(32)
        assert tail[body_at : body_at + 8] == plain[body_at : body_at + 8]
        assert tail[body_at + 40 :] == plain[body_at + 40 :]


@pytest.mark.parametrize("generation", [Generation.A, Generation.C])
def test_z_reads_no_records_and_no_length_in_a_probe(generation: Generation) -> None:
    frame = codec.encode_probe(generation, IDS, PORT)
    (count,) = struct.unpack_from("<Q", frame, 16)
    (length,) = struct.unpack_from("<Q", frame, 24 + 1)  # without a record, type and length follow
    assert (count, length) == (0, 0)
    # What the 256 records are for: a plain request would announce 2^56 bytes.
    plain = codec.encode_connect(generation, IDS, PORT)
    assert struct.unpack_from("<Q", plain, 25) == (1 << 56,)


def test_a_and_b_read_small_lengths_in_a_c_probe() -> None:
    frame = codec.encode_probe(Generation.C, IDS, PORT)
    assert struct.unpack_from("<Q", frame, RECORDS_END + 1) == (PORT,)  # A: the reply port
    assert struct.unpack_from("<IQ", frame, RECORDS_END + 1) == (PORT, 0)  # B: dials back, then no body


def test_c_reads_no_length_in_an_a_probe() -> None:
    frame = codec.encode_probe(Generation.A, IDS, PORT)
    assert struct.unpack_from("<Q", frame, RECORDS_END + 1 + 20) == (0,)
    plain = codec.encode_connect(Generation.A, IDS, PORT)
    assert struct.unpack_from("<Q", plain, 85 + 20)[0] >= 1 << 32


@pytest.mark.parametrize("generation", [Generation.B, Generation.Z])
def test_there_is_no_probe_for_b_and_z(generation: Generation) -> None:
    with pytest.raises(ValueError, match=f"generation {generation.value}"):
        codec.encode_probe(generation, IDS, PORT)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", recorded.answers(), ids=str)
def test_recorded_answers_are_taken_apart(frame: Frame) -> None:
    answer = codec.decode_answer(frame.generation, frame.data)
    assert answer.request_id == frame.ids.request_id
    assert codec.peek_request_id(frame.data, frame.generation) == frame.ids.request_id
    assert answer.body == frame.body
    asked = Frame(frame.path.with_name(frame.path.name.replace("response", "request")))
    assert answer.request_id == asked.ids.request_id
    if frame.is_connect:
        assert answer.method == 16
    else:
        assert answer.method == (17 if frame.generation is Generation.Z else 9)


@pytest.mark.parametrize("frame", [f for f in recorded.answers() if f.is_connect], ids=str)
def test_recorded_connect_answers_name_the_runtime(frame: Frame) -> None:
    identity = codec.decode_connect(frame.generation, frame.body)
    assert identity.start_ns == struct.unpack_from("<Q", frame.body, 12)[0]
    if frame.generation is Generation.Z:
        assert identity.pid is None
    else:
        assert identity.pid == struct.unpack_from("<I", frame.body, 20)[0]
        assert 1 < identity.pid < 1 << 22


@pytest.mark.parametrize(
    "frame", [f for f in recorded.answers() if not f.is_connect and "native" not in f.path.name], ids=str
)
def test_recorded_monitor_answers_equal_their_documents(frame: Frame) -> None:
    result = codec.decode_monitor(frame.generation, frame.body)
    beside = json.loads(frame.path.with_name(frame.path.name.replace(".response.bin", ".json")).read_text())
    assert result.return_code == beside["rc"]
    assert result.completer == beside["completer"]
    raw = frame.path.with_name(frame.path.name.replace(".response.bin", ".msgpack")).read_bytes()
    assert result.documents == ({0: raw} if raw else {})
    assert {
        str(container): codec.decode_document(document) for container, document in result.documents.items()
    } == beside["results"]


@pytest.mark.parametrize("frame", [f for f in recorded.answers() if "native_mon" in f.path.name], ids=str)
def test_recorded_native_answers_hold_worker_statistics(frame: Frame) -> None:
    result = codec.decode_monitor(frame.generation, frame.body)
    (document,) = result.documents.values()
    workers = codec.decode_document(document)
    assert [worker["worker_id"] for worker in workers] == list(range(len(workers)))
    assert len(workers) >= 2
    # Everything that was sent is in the result: the runtime's own encoder gives the same bytes again.
    if frame.generation is not Generation.Z:
        assert codec.decode_document(msgpack.packb(workers)) == workers
        assert frame.body.endswith(document)


def test_worker_statistics_of_z_equal_their_json() -> None:
    folder = recorded.FIXTURES / "1.0.3"
    return_code, completer, workers = json.loads((folder / "worker_stats.json").read_text())
    result = codec.decode_monitor(Generation.Z, (folder / "worker_stats.cereal.bin").read_bytes())
    assert (result.return_code, result.completer) == (return_code, completer)
    assert codec.decode_document(result.documents[0]) == workers


@pytest.mark.parametrize(
    "path", sorted(recorded.FIXTURES.glob("*/*.msgpack")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_recorded_documents_equal_their_json(path: object) -> None:
    from pathlib import Path

    assert isinstance(path, Path)
    stem, _, container = path.stem.partition(".container")
    results = json.loads(path.with_name(f"{stem}.json").read_text())["results"]
    raw = path.read_bytes()
    if raw:
        assert codec.decode_document(raw) == results[container or "0"]
    else:
        assert results == {}


def test_a_broadcast_answer_has_a_document_a_container() -> None:
    documents = {c: msgpack.packb({"node_id": c}) for c in (2, 3, 0, 1)}
    body = struct.pack("<IIQ", 0, 1, 4) + b"".join(
        struct.pack("<IQ", container, len(raw)) + raw for container, raw in documents.items()
    )
    result = codec.decode_monitor(Generation.C, body)
    assert result.documents == documents
    assert list(result.documents) == [2, 3, 0, 1]


# --- answers that are not what they should be ---------------------------------------------------------


def answer_frame(generation: Generation = Generation.C) -> bytes:
    name = {Generation.A: "2.1.0", Generation.B: "2.2.1", Generation.C: "2.3.2", Generation.Z: "1.0.3"}
    return (recorded.FIXTURES / name[generation] / "native_monitor_worker_stats.response.bin").read_bytes()


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("kind", [0, 2, 77])
def test_only_answers_are_accepted(generation: Generation, kind: int) -> None:
    frame = bytearray(answer_frame(generation))
    frame[72 if generation is Generation.Z else 84] = kind
    with pytest.raises(MalformedAnswerError, match=f"message type {kind}"):
        codec.decode_answer(generation, bytes(frame))


@pytest.mark.parametrize("offset", [0, 8, 16, 24, 32])
def test_announced_bulk_data_and_records_are_refused(offset: int) -> None:
    frame = bytearray(answer_frame())
    frame[offset] += 1
    with pytest.raises(MalformedAnswerError, match="bulk data or a record count"):
        codec.decode_answer(Generation.C, bytes(frame))


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("change", [-1, 1, 2**60])
def test_the_body_length_must_be_that_of_the_body(generation: Generation, change: int) -> None:
    frame = bytearray(answer_frame(generation))
    at = recorded.BODY_AT[generation] - 8
    (length,) = struct.unpack_from("<Q", frame, at)
    struct.pack_into("<Q", frame, at, length + change)
    with pytest.raises(MalformedAnswerError, match="announces a body"):
        codec.decode_answer(generation, bytes(frame))


@pytest.mark.parametrize("generation", list(Generation))
def test_every_truncation_of_an_answer_is_refused(generation: Generation) -> None:
    frame = answer_frame(generation)
    for length in range(len(frame)):
        with pytest.raises(MalformedAnswerError):
            codec.decode_answer(generation, frame[:length])


@pytest.mark.parametrize("generation", list(Generation))
def test_every_truncation_of_a_body_is_refused(generation: Generation) -> None:
    body = codec.decode_answer(generation, answer_frame(generation)).body
    for length in range(len(body)):
        with pytest.raises(MalformedAnswerError):
            codec.decode_monitor(generation, body[:length])
    with pytest.raises(MalformedAnswerError):
        codec.decode_monitor(generation, body + b"\0")


@pytest.mark.parametrize("generation", list(Generation))
def test_a_frame_too_short_for_an_id_has_none(generation: Generation) -> None:
    frame = answer_frame(generation)
    end = 60 if generation is Generation.Z else 72
    assert codec.peek_request_id(frame[: end - 1], generation) is None
    assert codec.peek_request_id(frame[:end], generation) is not None
    assert codec.peek_request_id(b"", generation) is None


def test_one_container_cannot_answer_twice() -> None:
    body = struct.pack("<IIQ", 0, 0, 2) + 2 * (struct.pack("<IQ", 5, 1) + b"\xc0")
    with pytest.raises(MalformedAnswerError, match="container 5 answered twice"):
        codec.decode_monitor(Generation.C, body)


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("count", [3, 2**32, 2**60, 2**64 - 1])
def test_an_impossible_count_is_refused_before_anything_is_built(generation: Generation, count: int) -> None:
    body = bytearray(codec.decode_answer(generation, answer_frame(generation)).body)
    struct.pack_into("<Q", body, 8, count)
    with pytest.raises(MalformedAnswerError):
        codec.decode_monitor(generation, bytes(body))


@pytest.mark.parametrize(("offset", "shown"), [(0, "code 5, 0"), (8, "code 0, 5")])
def test_a_refused_connect_is_an_error(offset: int, shown: str) -> None:
    path = recorded.FIXTURES / "2.3.2" / "client_connect.response.bin"
    body = bytearray(Frame(path).body)
    body[offset] = 5
    with pytest.raises(MalformedAnswerError, match=shown):
        codec.decode_connect(Generation.C, bytes(body))


@pytest.mark.parametrize("generation", list(Generation))
def test_a_short_connect_answer_is_refused(generation: Generation) -> None:
    needed = 20 if generation is Generation.Z else 24
    assert codec.decode_connect(generation, bytes(needed)).start_ns == 0
    for length in range(needed):
        with pytest.raises(MalformedAnswerError, match="shorter"):
            codec.decode_connect(generation, bytes(length))


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",  # never used by msgpack
        b"\x93\x01\x02",  # cut short
        b"\x01\x02",  # two documents
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\x91" * 100_000 + b"\xc0",  # nested too deep
        b"\x81\x90\x01",  # an array as key
        b"\xc7\x03\xff\x01\x02\x03",  # a timestamp of three bytes
    ],
)
def test_what_is_not_one_document_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedAnswerError, match="not a msgpack document"):
        codec.decode_document(raw)


def test_text_that_is_not_utf_8_keeps_its_readable_part() -> None:
    assert codec.decode_document(b"\xa3a\xffb") == "a\ufffdb"


@pytest.mark.parametrize("version", recorded.versions())
@pytest.mark.parametrize("keep", [1, 2, 65, 10_000])
def test_the_tail_of_a_ring_is_its_last_samples(version: str, keep: int) -> None:
    raw = recorded.document(version, "system_stats_0")
    assert codec.decode_tail(raw, keep) == recorded.decoded(version, "system_stats_0")[-keep:]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80",  # a map
        b"\xc0",
        b"\x93\x01\x02",  # cut short
        b"\x91\x01\x02",  # trailing bytes
        b"\x91\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x92\xdd\x7f\xff\xff\xff\x01",  # the lie is inside, in a skipped element
        b"\x91\xdd\x7f\xff\xff\xff\x01",  # and in a kept one
        b"\x91" * 100_000 + b"\xc0",
    ],
)
def test_what_is_not_one_array_has_no_tail(raw: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        codec.decode_tail(raw, 1)
