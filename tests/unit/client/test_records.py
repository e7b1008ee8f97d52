"""Records: what every version reported, and what no version should."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from clio_client.errors import MalformedAnswerError
from clio_client.protocol.records import (
    BdevStats,
    Container,
    CteStats,
    MethodModel,
    ModuleStats,
    Pool,
    SafeBdevStats,
    SystemSample,
    WorkerStats,
    parse_health,
    read_containers,
    read_host_info,
    read_pool_stats,
    read_samples,
    read_workers,
)
from tests.unit import recorded

BDEV = "pool_stats_301.0_local_stats"


def as_dict(record: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(record).items() if v is not None}


# --- what was recorded ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", recorded.versions())
@pytest.mark.parametrize(("name", "read"), [("worker_stats", read_workers), ("system_stats_0", read_samples)])
def test_every_field_of_every_row_is_kept(version: str, name: str, read: Callable[[Any], list[Any]]) -> None:
    raw = recorded.decoded(version, name)
    records = read(raw)
    assert len(records) > 0
    assert [as_dict(record) for record in records] == raw
    assert len(raw[0]) == {"worker_stats": 11, "system_stats_0": 16}[name]


@pytest.mark.parametrize("version", recorded.versions())
def test_host_info_and_devices_are_kept(version: str) -> None:
    host = recorded.decoded(version, "get_host_info")
    assert as_dict(read_host_info(host)) == host
    raw = recorded.decoded(version, BDEV)
    stats = read_pool_stats("clio_bdev", raw)
    assert isinstance(stats, BdevStats)
    assert as_dict(stats) == raw
    # device_health, failure_prediction and predicted_ttl_days came with 2.2.
    assert len(raw) == (16 if version >= "2.2" else 13)
    assert (stats.predicted_ttl_days is None) == (version < "2.2")


@pytest.mark.parametrize("version", recorded.versions())
def test_containers_keep_the_models_that_have_learned(version: str) -> None:
    raw = recorded.decoded(version, "container_stats")
    containers = read_containers(raw)
    assert [c.pool_id for c in containers] == [row["pool_id"] for row in raw]
    for container, row in zip(containers, raw, strict=True):
        kept = {k: v for k, v in as_dict(container).items() if k != "methods"}
        assert kept == {k: v for k, v in row.items() if k != "methods"}
        learned = [
            m
            for m in row["methods"]
            if (m["coefficient"], m["mape"], m["wall_coefficient"], m["wall_mape"]) != (1, 0, 1, 0)
        ]
        assert [as_dict(m) for m in container.methods] == learned
    assert any(c.methods for c in containers) or version < "2.3"


def test_the_engine_reports_its_counts_since_2_3() -> None:
    raw = recorded.decoded("2.3.2", "pool_stats_512.0_local_stats")
    stats = read_pool_stats("clio_cte_core", raw)
    assert isinstance(stats, CteStats)
    assert as_dict(stats) == raw
    assert read_pool_stats("wrp_cte_core", raw) == stats


# --- missing and unknown ------------------------------------------------------------------------------


def test_what_is_missing_is_none_and_what_is_new_is_ignored() -> None:
    (worker,) = read_workers([{"worker_id": 7, "colour": "green", "load": None}])
    assert as_dict(worker) == {"worker_id": 7}
    (sample,) = read_samples([{"event_id": 0}])
    assert as_dict(sample) == {"event_id": 0}
    assert as_dict(read_host_info({})) == {}
    assert as_dict(read_pool_stats("clio_bdev", {"new": [1, 2]})) == {}
    (container,) = read_containers([{"pool_id": "1.0", "methods": None}])
    assert as_dict(container) == {"pool_id": "1.0", "methods": ()}


def test_rows_without_their_key_are_left_out() -> None:
    assert read_workers([{"load": 1.0}, {"worker_id": 1}])[0].worker_id == 1
    assert [s.event_id for s in read_samples([{}, {"event_id": 2}])] == [2]
    assert read_containers([{"pool_name": "x"}]) == []
    (container,) = read_containers([{"pool_id": "1.0", "methods": [{"name": "x", "coefficient": 2.0}]}])
    assert container.methods == ()


def test_samples_are_sorted_by_event() -> None:
    assert [s.event_id for s in read_samples([{"event_id": i} for i in (5, 3, 4)])] == [3, 4, 5]


# --- wrong values -------------------------------------------------------------------------------------

READERS: dict[type[Any], tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    WorkerStats: ({"worker_id": 0}, lambda row: read_workers([row])[0]),
    SystemSample: ({"event_id": 0}, lambda row: read_samples([row])[0]),
    BdevStats: ({}, lambda row: read_pool_stats("clio_bdev", row)),
    SafeBdevStats: ({}, lambda row: read_pool_stats("clio_safe_bdev", row)),
    CteStats: ({}, lambda row: read_pool_stats("clio_cte_core", row)),
    MethodModel: (
        {"id": 1, "coefficient": 2.0},
        lambda row: read_containers([{"pool_id": "1.0", "methods": [row]}])[0].methods[0],
    ),
}
WRONG: dict[str, list[Any]] = {
    "Count": [-1, "1", 1.5, True, [1], {}, b"1"],
    "Integer": ["1", 1.5, False],
    "Number": ["1", True, []],
    "Measure": [-0.5, -1, "1", True],
    "Flag": [2, -1, "true", 0.5, []],
    "Text": [1, b"x", ["x"], True],
}
FIELDS = [
    (record, field.name, str(field.type))
    for record in READERS
    for field in dataclasses.fields(record)
    if field.name != "members"
]


@pytest.mark.parametrize(("record", "field", "kind"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_wrong_value_names_its_field(record: type[Any], field: str, kind: str) -> None:
    row, read = READERS[record]
    for wrong in WRONG[kind]:
        with pytest.raises(MalformedAnswerError, match=rf"{record.__name__}\.{field}: expected"):
            read({**row, field: wrong})


@pytest.mark.parametrize(
    ("record", "field"), [(r, f) for r, f, kind in FIELDS if kind in ("Number", "Measure")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_was_not_reported(record: type[Any], field: str, value: float) -> None:
    row, read = READERS[record]
    assert getattr(read({**row, field: value}), field) is None


def test_negative_numbers_that_mean_something_are_kept() -> None:
    (worker,) = read_workers([{"worker_id": 0, "load": -0.25}])
    assert worker.load == -0.25


def test_flags_may_be_numbers() -> None:
    workers = read_workers([{"worker_id": 0, "is_active": 1}, {"worker_id": 1, "is_active": 0}])
    assert [w.is_active for w in workers] == [True, False]


@pytest.mark.parametrize(
    ("read", "key", "value"),
    [(read_workers, "worker_id", 3), (read_samples, "event_id", 9), (read_containers, "pool_id", "301.0")],
)
def test_duplicates_are_refused(read: Callable[[Any], Any], key: str, value: object) -> None:
    with pytest.raises(MalformedAnswerError, match=f"two records with one {key}"):
        read([{key: value}, {key: value}])


@pytest.mark.parametrize("read", [read_workers, read_samples, read_containers])
def test_rows_must_be_an_array_of_maps(read: Callable[[Any], Any]) -> None:
    for raw in (None, {}, "rows", 7):
        with pytest.raises(MalformedAnswerError, match="expected an array"):
            read(raw)
    with pytest.raises(MalformedAnswerError, match="expected a map, got int"):
        read([7])
    assert read([]) == []


@pytest.mark.parametrize("module", ["clio_bdev", "clio_safe_bdev", "clio_cte_core", "clio_other"])
def test_statistics_must_be_a_map(module: str) -> None:
    for raw in (None, [], "x"):
        with pytest.raises(MalformedAnswerError, match="expected a map"):
            read_pool_stats(module, raw)


# --- arrays of devices, other modules, health -----------------------------------------------------------

SAFE_BDEV: dict[str, Any] = {
    "pool_name": "safe0", "total_capacity": 3 << 30, "remaining_capacity": 1 << 30,
    "max_failures": 1, "parity_level": 1, "data_count": 3, "total_slots": 4096,
    "written_slots": 100, "dirty_slots": 2, "alloc_log_records": 17, "reattached_members": 0,
    "recovery_active": True, "recovery_ops_total": 50, "recovery_ops_completed": 20,
    "recovery_ops_in_flight": 4, "recovery_ops_remaining": 26,
    "members": [
        {"role": "data", "index": 0, "pool_name": "m0", "pool_id": 301 << 32, "state": "active"},
        {"role": "data", "index": 1, "pool_name": "m1", "pool_id": 302 << 32 | 5, "state": "recovering"},
        {"role": "parity", "index": 0, "pool_name": "p0", "pool_id": (1 << 64) - 1, "state": "faulty"},
    ],
}  # fmt: skip


def test_an_array_of_devices() -> None:
    stats = read_pool_stats("clio_safe_bdev", SAFE_BDEV)
    assert isinstance(stats, SafeBdevStats)
    read = as_dict(stats)
    assert list(read.pop("members")) == SAFE_BDEV["members"]
    assert read == {k: v for k, v in SAFE_BDEV.items() if k != "members"}
    assert [m.dotted_pool_id for m in stats.members] == ["301.0", "302.5", "4294967295.4294967295"]


def test_an_array_without_members_or_with_incomplete_ones() -> None:
    stats = read_pool_stats("clio_safe_bdev", {"members": [{}]})
    assert isinstance(stats, SafeBdevStats)
    assert stats.members[0].dotted_pool_id is None
    assert read_pool_stats("clio_safe_bdev", {}) == read_pool_stats("clio_safe_bdev", {"members": None})
    with pytest.raises(MalformedAnswerError, match="members: expected an array"):
        read_pool_stats("clio_safe_bdev", {"members": 3})
    with pytest.raises(MalformedAnswerError, match=r"SafeBdevMember\.pool_id: expected a count"):
        read_pool_stats("clio_safe_bdev", {"members": [{"pool_id": "301.0"}]})


def test_other_modules_give_their_finite_numbers() -> None:
    stats = read_pool_stats(
        "clio_cte_cache",
        {
            "pool_name": "cache",
            "hits": 3,
            "ratio": 0.5,
            "on": True,
            "off": False,
            "nan": float("nan"),
            "text": "7",
            "list": [1, 2],
            "nothing": None,
            "lru": {"size": 9, "deeper": {"x": -1}},
        },
    )
    assert stats == ModuleStats(
        "cache", {"hits": 3, "ratio": 0.5, "on": 1.0, "off": 0.0, "lru.size": 9, "lru.deeper.x": -1}
    )
    assert read_pool_stats("x", {"pool_name": 7}) == ModuleStats(None, {"pool_name": 7})


def test_health_is_flattened_json() -> None:
    assert parse_health(None) == {}
    assert parse_health("") == {}
    assert parse_health("{}") == {}
    text = json.dumps({"wear": 0.25, "smart": {"temp_c": 40, "ok": True}, "model": "X", "list": [1]})
    assert parse_health(text) == {"wear": 0.25, "smart.temp_c": 40, "smart.ok": 1.0}
    assert parse_health('{"a": NaN, "b": Infinity, "c": 1}') == {"c": 1}
    assert parse_health('{"a": 1' + "0" * 400 + "}") == {}
    for broken in ("{", "no json", "[" * 100_000, '{"a":' * 30 + "1" + "}" * 30):
        with pytest.raises(MalformedAnswerError):
            parse_health(broken)


@pytest.mark.parametrize(
    ("values", "learned"),
    [((1.0, 0.0, 1.0, 0.0), False), ((2.0, 0.0, 1.0, 0.0), True), ((1.0, 0.1, 1.0, 0.0), True),
     ((1.0, 0.0, 3.0, 0.0), True), ((1.0, 0.0, 1.0, 0.2), True)],
)  # fmt: skip
def test_a_model_has_learned_once_it_moved(values: tuple[float, ...], learned: bool) -> None:
    assert MethodModel(1, "m", *values).has_learned is learned


@pytest.mark.parametrize(
    ("module", "pool", "is_bdev", "is_admin"),
    [
        ("clio_bdev", "301.0", True, False),
        ("clio_safe_bdev", "302.0", True, False),
        ("clio_cte_core", "512.0", False, False),
        ("clio_admin", "1.0", False, True),
        (None, None, False, False),
    ],
)
def test_what_a_pool_is(module: str | None, pool: str | None, is_bdev: bool, is_admin: bool) -> None:
    container = Container(
        pool_id=pool, pool_name=None, chimod_name=module, container_id=None, learning_rate=None
    )
    assert (container.is_bdev, container.is_admin) == (is_bdev, is_admin)


def test_a_pool_is_called_as_its_list_says_where_it_reports_nothing() -> None:
    row = {"pool_id": "301.0", "pool_name": "ram"}
    (named,) = read_containers([row])
    assert Pool(named, None).name == "ram"
    (unnamed,) = read_containers([{"pool_id": "301.0"}])
    assert Pool(unnamed, None).name == ""


@pytest.mark.parametrize("model", [5, "x", None, [1]])
def test_a_model_that_is_none_is_malformed(model: object) -> None:
    with pytest.raises(MalformedAnswerError, match="MethodModel"):
        read_containers([{"pool_id": "301.0", "methods": [model]}])
