from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clio_lab.simulator.recorded import GENERATIONS, load
from clio_lab.simulator.splice import (
    SpliceError,
    array_header,
    elements,
    encode_like,
    end_of,
    find,
    splice,
    template,
)
from tests.paths import FIXTURES
from tests.unit.lab.simulator.raw_client import VERSION

PAYLOADS = sorted(path for path in FIXTURES.glob("*/*.msgpack") if path.stat().st_size)

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_end_of_finds_the_end_of_any_document(document: object) -> None:
    packed = msgpack.packb(document)
    assert end_of(packed + b"\xc1", 0) == len(packed)


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recorded_payload_scans_to_its_end(path) -> None:
    data = path.read_bytes()
    assert end_of(data, 0) == len(data)


@pytest.mark.parametrize("version", VERSION.values())
def test_find_agrees_with_the_decoded_fixture(version: str) -> None:
    data = (FIXTURES / version / "system_stats_0.msgpack").read_bytes()
    (decoded,) = json.loads((FIXTURES / version / "system_stats_0.json").read_text())["results"].values()
    for index, sample in enumerate(decoded):
        for key, value in sample.items():
            start, end = find(data, (index, key))
            assert msgpack.unpackb(data[start:end]) == value


def test_splice_changes_what_is_named_and_nothing_else() -> None:
    data = (FIXTURES / "2.3.2" / "pool_stats_513.1_local_stats.msgpack").read_bytes()
    before = msgpack.unpackb(data)
    after = msgpack.unpackb(
        splice(data, {("total_reads",): 2**40, ("pool_name",): "x" * 300, ("read_latency_us",): 1.25})
    )
    assert after == {**before, "total_reads": 2**40, "pool_name": "x" * 300, "read_latency_us": 1.25}
    assert splice(data, {("total_reads",): before["total_reads"]}) == data


def test_a_float_keeps_its_recorded_width() -> None:
    assert encode_like(0xCA, 0.5) == msgpack.packb(0.5, use_single_float=True)
    assert encode_like(0xCB, 0.5) == msgpack.packb(0.5)


def test_a_template_filled_with_the_recorded_values_is_the_recording() -> None:
    data = (FIXTURES / "2.3.2" / "worker_stats.msgpack").read_bytes()
    decoded = msgpack.unpackb(data)
    for (start, end), worker in zip(elements(data), decoded, strict=True):
        keys = ["idle_iterations", "num_queued_tasks", "num_tasks_processed", "load"]
        cut = template(data[start:end], [(key,) for key in keys])
        assert cut.fill([worker[key] for key in keys]) == data[start:end]
        with pytest.raises(SpliceError, match="3 values for 4"):
            cut.fill([1, 2, 3])


@pytest.mark.parametrize("number", [0, 15, 16, 65535, 65536])
def test_array_header(number: int) -> None:
    assert array_header(number) == msgpack.Packer().pack_array_header(number)


def test_errors_say_where() -> None:
    data = msgpack.packb({"a": [1, 2]})
    with pytest.raises(SpliceError, match="no key 'b'"):
        find(data, ("b",))
    with pytest.raises(SpliceError, match="no element 2"):
        find(data, ("a", 2))
    with pytest.raises(SpliceError, match="no map"):
        find(data, ("a", "x"))
    with pytest.raises(SpliceError, match="ends at"):
        end_of(data[:-1], 0)
    with pytest.raises(SpliceError, match="0xc1"):
        end_of(b"\xc1", 0)
    with pytest.raises(SpliceError, match="order"):
        template(msgpack.packb({"a": 1, "b": 2}), [("b",), ("a",)])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_package_data_is_what_was_recorded(generation: str) -> None:
    recording = load(generation)
    version = FIXTURES / VERSION[generation]
    for name, payload in recording.results.items():
        file = {"system_stats": "system_stats_0", "cte_core": "pool_stats_512.0_local_stats"}.get(name, name)
        if name.startswith("bdev_"):
            file = f"pool_stats_{name.removeprefix('bdev_')}_local_stats"
        if name == "no_results":
            assert payload == b""
        elif generation == "C" or name != "worker_stats":
            assert payload == (version / f"{file}.msgpack").read_bytes(), name
