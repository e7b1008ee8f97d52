"""Collectors: from what a scrape learned to samples, number by number."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clio_client import Pool
from clio_client.config.runtime_files import ConfigFile, RuntimeConfigFiles
from clio_client.config.settings import ClusterSettings
from clio_client.errors import HungError, RefusedError
from clio_client.membership import Member
from clio_client.protocol.records import (
    BdevStats,
    Container,
    MethodModel,
    read_pool_stats,
    read_samples,
    read_workers,
)
from clio_client.transport.interface import NodeAddress
from clio_exporter import collectors
from clio_exporter.collectors import COLLECTORS
from clio_exporter.collectors.config import ConfigCollector
from clio_exporter.collectors.node import NodeCollector
from clio_exporter.collectors.pool import PoolCollector
from clio_exporter.exposition import KeptTexts, Samples, Scope
from clio_exporter.job_map import JobList, parse
from clio_exporter.poller import NodePoller, PollOptions, PollSlots
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Peaks, Topic, TopicResult
from tests.unit import recorded
from tests.unit.client.test_records import SAFE_BDEV
from tests.unit.memory_transport import MemoryNode, MemoryTransport, member, snapshot

BARE = ("clio_node_up", "clio_node_info", "clio_node_probe_duration_seconds")
"""What every node that is up has."""

NO_ROUTING = {"pool_query": "", "next_pool_id": ""}
NODE = {"node_id": "0", "hostname": "n0"}
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(*nodes: NodeSnapshot, clusters: tuple[ClusterSnapshot, ...] = ()) -> Series:
    """Every sample of every collector, by name and labels; no sample may come twice."""
    clusters = clusters or (ClusterSnapshot("", nodes),)
    samples = Samples([family for c in COLLECTORS for family in c.families])
    for collector in COLLECTORS:
        for node in nodes:
            collector.collect_node(node, samples)
        for cluster in clusters:
            collector.collect_cluster(cluster, samples)
    found: Series = {}
    for family in text_string_to_metric_families(b"".join(samples.render(openmetrics=False)).decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    check_labels(found)
    return found


DECLARED = {family.name: family for collector in COLLECTORS for family in collector.families}


def check_labels(found: Series) -> None:
    """Every sample has the labels its family declares, and those of its scope."""
    for name, labels in found:
        family = DECLARED[name]
        own, scope = set(family.labels), {label for label, _ in labels} - set(family.labels) - {"cluster"}
        assert own <= {label for label, _ in labels}, name
        # A configuration file may be that of a node.
        assert scope == {"node_id", "hostname"} or (scope == set() and family.scope is Scope.CLUSTER), name


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({**NODE, **labels}.items())


def polled(version: str, answers: dict[str, Any] | None = None) -> NodeSnapshot:
    transport = MemoryTransport({"n0": MemoryNode(version, answers=answers or {})})

    async def poll() -> NodeSnapshot:
        poller = NodePoller(member(), PollOptions(peak_window=1024), PollSlots())
        snapshot = NodeSnapshot(poller.member)
        await poller.poll(snapshot, transport, frozenset(Topic), asyncio.get_running_loop().time() + 5)
        return snapshot

    return asyncio.run(poll())


def names(found: Series) -> set[str]:
    return {name for name, _ in found}


# --- recorded snapshots ------------------------------------------------------------------------------------

WORKER_FIELDS = {
    "is_running": ("running", 1), "is_active": ("active", 1), "num_queued_tasks": ("queued_tasks", 1),
    "num_blocked_tasks": ("blocked_tasks", 1), "num_periodic_tasks": ("periodic_tasks", 1),
    "num_retry_tasks": ("retry_tasks", 1), "num_tasks_processed": ("tasks_processed_total", 1),
    "idle_iterations": ("idle_iterations", 1), "suspend_period_us": ("suspend_period_seconds", 1e6),
    "load": ("load", 1e6),
}  # fmt: skip
TRAFFIC = ("total_reads", "total_writes", "total_bytes_read", "total_bytes_written")
BDEV_FIELDS = {
    "total_capacity": ("capacity_bytes", 1.0), "remaining_capacity": ("free_bytes", 1.0),
    "total_reads": ("reads_total", 1.0), "total_writes": ("writes_total", 1.0),
    "total_bytes_read": ("read_bytes_total", 1.0), "total_bytes_written": ("written_bytes_total", 1.0),
    "read_bandwidth_mbps": ("read_bandwidth_bytes_per_second", 1 / 2**20),
    "write_bandwidth_mbps": ("write_bandwidth_bytes_per_second", 1 / 2**20),
    "read_latency_us": ("read_latency_seconds", 1e6), "write_latency_us": ("write_latency_seconds", 1e6),
    "iops": ("iops", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("version", recorded.versions())
def test_workers(version: str) -> None:
    found = series(polled(version))
    rows = recorded.decoded(version, "worker_stats")
    expected = {
        key(f"clio_worker_{name}", worker_id=str(row["worker_id"])): row[field] / divisor
        for row in rows
        for field, (name, divisor) in WORKER_FIELDS.items()
    }
    assert {k: v for k, v in found.items() if k[0].startswith("clio_worker_")} == pytest.approx(expected)


@pytest.mark.parametrize("version", recorded.versions())
def test_nodes(version: str) -> None:
    node = polled(version)
    found = series(node)
    rows = recorded.decoded(version, "system_stats_0")
    last = rows[-1]
    start = (last["wall_time_ns"] - last["timestamp_ns"] + 1_000_000_000) / 1e9
    expected = {
        key("clio_node_up"): 1,
        key(
            "clio_node_info", address="n0", port="9413", ip_address=last["ip_address"],
            generation=recorded.generation_of(version).value,
        ): 1,
        key("clio_node_probe_duration_seconds"): node.duration,
        key("clio_node_round_trip_seconds"): node.round_trip,
        key("clio_node_questions_total"): node.questions,
        key("clio_node_start_time_seconds"): start,
        key("clio_node_sample_timestamp_seconds"): last["wall_time_ns"] / 1e9,
        key("clio_node_leader"): float(last["is_leader"]),
        key("clio_node_cpu_utilization_ratio"): last["cpu_usage_pct"] / 100,
        key("clio_node_cpu_utilization_peak_ratio"): max(row["cpu_usage_pct"] for row in rows) / 100,
        key("clio_node_memory_total_bytes"): last["ram_total_bytes"],
        key("clio_node_memory_available_bytes"): last["ram_available_bytes"],
        key("clio_node_memory_available_low_bytes"): min(row["ram_available_bytes"] for row in rows),
        key("clio_node_memory_used_ratio"): last["ram_usage_pct"] / 100,
        key("clio_node_gpus"): 0,
    }  # fmt: skip
    # No GPU in the machines of the recordings: nothing about GPUs but their number.
    assert {k: v for k, v in found.items() if k[0].startswith("clio_node_")} == pytest.approx(expected)


@pytest.mark.parametrize("version", recorded.versions())
def test_devices(version: str) -> None:
    found = series(polled(version))
    pools = [r["pool_id"] for r in recorded.decoded(version, "container_stats") if "bdev" in r["chimod_name"]]
    expected: Series = {}
    for pool in pools:
        name = f"pool_stats_{pool}_local_stats"
        if not (recorded.FIXTURES / version / f"{name}.msgpack").exists():
            continue
        row = recorded.decoded(version, name)
        labels = {"pool_id": pool, "pool_name": row["pool_name"]}
        kind = {0: "file", 1: "ram"}[row["bdev_type"]]
        expected[key("clio_bdev_info", **labels, type=kind)] = 1
        counted = kind == "file"  # nothing moves in the recorded memory devices
        for field, (metric, divisor) in BDEV_FIELDS.items():
            if not counted and field in TRAFFIC:
                continue
            expected[key(f"clio_bdev_{metric}", **labels)] = row[field] / divisor
    assert len(expected) >= 8
    # predicted_ttl_days is 999999 and the health texts are empty: nothing of them.
    assert {k: v for k, v in found.items() if "bdev" in k[0]} == pytest.approx(expected)


@pytest.mark.parametrize("version", recorded.versions())
def test_pools_and_models(version: str) -> None:
    found = series(polled(version))
    expected: Series = {}
    for row in recorded.decoded(version, "container_stats"):
        labels = {"pool_id": row["pool_id"], "pool_name": row["pool_name"]}
        described = {"module": row["chimod_name"], "container_id": str(row["container_id"])}
        described |= NO_ROUTING  # no configuration is read here
        expected[key("clio_pool_info", **labels, **described)] = 1
        expected[key("clio_pool_learning_rate", **labels)] = row["learning_rate"]
        errors = []
        for m in row["methods"]:
            if (m["coefficient"], m["mape"], m["wall_coefficient"], m["wall_mape"]) == (1, 0, 1, 0):
                continue
            errors.append(m["mape"])
            for model, prefix in (("cpu", ""), ("wall", "wall_")):
                which = {**labels, "method": m["name"] or str(m["id"]), "model": model}
                expected[key("clio_method_cost_coefficient", **which)] = m[f"{prefix}coefficient"]
                expected[key("clio_method_cost_error_ratio", **which)] = m[f"{prefix}mape"]
        if errors:
            expected[key("clio_pool_cost_error_ratio", **labels)] = median(errors)
    about = {k: v for k, v in found.items() if k[0].startswith(("clio_pool_", "clio_method_"))}
    assert about.keys() - expected.keys() == set()
    assert about == pytest.approx(expected)


def test_the_engine_of_2_3() -> None:
    row = recorded.decoded("2.3.2", "pool_stats_512.0_local_stats")
    labels = {"pool_id": "512.0", "pool_name": row["pool_name"]}
    found = series(polled("2.3.2"))
    assert {k: v for k, v in found.items() if k[0].startswith(("clio_cte_", "clio_module_"))} == {
        key(f"clio_cte_{name}", **labels): row[f"num_{name}"] for name in ("targets", "tags", "blobs")
    }
    assert not any(name.startswith("clio_cte_") for name in names(series(polled("2.1.0"))))


# --- nothing that was not reported --------------------------------------------------------------------------


def test_a_node_that_is_down_has_its_state_and_nothing_else() -> None:
    node = NodeSnapshot(member(), error=RefusedError("refused"), duration=0.25)
    assert series(node) == {
        key("clio_node_up"): 0,
        key("clio_node_down_info", reason="refused"): 1,
        key("clio_node_info", address="n0", port="9413", ip_address="", generation=""): 1,
        key("clio_node_probe_duration_seconds"): 0.25,
    }


def test_a_node_that_has_not_answered_yet() -> None:
    found = series(NodeSnapshot(member()))
    assert found[key("clio_node_up")] == 0
    assert found[key("clio_node_down_info", reason="deadline")] == 1
    assert "clio_node_probe_duration_seconds" not in names(found)


def test_a_node_whose_ring_failed_is_up_by_the_rest() -> None:
    found = series(polled("2.3.2", {"system_stats:0": HungError("hung")}))
    assert found[key("clio_node_up")] == 1
    assert not names(found) & {"clio_node_leader", "clio_node_start_time_seconds", "clio_node_gpus"}
    assert "clio_worker_running" in names(found)


@pytest.mark.parametrize("field", [*WORKER_FIELDS])
def test_a_worker_field_that_is_missing_is_absent(field: str) -> None:
    rows = recorded.decoded("2.3.2", "worker_stats")
    node = snapshot()
    node.workers = tuple(read_workers([{k: v for k, v in row.items() if k != field} for row in rows]))
    found = names(series(node))
    assert f"clio_worker_{WORKER_FIELDS[field][0]}" not in found
    assert len({n for n in found if n.startswith("clio_worker_")}) == len(WORKER_FIELDS) - 1


def test_load_is_never_negative() -> None:
    node = snapshot()
    node.workers = tuple(read_workers([{"worker_id": 0, "load": -0.7}, {"worker_id": 1, "load": 2e6}]))
    found = series(node)
    assert found[key("clio_worker_load", worker_id="0")] == 0
    assert found[key("clio_worker_load", worker_id="1")] == 2


def system_snapshot(**changes: Any) -> NodeSnapshot:
    row = {**recorded.decoded("2.3.2", "system_stats_0")[-1], **changes}
    node = snapshot()
    (node.newest,) = read_samples([{k: v for k, v in row.items() if v is not ...}])
    node.peaks = Peaks(
        node.newest.cpu_usage_pct, node.newest.gpu_usage_pct, node.newest.hbm_used_bytes,
        node.newest.ram_available_bytes,
    )  # fmt: skip
    node.results = {Topic.SYSTEM: TopicResult(None, 0.1)}
    return node


def test_an_empty_sample_gives_nothing() -> None:
    node = snapshot()
    (node.newest,) = read_samples([{"event_id": 3}])
    node.results = {Topic.SYSTEM: TopicResult(None, 0.1)}
    assert names(series(node)) == {*BARE}


def test_a_missing_field_of_a_sample_is_absent() -> None:
    found = names(series(system_snapshot(cpu_usage_pct=..., is_leader=..., ram_total_bytes=...)))
    assert not found & {
        "clio_node_cpu_utilization_ratio", "clio_node_cpu_utilization_peak_ratio", "clio_node_leader",
        "clio_node_memory_total_bytes",
    }  # fmt: skip
    assert "clio_node_memory_available_bytes" in found


GPU = {
    "clio_node_gpu_utilization_ratio": 0.5, "clio_node_gpu_utilization_peak_ratio": 0.5,
    "clio_node_hbm_total_bytes": 80e9, "clio_node_hbm_used_bytes": 20e9,
    "clio_node_hbm_used_peak_bytes": 20e9,
    "clio_node_hbm_used_ratio": 0.25,
}  # fmt: skip


@pytest.mark.parametrize("gpus", [0, 2, ...])
def test_gpus_are_described_where_there_are_some(gpus: Any) -> None:
    node = system_snapshot(
        gpu_count=gpus, gpu_usage_pct=50.0, hbm_total_bytes=80_000_000_000,
        hbm_used_bytes=20_000_000_000, hbm_usage_pct=25.0,
    )  # fmt: skip
    found = series(node)
    about = {k[0]: v for k, v in found.items() if "gpu_" in k[0] or "hbm" in k[0]}
    assert about == (GPU if gpus == 2 else {})
    assert found.get(key("clio_node_gpus")) == (None if gpus is ... else gpus)


# --- devices ----------------------------------------------------------------------------------------------


def device(module: str = "clio_bdev", **fields: Any) -> NodeSnapshot:
    node = snapshot()
    container = Container("301.0", "pool", module, 0, 0.1)
    node.bdevs = (Pool(container, read_pool_stats(module, fields)),)
    return node


DEVICE = {"pool_id": "301.0", "pool_name": "pool"}


@pytest.mark.parametrize(
    ("days", "seconds"), [(999999, None), (1_000_000, None), (999998, 999998 * 86400), (0.5, 43200), (0, 0)]
)
def test_time_to_live(days: float, seconds: float | None) -> None:
    found = series(device(predicted_ttl_days=days))
    assert found.get(key("clio_bdev_predicted_time_to_live_seconds", **DEVICE)) == seconds


@pytest.mark.parametrize(
    ("number", "kind"), [(0, "file"), (1, "ram"), (2, "hbm"), (3, "pinned"), (4, "noop"), (9, "9")]
)
def test_device_types(number: int, kind: str) -> None:
    assert series(device(bdev_type=number))[key("clio_bdev_info", **DEVICE, type=kind)] == 1


def test_an_unknown_device_type_is_absent() -> None:
    assert names(series(device(total_reads=1))) == {*BARE, "clio_bdev_reads_total"}


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_what_the_runtime_does_not_count_of_memory_is_absent(kind: int) -> None:
    """Of a device in memory that is written and read all four counters stay 0 (2.3.2)."""
    traffic = dict.fromkeys(TRAFFIC, 0)
    exported = {f"clio_bdev_{BDEV_FIELDS[field][0]}" for field in TRAFFIC}
    assert not names(series(device(bdev_type=kind, remaining_capacity=5, **traffic))) & exported
    assert exported <= names(series(device(bdev_type=0, **traffic)))
    # A runtime that does count them shows all four.
    assert exported <= names(series(device(bdev_type=kind, **{**traffic, "total_writes": 1})))


def test_device_health() -> None:
    found = series(
        device(
            device_health=json.dumps({"temp": 41, "smart": {"ok": True}}),
            failure_prediction=json.dumps({"risk": 0.125}),
        )
    )
    assert found[key("clio_bdev_device_health", **DEVICE, attribute="temp")] == 41
    assert found[key("clio_bdev_device_health", **DEVICE, attribute="smart.ok")] == 1
    assert found[key("clio_bdev_failure_prediction", **DEVICE, attribute="risk")] == 0.125


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"x": 1' + "0" * 400 + "}", '{"\\ud800": "x"}'])
def test_health_that_cannot_be_read_costs_nothing_else(text: str) -> None:
    found = series(device(device_health=text, total_reads=7))
    assert found[key("clio_bdev_reads_total", **DEVICE)] == 7
    assert "clio_bdev_device_health" not in names(found)


def test_an_array_of_devices() -> None:
    found = series(device("clio_safe_bdev", **SAFE_BDEV))
    labels = {"pool_id": "301.0", "pool_name": "safe0"}
    values = {
        k[0]: v for k, v in found.items() if k[0].startswith("clio_safe_bdev") and not k[0].endswith("_info")
    }
    prefix = "clio_safe_bdev_"
    assert values == {
        prefix + "capacity_bytes": 3 << 30, prefix + "free_bytes": 1 << 30, prefix + "max_failures": 1,
        prefix + "parity_members": 1, prefix + "data_members": 3, prefix + "slots": 4096,
        prefix + "written_slots": 100, prefix + "dirty_slots": 2, prefix + "alloc_log_records": 17,
        prefix + "reattached_members": 0, prefix + "recovery_active": 1, prefix + "recovery_operations": 50,
        prefix + "recovery_operations_completed": 20, prefix + "recovery_operations_in_flight": 4,
        prefix + "recovery_operations_remaining": 26,
    }  # fmt: skip
    for role, index, pool_id, name, state in (
        ("data", "0", "301.0", "m0", "active"),
        ("data", "1", "302.5", "m1", "recovering"),
        ("parity", "0", "4294967295.4294967295", "p0", "faulty"),
    ):
        member_labels = {
            "role": role, "index": index, "member_pool_id": pool_id, "member_pool_name": name, "state": state,
        }  # fmt: skip
        assert found[key("clio_safe_bdev_member_info", **labels, **member_labels)] == 1


def test_the_device_names_itself() -> None:
    assert key("clio_bdev_reads_total", pool_id="301.0", pool_name="own") in series(
        device(pool_name="own", total_reads=1)
    )


def test_records_of_other_kinds_are_not_mixed_up() -> None:
    assert isinstance(device(total_reads=1).bdevs[0].stats, BdevStats)
    node = snapshot()
    container = Container("700.0", "c", "clio_new", 0, None)
    node.modules = (Pool(container, read_pool_stats("clio_new", {"hits": 3, "deep": {"x": 0.5}, "t": "x"})),)
    found = series(node)
    labels = {"pool_id": "700.0", "pool_name": "c", "module": "clio_new"}
    assert {k: v for k, v in found.items() if "module" in k[0]} == {
        key("clio_module_stat", **labels, stat="hits"): 3,
        key("clio_module_stat", **labels, stat="deep.x"): 0.5,
    }


# --- pools ------------------------------------------------------------------------------------------------


def test_methods_without_name_go_by_number_and_absent_values_are_absent() -> None:
    node = snapshot()
    models = (MethodModel(14, "", 2.5, None, None, 0.5), MethodModel(15, None, 1.0, 0.0, 3.0, 0.0))
    node.results = {Topic.CONTAINERS: TopicResult(None, 0.1)}
    node.containers = (Container("1.0", None, None, None, None, models),)
    found = series(node)
    labels = {"pool_id": "1.0", "pool_name": ""}
    assert found[key("clio_pool_info", **labels, **NO_ROUTING, module="", container_id="")] == 1
    assert "clio_pool_learning_rate" not in names(found)
    assert found[key("clio_method_cost_coefficient", **labels, method="14", model="cpu")] == 2.5
    assert key("clio_method_cost_coefficient", **labels, method="14", model="wall") not in found
    assert key("clio_method_cost_error_ratio", **labels, method="14", model="cpu") not in found
    assert found[key("clio_pool_cost_error_ratio", **labels)] == 0.0  # of method 15 alone
    assert found[key("clio_method_cost_error_ratio", **labels, method="14", model="wall")] == 0.5
    assert found[key("clio_method_cost_coefficient", **labels, method="15", model="wall")] == 3


def test_labels_with_quotes_backslashes_and_newlines() -> None:
    wild = 'a"b\\c\nd'
    node = snapshot()
    node.results = {Topic.CONTAINERS: TopicResult(None, 0.1)}
    node.containers = (Container("1.0", wild, wild, 0, 0.5),)
    labels = {"pool_id": "1.0", "pool_name": wild, "module": wild, "container_id": "0"}
    assert key("clio_pool_info", **labels, **NO_ROUTING) in series(node)


# --- configuration ------------------------------------------------------------------------------------------

CONF = """\
networking:
  port: 9413
  auth_token: s3cret-value
  hostfile: "a\\"b\\\\c\\nd"
  note: whatever
compose:
  - mod_name: clio_bdev
    pool_name: "ram::tier"
    pool_query: local
    pool_id: "301.0"
    password: hunter2
"""


def config_cluster(tmp_path: Path, text: str = CONF, name: str = "", copies: int = 1) -> ClusterSnapshot:
    path = tmp_path / "clio.yaml"
    path.write_text(text)
    os.utime(path, (1234.5, 1234.5))
    (file,) = RuntimeConfigFiles(ClusterSettings(runtime_config=str(path)), {}, tmp_path).read(())
    files = [file, *(replace(file, member=Member("", i, "n", NodeAddress("n"))) for i in range(1, copies))]
    return ClusterSnapshot(name, (), tuple(files))


def collected(collector: Any, cluster: ClusterSnapshot) -> Series:
    samples = Samples(collector.families)
    collector.collect_cluster(cluster, samples)
    found = {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(b"".join(samples.render(openmetrics=False)).decode())
        for s in family.samples
    }
    check_labels(found)
    return found


def test_pools_are_written_again_when_they_or_their_routing_have_changed(tmp_path: Path) -> None:
    """Their text is kept from one scrape to the next."""
    kept = KeptTexts()
    first, second = Container("512.1", "a", "m", 0, 0.1), Container("512.2", "b", "m", 0, 0.1)

    def scrape(*pools: Container, known: bool = True, text: str = CONF) -> set[tuple[str, str]]:
        node = snapshot()
        node.kept, node.containers = kept, pools
        node.results = {Topic.CONTAINERS: TopicResult(None if known else RefusedError("refused"), 0.1)}
        cluster = replace(config_cluster(tmp_path, text), nodes=(node,))
        found = collected(PoolCollector(), cluster)
        described = [dict(labels) for name, labels in found if name == "clio_pool_info"]
        return {(labels["pool_name"], labels["pool_query"]) for labels in described}

    assert scrape(first) == {("a", "")} == scrape(first)
    assert scrape(first, second) == {("a", ""), ("b", "")}
    assert scrape(first, second, known=False) == set()
    assert scrape(second) == {("b", "")}
    composed = CONF + '  - {mod_name: m, pool_name: b, pool_query: dynamic, pool_id: "512.2"}\n'
    assert scrape(second, text=composed) == {("b", "dynamic")}
    assert scrape(second) == {("b", "")}


def test_every_family_is_emitted_with_the_labels_it_declares(tmp_path: Path) -> None:
    """What is recorded, and what no recorded runtime had; `series` and `collected` check the labels."""
    seen = names(series(*(polled(version) for version in recorded.versions()[-1:])))
    seen |= names(series(device("clio_safe_bdev", **SAFE_BDEV)))
    seen |= names(
        series(device(device_health='{"a": 1}', failure_prediction='{"b": 2}', predicted_ttl_days=3))
    )
    gpu = {"gpu_usage_pct": 50.0, "hbm_total_bytes": 8, "hbm_used_bytes": 2, "hbm_usage_pct": 25.0}
    seen |= names(series(system_snapshot(gpu_count=1, **gpu)))
    seen |= names(series(NodeSnapshot(member(), error=RefusedError("refused"), duration=0.25)))
    node = snapshot()
    node.modules = (Pool(Container("9.0", "p", "other", 0, 0.1), read_pool_stats("other", {"x": 1})),)
    seen |= names(series(node))
    for collector in (ConfigCollector(), PoolCollector()):
        seen |= names(collected(collector, config_cluster(tmp_path, copies=2)))
    jobs = JobList((parse("job_id=1\nuser=u\njob_name=n\nnode=" + member().hostname),))
    seen |= names(collected(NodeCollector(), ClusterSnapshot("", (snapshot(),), jobs=jobs)))
    assert seen == set(DECLARED)


GADGET = '''
"""Gadgets of every node."""
from clio_exporter.collectors.base import Collector
from clio_exporter.exposition import Family, Kind
from clio_exporter.labels import node_labels

GADGETS = Family("clio_gadgets", Kind.GAUGE, "Gadgets.", "nothing")


class GadgetCollector(Collector):
    families = (GADGETS,)

    def collect_node(self, node, samples):
        samples.add(GADGETS, node_labels(node.member), 3)
'''


def test_a_collector_is_one_file_and_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gadget.py").write_text(GADGET)
    monkeypatch.setattr(collectors, "__path__", [*collectors.__path__, str(tmp_path)])
    collector = collectors.load("gadget")
    monkeypatch.delitem(sys.modules, type(collector).__module__)
    assert collector.name == "gadget"
    samples = Samples(collector.families)
    collector.collect_node(snapshot(), samples)
    assert b'clio_gadgets{node_id="0",hostname="n0"} 3' in b"".join(samples.render(openmetrics=False))


def test_values_of_known_keys_are_exported_and_of_others_that_they_are_there(tmp_path: Path) -> None:
    found = collected(ConfigCollector(), config_cluster(tmp_path))
    values = {dict(labels)["path"]: dict(labels)["value"] for n, labels in found if n == "clio_config_info"}
    assert values["networking.port"] == "9413"
    assert values["networking.hostfile"] == 'a"b\\c\nd'
    assert values["networking.note"].startswith("<hidden ")
    assert "s3cret-value" not in str(found)
    assert "hunter2" not in str(found)
    assert any(path.endswith("auth_token") for path in values)
    file = frozenset({("file", str(tmp_path / "clio.yaml"))})
    assert found["clio_config_load_success", file] == 1
    assert found["clio_config_modified_timestamp_seconds", file] == 1234.5


def test_the_digest_tells_configurations_apart_but_not_layouts(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        found = collected(ConfigCollector(), config_cluster(tmp_path, text))
        (value,) = [dict(labels)["sha256"] for n, labels in found if n == "clio_config_digest_info"]
        return value

    assert digest("runtime:\n  num_threads: 2\n") == digest("# note\nruntime: {num_threads: 2}\n")
    assert digest("runtime:\n  num_threads: 2\n") != digest("runtime:\n  num_threads: 3\n")


def test_a_pool_that_is_composed_tells_its_routing(tmp_path: Path) -> None:
    node = snapshot()
    node.results = {Topic.CONTAINERS: TopicResult(None, 0.1)}
    node.containers = (
        Container("301.0", "ram::tier", "clio_bdev", 0, 0.5),
        Container("1.0", "a", "b", 0, 0.5),
    )
    configs = config_cluster(
        tmp_path, CONF.replace("pool_query", "next_pool_id: '9.0'\n    pool_query")
    ).configs
    found = series(node, clusters=(ClusterSnapshot("", (node,), configs),))
    labels = {"pool_id": "301.0", "pool_name": "ram::tier", "module": "clio_bdev", "container_id": "0"}
    assert found[key("clio_pool_info", **labels, pool_query="local", next_pool_id="9.0")] == 1
    other = {"pool_id": "1.0", "pool_name": "a", "module": "b", "container_id": "0"}
    assert found[key("clio_pool_info", **other, **NO_ROUTING)] == 1


def test_composed_pools_come_once_a_cluster(tmp_path: Path) -> None:
    found = collected(PoolCollector(), config_cluster(tmp_path, name="east", copies=3))
    (composed,) = [dict(labels) for n, labels in found if n == "clio_composed_pool_info"]
    assert composed == {
        "cluster": "east", "pool_id": "301.0", "pool_name": "ram::tier", "module": "clio_bdev",
        "pool_query": "local", "next_pool_id": "",
    }  # fmt: skip


def own_files(tmp_path: Path, *texts: str) -> tuple[tuple[NodeSnapshot, ...], tuple[ConfigFile, ...]]:
    """Nodes with a container of pool 301.0 each, and the file of each; no file where its text is empty."""
    nodes, files = [], []
    for node_id, text in enumerate(texts):
        node = replace(snapshot(), member=member(f"n{node_id}", node_id))
        node.results = {Topic.CONTAINERS: TopicResult(None, 0.1)}
        node.containers = (Container("301.0", f"file::{node_id}", "clio_bdev", node_id, 0.5),)
        nodes.append(node)
        if text:
            (file,) = config_cluster(tmp_path, text).configs
            files.append(replace(file, member=node.member))
    return tuple(nodes), tuple(files)


def routing(
    nodes: tuple[NodeSnapshot, ...], files: tuple[ConfigFile, ...]
) -> tuple[dict[str, tuple[str, str]], list[dict[str, str]]]:
    """Name and routing of each node's pool in `clio_pool_info`, and the labels of composed pools."""
    found = collected(PoolCollector(), ClusterSnapshot("", nodes, files))
    running = [dict(labels) for name, labels in found if name == "clio_pool_info"]
    composed = [dict(labels) for name, labels in found if name == "clio_composed_pool_info"]
    return {one["node_id"]: (one["pool_name"], one["pool_query"]) for one in running}, composed


def test_composed_pools_that_each_node_names_itself_are_one_without_a_name(tmp_path: Path) -> None:
    """One series however many nodes there are; and none of them is left without its routing."""
    texts = [CONF.replace("ram::tier", f"file::{node_id}") for node_id in range(5)]
    running, composed = routing(*own_files(tmp_path, *texts))
    assert running == {str(i): (f"file::{i}", "local") for i in range(5)}
    assert composed == [
        {
            "pool_id": "301.0",
            "pool_name": "",
            "module": "clio_bdev",
            "pool_query": "local",
            "next_pool_id": "",
        }
    ]


def test_a_node_s_own_file_says_how_its_pools_are_routed(tmp_path: Path) -> None:
    """Not the file that was read last; and files that differ in routing are all told."""
    running, composed = routing(*own_files(tmp_path, CONF, CONF.replace("local", "dynamic")))
    assert running == {"0": ("file::0", "local"), "1": ("file::1", "dynamic")}
    assert [(one["pool_name"], one["pool_query"]) for one in composed] == [
        ("ram::tier", "local"), ("ram::tier", "dynamic"),
    ]  # fmt: skip


@pytest.mark.parametrize("silent", ["", "networking: {port: 9413}\n"])
def test_a_node_whose_file_does_not_say_takes_what_the_others_agree_on(tmp_path: Path, silent: str) -> None:
    """One file can compose a pool for all nodes."""
    running, _ = routing(*own_files(tmp_path, CONF, CONF, silent))
    assert running["2"] == ("file::2", "local")
    running, _ = routing(*own_files(tmp_path, CONF, CONF.replace("local", "dynamic"), silent))
    assert running["2"] == ("file::2", "")


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    cluster = ClusterSnapshot("", (), (ConfigFile(None, tmp_path / "gone", None, None),))
    assert collected(ConfigCollector(), cluster) == {
        ("clio_config_load_success", frozenset({("file", str(tmp_path / "gone"))})): 0
    }
