"""Damaged answers: a documented error or what the bytes say; nothing else, and soon."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clio_client.errors import MalformedAnswerError
from clio_client.protocol import codec
from clio_client.protocol.codec import Generation
from clio_client.protocol.records import (
    PoolStats,
    parse_health,
    read_containers,
    read_host_info,
    read_pool_stats,
    read_samples,
    read_workers,
)
from tests.unit import recorded
from tests.unit.recorded import Frame

modest = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SMALL = [f for f in recorded.answers() if len(f.data) < 20_000]


@st.composite
def damaged(draw: st.DrawFn, seeds: st.SearchStrategy[bytes]) -> bytes:
    """One of the seeds with bytes flipped, numbers overwritten, pieces cut out or put in."""
    data = bytearray(draw(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "number", "cut", "insert", "truncate"])):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "number":
                width = draw(st.sampled_from(["<I", "<Q", ">I", ">H"]))
                size = struct.calcsize(width)
                bits = 8 * size
                value = draw(
                    st.sampled_from([0, 1, 2, 255, 2 ** (bits - 1), 2**bits - 1])
                    | st.integers(0, 2**bits - 1)
                )
                data[at : at + size] = struct.pack(width, value % 2**bits)
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=32))
            case "truncate":
                del data[at:]
    return bytes(data)


def documents(name: str, versions: list[str] | None = None) -> st.SearchStrategy[bytes]:
    return st.sampled_from([recorded.document(v, name) for v in versions or recorded.versions()])


def bounded(work: Callable[[], Any], size: int) -> Any:
    """Result of ``work``, which may take memory in proportion to its input only."""
    tracemalloc.start()
    try:
        result = work()
    except MalformedAnswerError:
        result = None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # The constant is msgpack's own buffers.
    assert peak < 200 * size + 2_000_000
    return result


@pytest.mark.parametrize("generation", list(Generation))
def test_damaged_frames(generation: Generation) -> None:
    seeds = [f for f in SMALL if f.generation is generation]

    @settings(modest, max_examples=120)
    @given(damaged(st.sampled_from([f.data for f in seeds])))
    def check(data: bytes) -> None:
        try:
            answer = codec.decode_answer(generation, data)
        except MalformedAnswerError:
            return
        body_at = recorded.BODY_AT[generation]
        assert answer.body == data[body_at:]
        assert struct.unpack_from("<Q", data, body_at - 8) == (len(answer.body),)
        assert answer.request_id == codec.peek_request_id(data, generation)

    check()


@pytest.mark.parametrize("generation", list(Generation))
def test_damaged_bodies(generation: Generation) -> None:
    seeds = [f.body for f in SMALL if f.generation is generation and not f.is_connect]

    @settings(modest, max_examples=120)
    @given(damaged(st.sampled_from(seeds)))
    def check(body: bytes) -> None:
        result = bounded(lambda: codec.decode_monitor(generation, body), len(body))
        if result is None:
            return
        assert (result.return_code, result.completer) == struct.unpack_from("<II", body)
        if generation is Generation.Z:
            rows = list(struct.iter_unpack("<QIIIIIIBBI", body[16:]))
            workers = codec.decode_document(result.documents[0])
            assert [tuple(worker[name] for name in Z_FIELDS) for worker in workers] == [
                (*row[:7], row[7] != 0, row[8] != 0, row[9]) for row in rows
            ]
        else:
            parts = [struct.pack("<IQ", c, len(raw)) + raw for c, raw in result.documents.items()]
            assert body == body[:8] + struct.pack("<Q", len(parts)) + b"".join(parts)

    check()


@modest
@given(damaged(st.sampled_from([f.body for f in SMALL if f.is_connect])), st.sampled_from(list(Generation)))
def test_damaged_connect_answers(body: bytes, generation: Generation) -> None:
    try:
        identity = codec.decode_connect(generation, body)
    except MalformedAnswerError:
        return
    assert identity.start_ns == struct.unpack_from("<Q", body, 12)[0]


Z_FIELDS = (
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

NAMES = ["worker_stats", "system_stats_0", "get_host_info", "container_stats", "pool_stats_301.0_local_stats"]
READERS: dict[str, Callable[[Any], object]] = {
    "worker_stats": read_workers,
    "system_stats_0": read_samples,
    "get_host_info": read_host_info,
    "container_stats": read_containers,
    "pool_stats_301.0_local_stats": lambda raw: read_pool_stats("clio_bdev", raw),
}


@pytest.mark.parametrize("name", NAMES)
def test_damaged_documents(name: str) -> None:
    @settings(modest, max_examples=80)
    @given(damaged(documents(name, ["1.5.1", "2.2.1", "2.3.2"])))
    def check(raw: bytes) -> None:
        bounded(lambda: READERS[name](codec.decode_document(raw)), len(raw))

    check()


@settings(modest, max_examples=80)
@given(damaged(documents("system_stats_0", ["2.3.2"]) | documents("worker_stats")), st.integers(1, 100))
def test_the_tail_is_that_of_the_whole(raw: bytes, keep: int) -> None:
    try:
        whole = codec.decode_document(raw)
    except MalformedAnswerError:
        with pytest.raises(MalformedAnswerError):
            # What is skipped is not checked in full; but it may not be read as something else either.
            codec.decode_tail(raw, 10_000)
        return
    tail = bounded(lambda: codec.decode_tail(raw, keep), len(raw))
    if isinstance(whole, list):
        assert repr(tail) == repr(whole[-keep:])
    else:
        assert tail is None


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4)
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_any_value_in_any_field(name: str) -> None:
    template = recorded.decoded("2.3.2", name)

    @settings(modest, max_examples=100)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        document = json.loads(json.dumps(template))
        row = data.draw(st.sampled_from(document)) if isinstance(document, list) else document
        key = data.draw(st.sampled_from(sorted(row)))
        row[key] = data.draw(values)
        raw = codec.decode_document(msgpack.packb(document))
        problem = ""
        try:
            READERS[name](raw)
        except MalformedAnswerError as error:
            problem = str(error)
        assert not problem or key in problem or "two records" in problem or key == "methods"

    check()


@settings(modest, max_examples=100)
@given(values)
def test_any_document_of_a_module(value: Any) -> None:
    def read(module: str) -> PoolStats | None:
        try:
            return read_pool_stats(module, value)
        except MalformedAnswerError:
            return None

    for module in ("clio_safe_bdev", "clio_bdev", "clio_cte_core", "clio_something"):
        stats = read(module)
        assert stats is None or isinstance(value, dict)


@settings(modest, max_examples=100)
@given(
    values.map(repr)
    | st.text()
    | st.sampled_from(["[" * 100_000, '{"a":' * 5_000, "1" * 5_000, '{"x": 1' + "0" * 400 + "}"])
)
def test_any_health_text(text: str) -> None:
    try:
        numbers = parse_health(text)
    except MalformedAnswerError:
        return
    for value in numbers.values():
        assert math.isfinite(value)


def nested(depth: int, inner: bytes = b"\xc0") -> bytes:
    return b"\x91" * depth + inner


@pytest.mark.parametrize("depth", [100, 900, 1000, 1020])
@pytest.mark.parametrize("kind", [b"\x91", b"\x81\xa1k"])
def test_deep_nesting_is_malformed_everywhere(depth: int, kind: bytes) -> None:
    raw = b"\x81\xa9worker_id" + kind * depth + b"\xc0"
    for module in ("clio_bdev", "clio_something"):
        try:
            read_pool_stats(module, codec.decode_document(raw))
        except MalformedAnswerError:
            continue
    with pytest.raises(MalformedAnswerError):
        read_workers(codec.decode_document(b"\x91" + raw))


def test_lies_within_lies_do_not_multiply() -> None:
    # Each level announces as many elements as there are bytes: an allocation each.
    raw = b"\xdd\x00\x00\x07\xd0" * 400
    raw += bytes(2000 - len(raw) % 2000)
    assert bounded(lambda: codec.decode_document(raw), 400 * 8 * 2000) is None


def test_a_lie_in_a_skipped_element_takes_no_memory() -> None:
    raw = b"\x92\xdd\x05\x00\x00\x00\x01"  # 80 million elements, by its own words
    for keep in (1, 2):
        assert bounded(lambda keep=keep: codec.decode_tail(raw, keep), len(raw)) is None  # type: ignore[misc]


def test_frames_are_those_of_all_generations() -> None:
    assert {f.generation for f in SMALL} == set(Generation)
    assert all(isinstance(f, Frame) for f in SMALL)
