"""What is exported is what the runtime reports: nothing else, nothing less, in base units.

The runtime's own answers are taken with recorded frames and a client of this test (`raw_runtime`),
once before and once after each scrape. How an answer becomes samples is written down here a second
time, on purpose: every field the runtime reports has an entry, or the test fails.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import yaml

from clio_client.transport import zeromq as zmq_transport
from clio_exporter.engine import Engine
from clio_exporter.settings import Settings
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.node import LocalNode
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.integration.live import Deadline, Exporter, NodeScrape, Series, free_port
from tests.integration.raw_runtime import RawRuntime, decode, query_of, request_id

pytestmark = pytest.mark.integration

ROUNDS = 60
"""Scrapes a gauge is given to be caught in a moment at which it does not change."""

PEAK_WINDOW_S = 60

OURS = ("clio_node_", "clio_worker_", "clio_bdev_", "clio_pool_", "clio_method_", "clio_cte_", "clio_module_")
FROM_THE_EXPORTER = {
    "clio_node_up",
    "clio_node_probe_duration_seconds",
    "clio_node_round_trip_seconds",
    "clio_node_questions_total",
}
"""Of those, what is about asking the node and not from an answer."""

RESTLESS = {
    "clio_pool_cost_error_ratio",
    "clio_method_cost_coefficient",
    "clio_method_cost_error_ratio",
    "clio_worker_idle_iterations",
    "clio_worker_load",
}
"""What each question changes, because asking is work too: compared answer by answer, in the last test."""

Convert = Callable[[Any], float | None]


def same(value: Any) -> float:
    return float(value)


def over(divisor: float) -> Convert:
    return lambda value: value / divisor


def times(factor: float) -> Convert:
    return lambda value: value * factor


WORKER: dict[str, tuple[str, Convert] | None] = {
    "worker_id": None,  # a label
    "is_running": ("clio_worker_running", same),
    "is_active": ("clio_worker_active", same),
    "idle_iterations": ("clio_worker_idle_iterations", same),
    "num_queued_tasks": ("clio_worker_queued_tasks", same),
    "num_blocked_tasks": ("clio_worker_blocked_tasks", same),
    "num_periodic_tasks": ("clio_worker_periodic_tasks", same),
    "num_retry_tasks": ("clio_worker_retry_tasks", same),
    "suspend_period_us": ("clio_worker_suspend_period_seconds", over(1e6)),
    "num_tasks_processed": ("clio_worker_tasks_processed_total", same),
    "load": ("clio_worker_load", lambda micros: max(0.0, micros / 1e6)),
}
SYSTEM: dict[str, tuple[str, Convert] | None] = {
    "event_id": None,  # the exporter's cursor
    "timestamp_ns": None,  # the runtime's monotonic clock: see the start time
    "wall_time_ns": ("clio_node_sample_timestamp_seconds", over(1e9)),
    "ram_total_bytes": ("clio_node_memory_total_bytes", same),
    "ram_available_bytes": ("clio_node_memory_available_bytes", same),
    "ram_usage_pct": ("clio_node_memory_used_ratio", over(100)),
    "cpu_usage_pct": ("clio_node_cpu_utilization_ratio", over(100)),
    "gpu_count": ("clio_node_gpus", same),
    "gpu_usage_pct": ("clio_node_gpu_utilization_ratio", over(100)),
    "hbm_usage_pct": ("clio_node_hbm_used_ratio", over(100)),
    "hbm_used_bytes": ("clio_node_hbm_used_bytes", same),
    "hbm_total_bytes": ("clio_node_hbm_total_bytes", same),
    "hostname": None,  # the hostfile's text, which is the label
    "ip_address": None,  # a label of clio_node_info
    "node_id": None,  # a label
    "is_leader": ("clio_node_leader", same),
}
GPU_FIELDS = {"gpu_usage_pct", "hbm_usage_pct", "hbm_used_bytes", "hbm_total_bytes"}
"""Without a GPU the runtime fills these with 0; a measurement they are only where there is one."""

BDEV: dict[str, tuple[str, Convert] | None] = {
    "pool_name": None,  # a label
    "bdev_type": None,  # a label of clio_bdev_info
    "total_capacity": ("clio_bdev_capacity_bytes", same),
    "remaining_capacity": ("clio_bdev_free_bytes", same),
    "read_bandwidth_mbps": ("clio_bdev_read_bandwidth_bytes_per_second", times(2**20)),
    "write_bandwidth_mbps": ("clio_bdev_write_bandwidth_bytes_per_second", times(2**20)),
    "read_latency_us": ("clio_bdev_read_latency_seconds", over(1e6)),
    "write_latency_us": ("clio_bdev_write_latency_seconds", over(1e6)),
    "iops": ("clio_bdev_iops", same),
    "total_reads": ("clio_bdev_reads_total", same),
    "total_writes": ("clio_bdev_writes_total", same),
    "total_bytes_read": ("clio_bdev_read_bytes_total", same),
    "total_bytes_written": ("clio_bdev_written_bytes_total", same),
    "device_health": None,  # JSON text, "{}" here
    "failure_prediction": None,  # JSON text, "{}" here
    "predicted_ttl_days": (
        "clio_bdev_predicted_time_to_live_seconds",
        lambda days: None if days == 999999 else days * 86400.0,
    ),
}
COUNTED = {"total_reads", "total_writes", "total_bytes_read", "total_bytes_written"}
"""What the runtime does not count of devices in memory: there it reports 0, which is not exported."""

CTE: dict[str, tuple[str, Convert] | None] = {
    "pool_name": None,  # a label
    "num_targets": ("clio_cte_targets", same),
    "num_tags": ("clio_cte_tags", same),
    "num_blobs": ("clio_cte_blobs", same),
}
CONTAINER = {"pool_id", "pool_name", "chimod_name", "container_id", "methods", "learning_rate"}
METHOD = {"id", "name", "coefficient", "mape", "wall_coefficient", "wall_mape"}
HOST_INFO = {"hostname", "ip_address", "node_id"}
BDEV_TYPES = {0: "file", 1: "ram"}

POOL_STATS = "pool_stats_301.0_local_stats"

MONOTONE = {
    "clio_worker_tasks_processed_total",
    "clio_bdev_reads_total",
    "clio_bdev_writes_total",
    "clio_bdev_read_bytes_total",
    "clio_bdev_written_bytes_total",
}
"""Counters that only a restart sets back: the exported value lies between before and after."""


@dataclass
class Answers:
    """What one node reported, query by query, and the samples that follow from it.

    `expected` has every sample but those of the 1 Hz ring; `ring` has the ring itself.
    """

    ring: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    expected: dict[Series, float] = field(default_factory=dict)
    pools_with_stats: int = 0


class Truth:
    """Takes a node's own answers. `ask` gets a recorded query's name, and the pool for `POOL_STATS`."""

    def __init__(self, ask: Callable[[str, str | None], Any], node: LocalNode) -> None:
        self._ask = ask
        self._node = {"node_id": str(node.index), "hostname": node.host}
        self._node_at = node
        # Routing and chain are configured, not reported: from the file the runtime was started with.
        configured = yaml.safe_load(node.config_path.read_text())
        self._composed = {pool["pool_id"]: pool for pool in configured["compose"]}

    def take(self) -> Answers:
        host = self._ask("get_host_info", None)
        assert host.keys() == HOST_INFO
        assert (host["hostname"], host["node_id"]) == (self._node_at.host, self._node_at.index)
        answers = Answers(ring=self._ask("system_stats_0", None), workers=self._ask("worker_stats", None))
        for entry in answers.ring:
            assert entry.keys() == SYSTEM.keys()
        info = {"address": self._node_at.host, "port": str(self._node_at.port), "generation": "C"}
        self._add(answers, "clio_node_info", 1, {**info, "ip_address": host["ip_address"]})
        for worker in answers.workers:
            self._fields(answers, WORKER, worker, {"worker_id": str(worker["worker_id"])})
        for container in self._ask("container_stats", None):
            self._container(answers, container)
        return answers

    def _add(self, answers: Answers, name: str, value: float, labels: Mapping[str, str]) -> None:
        series = (name, frozenset({**self._node, **labels}.items()))
        assert series not in answers.expected, series
        answers.expected[series] = value

    def _fields(
        self,
        answers: Answers,
        table: Mapping[str, tuple[str, Convert] | None],
        record: Mapping[str, Any],
        labels: Mapping[str, str],
    ) -> None:
        assert record.keys() == table.keys(), "the runtime reports other fields than this test knows"
        for name, entry in table.items():
            if name in COUNTED and record["bdev_type"] == 1:
                assert record[name] == 0, "the runtime counts what a RAM device reads and writes"
                continue
            value = None if entry is None else entry[1](record[name])
            if entry is not None and value is not None:
                self._add(answers, entry[0], value, labels)

    def _container(self, answers: Answers, container: Mapping[str, Any]) -> None:
        assert container.keys() == CONTAINER
        pool = {"pool_id": container["pool_id"], "pool_name": container["pool_name"]}
        composed = self._composed.get(container["pool_id"], {})
        described = {
            "module": container["chimod_name"],
            "container_id": str(container["container_id"]),
            "pool_query": composed.get("pool_query", ""),
            "next_pool_id": composed.get("next_pool_id", ""),
        }
        self._add(answers, "clio_pool_info", 1, {**pool, **described})
        self._add(answers, "clio_pool_learning_rate", container["learning_rate"], pool)
        errors = []
        for method in container["methods"]:
            assert method.keys() == METHOD
            if [method[key] for key in ("coefficient", "mape", "wall_coefficient", "wall_mape")] == [
                1,
                0,
                1,
                0,
            ]:
                continue  # nothing learned: where every model starts
            errors.append(method["mape"])
            name = {**pool, "method": method["name"] or str(method["id"])}
            for model, prefix in (("cpu", ""), ("wall", "wall_")):
                labels = {**name, "model": model}
                self._add(answers, "clio_method_cost_coefficient", method[f"{prefix}coefficient"], labels)
                self._add(answers, "clio_method_cost_error_ratio", method[f"{prefix}mape"], labels)
        if errors:
            self._add(answers, "clio_pool_cost_error_ratio", median(errors), pool)
        if container["pool_id"] == "1.0":
            return  # the admin pool's statistics are the other queries
        stats = self._ask(POOL_STATS, container["pool_id"])
        if stats is None:
            return
        answers.pools_with_stats += 1
        assert stats["pool_name"] == container["pool_name"]
        if container["chimod_name"] == "clio_bdev":
            assert stats["device_health"] == stats["failure_prediction"] == "{}"
            self._add(answers, "clio_bdev_info", 1, {**pool, "type": BDEV_TYPES[stats["bdev_type"]]})
            self._fields(answers, BDEV, stats, pool)
        else:
            assert container["chimod_name"] == "clio_cte_core", "a module this test has no table for"
            self._fields(answers, CTE, stats, pool)


def close(a: float, b: float) -> bool:
    """Equal, up to the rounding of one unit conversion."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=0.0)


def check_ring(samples: Mapping[Series, float], ring: list[dict[str, Any]], node: LocalNode) -> set[Series]:
    """All fields of the ring's entry of the exported time. Returns the series this explains."""
    labels = frozenset({"node_id": str(node.index), "hostname": node.host}.items())
    when = samples["clio_node_sample_timestamp_seconds", labels]
    entry = next((e for e in ring if close(e["wall_time_ns"] / 1e9, when)), None)
    assert entry is not None, f"no entry of the ring was taken at {when}"
    expected: dict[str, float] = {}
    for name, target in SYSTEM.items():
        if target is None or (name in GPU_FIELDS and not entry["gpu_count"]):
            continue
        value = target[1](entry[name])
        assert value is not None
        expected[target[0]] = value
    window = [
        e
        for e in ring
        if 0 <= entry["timestamp_ns"] - e["timestamp_ns"] <= PEAK_WINDOW_S * 1e9
        and e["event_id"] <= entry["event_id"]
    ]
    expected["clio_node_cpu_utilization_peak_ratio"] = max(e["cpu_usage_pct"] for e in window) / 100
    expected["clio_node_memory_available_low_bytes"] = min(e["ram_available_bytes"] for e in window)
    for name, value in expected.items():
        assert close(samples[name, labels], value), (name, samples[name, labels], value)
    assert node.pid is not None
    started = psutil.Process(node.pid).create_time()
    assert abs(samples["clio_node_start_time_seconds", labels] - started) < 2
    return {(name, labels) for name in (*expected, "clio_node_start_time_seconds")}


def compare(scrape: NodeScrape, before: Answers, after: Answers, node: LocalNode) -> set[Series]:
    """Fail where an exported sample cannot be true; return the series shown to be true by this scrape."""
    samples = {s: v for s, v in scrape.of_node(node.index).items() if s[0].startswith(OURS)}
    explained = check_ring(samples, after.ring, node)
    reported = before.expected.keys() | after.expected.keys()
    invented = {s for s in samples.keys() - explained - reported if s[0] not in FROM_THE_EXPORTER}
    assert not invented
    # Reported before and after, so reported in between (workers come and go, methods learn).
    missing = (before.expected.keys() & after.expected.keys()) - samples.keys()
    assert not missing
    for series, value in samples.items():
        low, high = before.expected.get(series), after.expected.get(series)
        if low is None or high is None:
            continue
        if series[0] in MONOTONE:
            assert low <= value <= high, (series, low, value, high)
            explained.add(series)
        elif close(value, low) or close(value, high):
            explained.add(series)
    return explained


def show_true(exporter: Exporter, truth: Truth, node: LocalNode) -> NodeScrape:
    """Scrape between the runtime's own answers until every series that holds still was shown to be true."""
    shown: set[Series] = set()
    for count in range(1, ROUNDS + 1):
        before = truth.take()
        scrape = exporter.take(10)
        after = truth.take()
        shown |= compare(scrape, before, after, node)
        series = {s for s in scrape.of_node(node.index) if s[0].startswith(OURS)}
        left = {s for s in series - shown if s[0] not in FROM_THE_EXPORTER | RESTLESS}
        if not left and count >= 3:
            return scrape
    pytest.fail(f"never as the runtime reported in {ROUNDS} scrapes: {sorted(left, key=str)}")


def truth_of(raw: RawRuntime, node: LocalNode) -> Truth:
    """Answers of the runtime itself."""
    at = (node.host, node.client_port)
    return Truth(lambda name, pool_id: raw.ask(at, name, pool_id), node)


@pytest.fixture(scope="module")
def exporter(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Reads the list of pools in every scrape, so that one scrape has one moment."""
    arguments = [f"--hostfile={cluster4.hostfile}", f"--runtime-config={cluster4.nodes[0].config_path}"]
    arguments += ["--collector.pool.interval=1ms", "--collector.cost"]
    with Exporter(tmp_path_factory.mktemp("truth"), *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def raw() -> Iterator[RawRuntime]:
    with RawRuntime(free_port()) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def traffic(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    state = State(tmp_path_factory.mktemp("traffic") / "state.json")
    load = Traffic(cluster4, state, burst=0.3, interval=0.4)
    load.start(lambda _line: None)
    try:
        yield load
    finally:
        load.stop()


def wait_for_blobs(exporter: Exporter, nodes: int) -> None:
    """Until every node has written to a counted device, read from it, and holds blobs."""
    needed = ("clio_bdev_written_bytes_total", "clio_bdev_read_bytes_total", "clio_cte_blobs")
    for scrape in exporter.takes(120, timeout=10):
        found = [scrape.totals(name) for name in needed]
        if all(sum(value > 0 for value in by_node.values()) == nodes for by_node in found):
            return
    pytest.fail(f"no load on some node: {found}")


def test_every_field_while_blobs_move(
    cluster4: LocalCluster, exporter: Exporter, raw: RawRuntime, traffic: Traffic
) -> None:
    wait_for_blobs(exporter, len(cluster4.nodes))
    earlier = exporter.take(10)
    node = cluster4.nodes[0]
    truth = truth_of(raw, node)
    shown: set[Series] = set()
    for _ in range(10):
        before = truth.take()
        scrape = exporter.take(10)
        shown |= compare(scrape, before, truth.take(), node)
    assert {name for name, _ in shown} >= MONOTONE
    for scrape in exporter.takes(60, timeout=10):
        moved = {
            name: scrape.totals(name)[0] - earlier.totals(name)[0]
            for name in ("clio_worker_tasks_processed_total", "clio_bdev_written_bytes_total")
        }
        assert min(moved.values()) >= 0
        if min(moved.values()) > 0:
            break
    else:
        pytest.fail(f"counters stood still under load: {moved}")


def test_every_field_of_every_node_at_rest(
    cluster4: LocalCluster, exporter: Exporter, raw: RawRuntime, traffic: Traffic
) -> None:
    wait_for_blobs(exporter, len(cluster4.nodes))
    traffic.stop()
    leaders = []
    for node in cluster4.nodes:
        truth = truth_of(raw, node)
        scrape = show_true(exporter, truth, node)
        answers = truth.take()
        assert answers.pools_with_stats == 5  # two devices, two tiers, the engine
        leaders.append(scrape.value("clio_node_leader", node_id=str(node.index)))
        assert scrape.value("clio_node_up", node_id=str(node.index)) == 1
        everything = scrape.value("clio_node_probe_duration_seconds", node_id=str(node.index))
        one = scrape.value("clio_node_round_trip_seconds", node_id=str(node.index))
        assert 0 < one < everything < 10
        # The workers, what is new of the ring, the list of pools, the statistics of five: eight in each.
        assert scrape.value("clio_node_questions_total", node_id=str(node.index)) > 8
        assert scrape.value("clio_collector_success", collector="node") == 1
        names = {name for name, _ in scrape.of_node(node.index)}
        assert {"clio_method_cost_coefficient", "clio_method_cost_error_ratio"} <= names
    assert sum(leaders) == 1


def native_workers(node: LocalNode, program: Path) -> list[dict[str, Any]]:
    """`clio_run monitor --once --json`: the runtime's own tool. It prints JSON amidst its log."""
    result = subprocess.run(
        [str(program), "monitor", "--once", "--json"],
        env={**node.environment, "CLIO_WAIT_SERVER": "10"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    text = (result.stdout + result.stderr).decode(errors="replace")
    found = re.search(r'\{\s*"[a-z_]+"\s*:\s*\[.*?\]\s*\}', text, re.DOTALL) or re.search(
        r"\[\{.*?\}\]", text
    )
    assert found is not None, text
    document = json.loads(found[0])
    rows = (
        document if isinstance(document, list) else next(v for v in document.values() if isinstance(v, list))
    )
    return list(rows)


def test_workers_as_the_runtimes_own_tool_shows_them(
    cluster4: LocalCluster, exporter: Exporter, traffic: Traffic
) -> None:
    traffic.stop()
    program = Path(cluster4.install.start_command[0])
    steady = ("is_running", "num_blocked_tasks", "num_retry_tasks", "num_tasks_processed")
    for node in cluster4.nodes[:2]:
        before = {row["worker_id"]: row for row in native_workers(node, program)}
        scrape = exporter.take(10)
        after = {row["worker_id"]: row for row in native_workers(node, program)}
        common = before.keys() & after.keys()
        assert len(common) >= 2
        for worker in common:
            assert before[worker].keys() <= WORKER.keys()
            for name in steady:
                entry = WORKER[name]
                assert entry is not None
                value = scrape.value(entry[0], node_id=str(node.index), worker_id=str(worker))
                assert before[worker][name] <= value <= after[worker][name], (worker, name)


def burn(seconds: float) -> list[subprocess.Popen[bytes]]:
    code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    count = psutil.cpu_count() or 1
    return [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]


@pytest.mark.alone  # a load of its own
def test_a_spike_between_two_scrapes_is_kept(
    cluster4: LocalCluster, exporter: Exporter, raw: RawRuntime, traffic: Traffic
) -> None:
    traffic.stop()
    node = cluster4.nodes[3]
    at = (node.host, node.client_port)
    exporter.take(10)
    first = raw.ask(at, "system_stats_0")[-1]["event_id"]
    for process in burn(3):
        process.wait(30)
    # Nobody scrapes until the spike has gone from the newest sample.
    end = Deadline(30)
    while True:
        since = [
            entry["cpu_usage_pct"] for entry in raw.ask(at, "system_stats_0") if entry["event_id"] > first
        ]
        if len(since) > 3 and since[-1] < max(since):
            break
        assert not end.over, since
        exporter.idle(0.2)
    spike = max(since)
    assert spike > 50, since
    scrape = exporter.take(10)
    peak = scrape.value("clio_node_cpu_utilization_peak_ratio", node_id="3")
    assert peak >= spike / 100 * (1 - 1e-12)
    assert scrape.value("clio_node_cpu_utilization_ratio", node_id="3") <= peak
    check_ring(scrape.of_node(3), raw.ask(at, "system_stats_0"), node)


WITHOUT_STATS = ("400.0", "560.0", "561.0", "563.0", "564.0", "565.0")
"""Pools of the demo's modules that report no statistics; the tests above ask the runtime each time."""


class Tap:
    """The frames between an exporter in this process and the runtimes, for this test's own decoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._queries: dict[int, str] = {}
        self.answers: dict[str, Any] = {}
        tap = self

        class Requests(zmq_transport.RequestSocket):
            def send(self, routing_id: bytes, frame: bytes) -> None:
                query = query_of(frame)
                if query is not None:
                    tap._queries[request_id(frame)] = query
                super().send(routing_id, frame)

        class Replies(zmq_transport.ReplySocket):
            def __init__(
                self, context: Any, loop: Any, port: int, on_answer: Callable[[bytes], None]
            ) -> None:
                def both(frame: bytes) -> None:
                    tap.answered(frame)
                    on_answer(frame)

                super().__init__(context, loop, port, both)

        monkeypatch.setattr(zmq_transport, "RequestSocket", Requests)
        monkeypatch.setattr(zmq_transport, "ReplySocket", Replies)

    def answered(self, frame: bytes) -> None:
        query = self._queries.get(request_id(frame))
        if query is not None:
            self.answers[query] = decode(frame)


def test_each_sample_is_what_this_very_answer_said(
    cluster4: LocalCluster,
    raw: RawRuntime,
    traffic: Traffic,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    traffic.stop()
    node = cluster4.nodes[1]
    tap = Tap(monkeypatch)
    # One member, so that a query names its answer; its number in the cluster is 1.
    hostfile = tmp_path / "hostfile"
    hostfile.write_text(f"{cluster4.nodes[0].host}:1\n{node.host}:{node.port}\n")
    settings = Settings().with_overrides(
        {"cost": True},
        hostfile=str(hostfile),
        runtime_config=str(node.config_path),
        reply_port=free_port(),
        pool_interval_seconds=0.001,
    )

    def ask(name: str, pool_id: str | None) -> Any:
        """From what the exporter was told; what it does not ask for, from the runtime."""
        if name in ("get_host_info", "system_stats_0"):
            return raw.ask((node.host, node.client_port), name)
        return tap.answers[f"pool_stats://{pool_id}:local:stats" if pool_id else name]

    with contextlib.closing(Engine(lambda: settings, {}, tmp_path)) as engine:
        for _ in range(5):
            tap.answers.clear()
            scrape = NodeScrape(b"".join(engine.scrape(None, 10.0).render(openmetrics=False)).decode())
            if not scrape.up(1):
                pytest.fail(f"node 1 is down: {scrape.reason(1)}")
            tap.answers.setdefault("pool_stats://1.0:local:stats", None)
            for pool in WITHOUT_STATS:
                # Asked for once; a module that had none is not asked again.
                tap.answers.setdefault(f"pool_stats://{pool}:local:stats", None)
            told = Truth(ask, node).take()
            samples = {s: v for s, v in scrape.of_node(1).items() if s[0].startswith(OURS)}
            ring = check_ring(samples, raw.ask((node.host, node.client_port), "system_stats_0"), node)
            assert samples.keys() - ring - told.expected.keys() == {
                s for s in samples if s[0] in FROM_THE_EXPORTER
            }
            for series, value in told.expected.items():
                assert close(samples[series], value), (series, samples[series], value)
            assert {name for name, _ in told.expected} >= RESTLESS
