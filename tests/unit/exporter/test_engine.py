"""The scrape engine over runtimes in memory."""

from __future__ import annotations

import gc
import io
import json
import threading
import time
import unittest.mock
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from clio_client.config.errors import ConfigError
from clio_client.errors import RefusedError, TransportUnavailableError
from clio_client.questions import DISCOVERY_QUERY
from clio_client.transport.interface import MonitorAnswer
from clio_exporter import engine as engine_module
from clio_exporter.cluster_poll import ClusterPoll
from clio_exporter.collectors.worker import WorkerCollector
from clio_exporter.engine import Engine, Result
from clio_exporter.http.service import UnknownTarget
from clio_exporter.poller import LISTS_AT_ONCE, NODES_AT_ONCE
from clio_exporter.settings import Settings, load_settings
from clio_web import logs
from tests.unit.memory_transport import MemoryNode, MemoryTransport

LONG = 10.0


class Bench:
    """Engines over nodes in memory, by host name."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.nodes = {name: MemoryNode() for name in ("n0", "n1", "n2", "other")}
        self.transports: list[MemoryTransport] = []
        self.engines: list[Engine] = []
        self.now = 1_700_000_000.0

    def engine(self, load: Callable[[], Settings] | None = None, **flags: object) -> Engine:
        flags = flags or {"nodes": ["n0", "n1", "n2"]}
        engine = Engine(
            load or (lambda: Settings().with_overrides(**flags)),  # type: ignore[arg-type]
            {}, self.path, clock=lambda: self.now,
        )  # fmt: skip
        self.engines.append(engine)
        return engine

    def engine_with(self, hostfile: Path, text: str) -> Engine:
        hostfile.write_text(text)
        return self.engine(hostfile=str(hostfile))

    def from_file(self, text: str) -> Engine:
        self.settings = self.path / "settings.yaml"
        self.settings.write_text(text)
        return self.engine(lambda: load_settings(self.settings))

    def transport(self, _runtime: object, _role: str) -> MemoryTransport:
        self.transports.append(MemoryTransport(self.nodes))
        return self.transports[-1]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    monkeypatch.setattr(engine_module, "make_transport", bench.transport)
    yield bench
    for node in bench.nodes.values():
        if node.gate is not None:
            node.gate.set()
    for engine in bench.engines:
        engine.close()


Values = dict[str, dict[tuple[tuple[str, str], ...], float]]


def values(result: Result) -> Values:
    found: Values = {}
    for family in text_string_to_metric_families(b"".join(result.render(openmetrics=False)).decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def up(found: Values) -> dict[str, float]:
    return {dict(labels)["hostname"]: value for labels, value in found["clio_node_up"].items()}


def of_collector(found: Values, name: str = "clio_collector_success") -> dict[str, float]:
    return {dict(labels)["collector"]: value for labels, value in found[name].items()}


def test_a_scrape_has_the_whole_cluster_and_the_exporter(bench: Bench) -> None:
    result = bench.engine().scrape(None, LONG)
    found = values(result)
    assert up(found) == {"n0": 1, "n1": 1, "n2": 1}
    assert of_collector(found) == dict.fromkeys(("node", "worker", "bdev", "pool", "cte", "config"), 1)
    assert all(seconds >= 0 for seconds in of_collector(found, "clio_collector_duration_seconds").values())
    assert found["clio_cluster_nodes"] == {(): 3}
    assert found["clio_cluster_membership_success"] == {(): 1}
    assert found["clio_exporter_collections_total"] == {(): 1}
    assert "process_cpu_seconds_total" in found
    openmetrics = b"".join(result.render(openmetrics=True)).decode()
    assert openmetrics.endswith("# EOF\n")
    assert openmetrics.count("# EOF") == 1
    assert len(list(parse_openmetrics(openmetrics))) > 50


def test_the_duration_of_a_collector_is_that_of_its_slowest_answer(bench: Bench) -> None:
    """A worker's answer is held back; what others ask comes at once."""
    gate = hold(bench.nodes["n1"], "worker_stats")
    engine = bench.engine()
    held = 0.3
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        scraping = pool.submit(engine.scrape, None, LONG)
        eventually(lambda: "worker_stats" in bench.nodes["n1"].asked, "nothing was asked")
        asked = time.monotonic()
        while time.monotonic() < asked + held:
            time.sleep(0.01)
        gate.set()
        found = values(scraping.result(LONG))
        whole = time.monotonic() - began
    seconds = of_collector(found, "clio_collector_duration_seconds")
    assert held <= seconds["worker"] <= whole
    assert 0 <= seconds["config"] < seconds["worker"]  # asks no node
    assert all(0 <= each <= whole for each in seconds.values())


def test_a_node_that_is_down_costs_the_others_nothing(bench: Bench) -> None:
    bench.nodes["n1"].down = RefusedError("refused")
    found = values(bench.engine().scrape(None, LONG))
    assert up(found) == {"n0": 1, "n1": 0, "n2": 1}
    hosts = [dict(labels)["hostname"] for labels in found["clio_worker_running"]]
    assert set(hosts) == {"n0", "n2"}
    assert of_collector(found)["worker"] == 1  # every node that is up answered


def test_a_query_that_fails_is_its_collectors_failure(bench: Bench) -> None:
    bench.nodes["n2"].answers["worker_stats"] = b"\xc1"
    found = values(bench.engine().scrape(None, LONG))
    assert up(found) == {"n0": 1, "n1": 1, "n2": 1}
    assert of_collector(found) == {
        "node": 1, "worker": 0, "bdev": 1, "pool": 1, "cte": 1, "config": 1,
    }  # fmt: skip


def test_a_filter_asks_for_less(bench: Bench) -> None:
    engine = bench.engine()
    found = values(engine.scrape(frozenset({"worker"}), LONG))
    assert set(bench.nodes["n0"].asked) == {"worker_stats", "get_host_info"}
    assert of_collector(found) == {"worker": 1}
    assert "clio_worker_running" in found
    assert "clio_node_up" not in found


def test_where_nothing_is_asked_no_node_is_connected_to(bench: Bench) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    engine = bench.engine()
    engine.scrape(None, LONG)
    up = [summary.up for summary in engine.summary()]
    bench.nodes["n0"].down = RefusedError("nobody there")
    with unittest.mock.patch.object(MemoryTransport, "session", side_effect=AssertionError("connected")):
        found = values(engine.scrape(frozenset({"config"}), LONG))
    assert of_collector(found) == {"config": 1}
    assert [summary.up for summary in engine.summary()] == up  # nothing was learned of the nodes
    assert "node is down" not in stream.getvalue()


def test_collectors_can_be_switched_off(bench: Bench) -> None:
    engine = bench.engine(nodes=["n0"], collectors={"bdev": False, "cte": False})
    assert engine.collectors == ("node", "worker", "pool", "config")
    found = values(engine.scrape(None, LONG))
    assert set(of_collector(found)) == set(engine.collectors)
    assert not any(query.startswith("pool_stats") for query in bench.nodes["n0"].asked)


# --- single flight --------------------------------------------------------------------------------


def hold(node: MemoryNode, *queries: str) -> threading.Event:
    node.gate = threading.Event()
    node.gated = frozenset(queries) if queries else None
    return node.gate


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def test_concurrent_scrapes_share_one_collection_and_filters_do_not(bench: Bench) -> None:
    engine = bench.engine()
    gate = hold(bench.nodes["n0"])
    asked = bench.nodes["n0"].asked
    with ThreadPoolExecutor(12) as pool:
        everything = [pool.submit(engine.scrape, None, LONG) for _ in range(8)]
        eventually(lambda: asked.count("worker_stats") == 1, "nothing was asked")
        workers = [pool.submit(engine.scrape, frozenset({"worker"}), LONG) for _ in range(3)]
        eventually(lambda: asked.count("worker_stats") == 2, "the filter did not ask")
        gate.set()
        results = [future.result(LONG) for future in everything]
        filtered = [future.result(LONG) for future in workers]
    assert asked.count("worker_stats") == 2
    assert asked.count("container_stats") == 1
    assert all(up(values(result)) == {"n0": 1, "n1": 1, "n2": 1} for result in results)
    assert all("clio_node_up" not in values(result) for result in filtered)
    found = values(engine.scrape(None, LONG))
    assert found["clio_exporter_collections_total"] == {(): 3}
    assert found["clio_exporter_collections_shared_total"] == {(): 9}


def test_who_joins_with_less_time_gets_what_has_arrived(bench: Bench) -> None:
    engine = bench.engine()
    gate = hold(bench.nodes["n1"])
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(engine.scrape, None, LONG)
        eventually(lambda: bool(bench.nodes["n1"].asked), "nothing was asked")
        started = time.monotonic()
        found = values(engine.scrape(None, 0.5))
        assert time.monotonic() - started < 3
        assert up(found) == {"n0": 1, "n1": 0, "n2": 1}
        assert not patient.done()
        gate.set()
        assert up(values(patient.result(LONG))) == {"n0": 1, "n1": 1, "n2": 1}


def test_a_scrape_ends_at_its_deadline_with_the_rest_complete(bench: Bench) -> None:
    engine = bench.engine(nodes=["n0", "n1", "n2"], timeout_seconds=60)
    hold(bench.nodes["n0"])
    started = time.monotonic()
    found = values(engine.scrape(None, 0.6))
    assert time.monotonic() - started < 4
    assert up(found) == {"n0": 0, "n1": 1, "n2": 1}
    # The node's own time ends with the scrape's, and it does not matter which is noticed first.
    (down,) = found["clio_node_down_info"]
    assert dict(down)["reason"] in ("deadline", "hung")
    assert len(found["clio_bdev_capacity_bytes"]) == 6


def test_a_node_has_the_time_of_the_settings(bench: Bench) -> None:
    engine = bench.engine(nodes=["n0", "n1"], timeout_seconds=0.3)
    hold(bench.nodes["n0"])
    started = time.monotonic()
    found = values(engine.scrape(None, 60))
    assert time.monotonic() - started < 20
    assert up(found) == {"n0": 0, "n1": 1}


def test_topics_arrive_one_by_one(bench: Bench) -> None:
    engine = bench.engine(nodes=["n0"], timeout_seconds=0.4)
    hold(bench.nodes["n0"], "worker_stats")
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n0": 1}
    assert "clio_worker_running" not in found
    assert "clio_node_leader" in found
    assert of_collector(found)["worker"] == 0


class Journal(list[str]):
    """What a node is asked, written down for all nodes together."""

    def __init__(self, host: str, entries: list[tuple[str, str]]) -> None:
        self.host, self.entries = host, entries

    def append(self, query: str) -> None:
        super().append(query)
        self.entries.append((kind_of(query), self.host))


def kind_of(query: str) -> str:
    return {"container_stats": "list", "system_stats:0": "ring"}.get(query, "small")


def test_a_cold_start_asks_every_node_before_it_asks_one_for_much(bench: Bench) -> None:
    """Silent nodes keep nobody waiting, and no node is without samples while another has its ring."""
    names = [f"c{number:03}" for number in range(3 * NODES_AT_ONCE)]
    entries: list[tuple[str, str]] = []
    bench.nodes = {name: MemoryNode(asked=Journal(name, entries)) for name in names}
    silent = names[5::20]
    for name in silent:
        hold(bench.nodes[name])
    engine = bench.engine(nodes=names, timeout_seconds=2)
    found = values(engine.scrape(None, 60))
    assert {name for name, state in up(found).items() if not state} == set(silent)
    kinds = [kind for kind, _ in entries]
    first_list, first_ring = kinds.index("list"), kinds.index("ring")
    assert {host for _, host in entries[:first_list]} == set(names)
    healthy = set(names) - set(silent)
    asked_for_lists = {host for kind, host in entries[:first_ring] if kind == "list"}
    # All but those that are being asked at that moment.
    assert len(healthy - asked_for_lists) <= LISTS_AT_ONCE
    assert len(found["clio_node_cpu_utilization_ratio"]) == len(healthy)


def test_what_there_is_no_time_for_is_missing_and_the_node_is_up(bench: Bench) -> None:
    engine = bench.engine()
    gate = hold(bench.nodes["n1"], "container_stats", "system_stats:0")
    found = values(engine.scrape(None, 0.5))
    assert up(found) == {"n0": 1, "n1": 1, "n2": 1}
    assert of_collector(found)["bdev"] == 0
    assert "n1" in {dict(labels)["hostname"] for labels in found["clio_worker_running"]}
    assert "n1" not in {dict(labels)["hostname"] for labels in found["clio_bdev_capacity_bytes"]}
    gate.set()
    assert of_collector(values(engine.scrape(None, LONG)))["bdev"] == 1


# --- defects --------------------------------------------------------------------------------------


def test_a_collectors_defect_costs_neither_others_nor_other_nodes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WorkerCollector.collect_node

    def broken(self: WorkerCollector, node: object, samples: object) -> None:
        if node.member.hostname == "n0":  # type: ignore[attr-defined]
            raise ZeroDivisionError("a defect")
        real(self, node, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerCollector, "collect_node", broken)
    found = values(bench.engine().scrape(None, LONG))
    assert {dict(labels)["hostname"] for labels in found["clio_worker_running"]} == {"n1", "n2"}
    assert of_collector(found) == {
        "node": 1, "worker": 0, "bdev": 1, "pool": 1, "cte": 1, "config": 1,
    }  # fmt: skip


# --- membership -----------------------------------------------------------------------------------


def test_a_changed_hostfile_ends_and_starts_series(bench: Bench) -> None:
    hostfile = bench.path / "hosts"
    hostfile.write_text("n0\nn1\n")
    engine = bench.engine(hostfile=str(hostfile))
    assert up(values(engine.scrape(None, LONG))) == {"n0": 1, "n1": 1}
    hostfile.write_text("n1\nn2\nother\n")
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n1": 1, "n2": 1, "other": 1}
    assert not any(("hostname", "n0") in labels for series in found.values() for labels in series)
    assert {address.host for address in bench.transports[0].retained or ()} == {"n1", "n2", "other"}


def test_nothing_is_remembered_of_a_node_that_left(bench: Bench) -> None:
    hostfile = bench.path / "hosts"
    engine = bench.engine_with(hostfile, "n0\nn1\n")
    for text in ("n0\nn1\n", "n0\n", "n0\nn1\n"):
        hostfile.write_text(text)
        bench.nodes["n1"].asked.clear()
        engine.scrape(None, LONG)
    assert "system_stats:0" in bench.nodes["n1"].asked  # as on first contact
    assert "container_stats" in bench.nodes["n1"].asked


def test_a_broken_hostfile_keeps_the_nodes_and_says_so(bench: Bench) -> None:
    hostfile = bench.path / "hosts"
    hostfile.write_text("n0\nn1\n")
    engine = bench.engine(hostfile=str(hostfile))
    engine.scrape(None, LONG)
    hostfile.write_text("n0:notaport\n")
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n0": 1, "n1": 1}
    assert found["clio_cluster_membership_success"] == {(): 0}
    hostfile.write_text("n2\n")
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n2": 1}
    assert found["clio_cluster_membership_success"] == {(): 1}


TWO = """\
clusters:
  - name: east
    nodes: [n0, n1]
  - name: west
    nodes: [n2]
"""


def test_several_clusters_are_told_apart(bench: Bench) -> None:
    engine = bench.from_file(TWO)
    bench.nodes["n2"].down = RefusedError("refused")
    found = values(engine.scrape(None, LONG))
    clusters = {(dict(labels)["cluster"], dict(labels)["hostname"]) for labels in found["clio_node_up"]}
    assert clusters == {("east", "n0"), ("east", "n1"), ("west", "n2")}
    assert found["clio_cluster_nodes"] == {(("cluster", "east"),): 2, (("cluster", "west"),): 1}
    assert [(s.name, s.nodes, s.up) for s in engine.summary()] == [("east", 2, 2), ("west", 1, 0)]
    groups = {g["targets"][0]: g["labels"] for g in engine.target_groups()}
    assert groups["n2:9413"] == {
        "__meta_clio_cluster": "west", "__meta_clio_node_id": "0", "__meta_clio_hostname": "n2",
    }  # fmt: skip
    assert len(groups) == 3


def test_a_single_unnamed_cluster_has_no_cluster_label(bench: Bench) -> None:
    engine = bench.engine()
    assert [(s.name, s.nodes, s.up) for s in engine.summary()] == [("default", 3, None)]
    found = values(engine.scrape(None, LONG))
    assert not any(name == "cluster" for labels in found["clio_node_up"] for name, _ in labels)


# --- reload ---------------------------------------------------------------------------------------


def test_a_reload_takes_new_settings(bench: Bench) -> None:
    engine = bench.from_file("clusters: [{nodes: [n0]}]\n")
    assert up(values(engine.scrape(None, LONG))) == {"n0": 1}
    bench.settings.write_text("clusters: [{nodes: [n1, n2]}]\n")
    assert up(values(engine.scrape(None, LONG))) == {"n0": 1}  # not before it is told
    bench.now += 100
    engine.reload()
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n1": 1, "n2": 1}
    assert found["clio_exporter_config_last_reload_successful"] == {(): 1}
    assert found["clio_exporter_config_last_reload_success_timestamp_seconds"] == {(): bench.now}
    assert len(bench.transports) == 1  # the runtime section is the same: connections stay


@pytest.mark.parametrize("broken", ["clusters: [", "clusters: [{nodes: []}]", "nonsense: 1", None])
def test_a_reload_of_broken_settings_keeps_everything(bench: Bench, broken: str | None) -> None:
    engine = bench.from_file("clusters: [{nodes: [n0]}]\n")
    before = bench.now
    engine.scrape(None, LONG)
    bench.now += 100
    bench.settings.unlink() if broken is None else bench.settings.write_text(broken)
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        engine.reload()
    found = values(engine.scrape(None, LONG))
    assert up(found) == {"n0": 1}
    assert found["clio_exporter_config_last_reload_successful"] == {(): 0}
    assert found["clio_exporter_config_last_reload_success_timestamp_seconds"] == {(): before}
    assert len(bench.transports) == 1


def test_a_reload_of_the_runtime_section_makes_new_connections(bench: Bench) -> None:
    engine = bench.from_file("clusters: [{nodes: [n0]}]\n")
    engine.scrape(None, LONG)
    bench.settings.write_text("clusters: [{nodes: [n0]}]\nruntime: {timeout: 2s}\n")
    engine.reload()
    assert up(values(engine.scrape(None, LONG))) == {"n0": 1}
    assert [transport.closed for transport in bench.transports] == [True, False]


def test_a_scrape_under_way_survives_a_reload_of_the_runtime_section(bench: Bench) -> None:
    engine = bench.from_file("clusters: [{nodes: [n0, n1]}]\n")
    engine.scrape(None, LONG)
    gate = hold(bench.nodes["n0"])
    bench.nodes["n0"].asked.clear()
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.scrape, None, LONG)
        eventually(lambda: bool(bench.nodes["n0"].asked), "nothing was asked")
        bench.settings.write_text("clusters: [{nodes: [n0, n1]}]\nruntime: {timeout: 2s}\n")
        engine.reload()
        gate.set()
        assert up(values(under_way.result(LONG)))["n1"] == 1
    assert up(values(engine.scrape(None, LONG))) == {"n0": 1, "n1": 1}


def test_settings_that_cannot_be_used_are_refused_at_start(bench: Bench) -> None:
    with pytest.raises(ConfigError):
        bench.engine(hostfile=str(bench.path / "missing"))
    with pytest.raises(TransportUnavailableError, match=r"--runtime\.transport=zmq"):
        bench.engine(nodes=["n0"], transport="binding")


# --- probe ----------------------------------------------------------------------------------------


def test_a_probe_asks_one_member(bench: Bench) -> None:
    found = values(bench.engine().probe("n1:9413", None, LONG))
    assert up(found) == {"n1": 1}
    assert bench.nodes["n0"].asked == []
    assert "clio_exporter_build_info" not in found
    assert "clio_cluster_nodes" not in found
    assert of_collector(found)["worker"] == 1


def test_a_probe_tells_how_it_went(bench: Bench) -> None:
    bench.nodes["n2"].answers["worker_stats"] = b"\xc1"
    bench.nodes["n1"].down = RefusedError("nothing listens")
    engine = bench.engine()
    lines = list(engine.probe("n2:9413", None, LONG).report())
    assert lines[:5] == [
        "target: n2:9413",
        "cluster: (without a name)",
        "node id: 2",
        "hostname: n2",
        "state: up",
    ]
    assert any(line.startswith("system_stats: ok, ") for line in lines)
    assert any(line.startswith("worker_stats: failed (malformed): ") for line in lines)
    assert lines[-1].startswith("everything: ")
    down = list(engine.probe("n1:9413", None, LONG).report())
    assert down[4] == "state: down (refused): nothing listens"


def test_the_landing_page_shows_who_is_down_and_why(bench: Bench) -> None:
    bench.nodes["n1"].down = RefusedError("nothing listens")
    engine = bench.engine()
    (before,) = engine.summary()
    assert [(node.node_id, node.state) for node in before.states] == [
        (0, "unknown"),
        (1, "unknown"),
        (2, "unknown"),
    ]
    engine.scrape(None, LONG)
    (after,) = engine.summary()
    assert [(node.node_id, node.state) for node in after.states] == [(1, "down"), (0, "up"), (2, "up")]
    assert after.states[0].reason == "refused, nothing listens"


@pytest.mark.parametrize(
    ("section", "kept"),
    [
        ("bdev: {include: 'ram::.*'}", lambda name: name.startswith("ram::")),
        ("bdev: {exclude: 'ram::.*'}", lambda name: not name.startswith("ram::")),
        ("bdev: {exclude: 'ram'}", lambda name: True),
        (
            "pool: {include: 'cte_.*', exclude: '.*main'}",
            lambda name: name.startswith("cte_") and "main" not in name,
        ),
    ],
)
def test_pools_and_devices_by_name(bench: Bench, section: str, kept: Callable[[str], bool]) -> None:
    def names(found: Values) -> set[str]:
        metric = f"clio_{section.partition(':')[0]}_info"
        return {dict(labels)["pool_name"] for labels in found.get(metric, {})}

    all_names = names(values(bench.engine().scrape(None, LONG)))
    hosts = bench.path / "hosts"
    hosts.write_text("n0\nn1\nn2\n")
    text = f"clusters: [{{hostfile: {hosts}}}]\ncollectors: {{{section}}}\n"
    found = values(bench.from_file(text).scrape(None, LONG))
    assert names(found) == {name for name in all_names if kept(name)}
    assert of_collector(found) == dict.fromkeys(of_collector(found), 1)


def test_a_probe_may_leave_out_the_default_port(bench: Bench) -> None:
    assert up(values(bench.engine().probe("N2", None, LONG))) == {"n2": 1}


@pytest.mark.parametrize("target", ["other:9413", "n0:9414", "other", "10.0.0.1:22"])
def test_a_probe_of_others_is_refused(bench: Bench, target: str) -> None:
    with pytest.raises(UnknownTarget, match=r"is not a member.*--probe\.allow-any"):
        bench.engine().probe(target, None, LONG)
    assert [host for host, node in bench.nodes.items() if node.asked] == []


def test_a_probe_of_others_can_be_allowed(bench: Bench) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    engine = bench.engine(nodes=["n0"], allow_any=True)
    bench.nodes["other"].samples = [{"event_id": 1, "node_id": 3, "cpu_usage_pct": 5.0}]
    found = values(engine.probe("other:9413", None, LONG))
    assert up(found) == {"other": 1}
    # Nobody has numbered it, so no number can be wrong.
    assert {dict(labels)["node_id"] for labels in found["clio_worker_running"]} == {""}
    assert stream.getvalue() == ""
    engine.scrape(None, LONG)  # keeps what it remembers of it
    assert "other" in {address.host for address in bench.transports[0].retained or ()}


# --- the log, the end -----------------------------------------------------------------------------


def test_a_node_that_stays_down_is_logged_once(bench: Bench) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    engine = bench.engine()
    bench.nodes["n1"].down = RefusedError("nobody there")
    for _ in range(5):
        engine.scrape(None, LONG)
    bench.nodes["n1"].down = None
    engine.scrape(None, LONG)
    engine.scrape(None, LONG)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    about = [line for line in lines if line.get("node") == "n1:9413" and "node is" in line["msg"]]
    assert [line["msg"] for line in about] == ["node is down", "node is up again"]
    assert about[0]["reason"] == "refused"
    assert about[0]["error"] == "nobody there"
    assert about[1]["suppressed"] == 4


NODE_COLLECTORS = ("node", "worker", "bdev", "pool", "cte")


def states(log: str, node: str) -> list[str]:
    """What the log says of a node's state, in order."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [line["msg"] for line in lines if line.get("node") == node and "node is" in line["msg"]]


def test_a_hung_node_is_down_for_every_filter(bench: Bench) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    engine = bench.engine(nodes=["n0", "n1", "n2"], timeout_seconds=0.3)
    engine.scrape(None, LONG)  # the pools are remembered from now on
    gate = hold(bench.nodes["n1"])
    for _ in range(2):
        for wanted in (None, *(frozenset({name}) for name in NODE_COLLECTORS)):
            found = values(engine.scrape(wanted, LONG))
            assert [summary.up for summary in engine.summary()] == [2], wanted
            assert "n1" not in {dict(labels)["hostname"] for labels in found.get("clio_pool_info", {})}
    gate.set()
    engine.scrape(frozenset({"pool"}), LONG)
    assert [summary.up for summary in engine.summary()] == [3]
    assert states(stream.getvalue(), "n1:9413") == ["node is down", "node is up again"]


@pytest.mark.parametrize("query", ["worker_stats", "system_stats:0", "pool_stats://512.1:local:stats"])
def test_one_question_that_fails_makes_no_node_down(bench: Bench, query: str) -> None:
    """A job that asks only that sees the node up, as a job that asks everything does."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    bench.nodes["n1"].answers[query] = b"\xc1"
    engine = bench.engine()
    for wanted in (None, *(frozenset({name}) for name in NODE_COLLECTORS), None):
        engine.scrape(wanted, LONG)
        assert [summary.up for summary in engine.summary()] == [3], wanted
    assert states(stream.getvalue(), "n1:9413") == []


def test_close_ends_the_io_thread(bench: Bench) -> None:
    engine = bench.engine()
    engine.scrape(None, LONG)
    assert engine.ready()
    engine.close()
    assert not engine.ready()
    assert bench.transports[0].closed
    assert not any(thread.name == "clio-runtime-io" for thread in threading.enumerate())


def test_a_scrape_leaves_nothing_for_the_garbage_collector(bench: Bench) -> None:
    """A thousand nodes' snapshots are megabytes: they go when the answer has gone, not some scrapes later."""
    engine = bench.engine()
    gc.collect()
    gc.disable()
    try:
        assert engine.scrape(None, LONG).nodes
        polls = [weakref.ref(thing) for thing in gc.get_objects() if isinstance(thing, ClusterPoll)]
        eventually(lambda: not any(poll() for poll in polls), "a poll is kept")
    finally:
        gc.enable()


def test_nothing_is_opened_before_the_first_scrape(bench: Bench) -> None:
    bench.engine()
    assert bench.transports == []


def test_a_discovered_name_that_is_none_costs_only_its_node(bench: Bench) -> None:
    hosts = [("n0", "n0"), ("bad_host!", ".."), ("n2", "n2")]
    answer = [{"node_id": i, "hostname": name, "ip_address": ip} for i, (name, ip) in enumerate(hosts)]

    class Seed(MemoryNode):
        def answer(self, query: str) -> MonitorAnswer:
            if query == DISCOVERY_QUERY:
                return MonitorAnswer(query, 0, {i: msgpack.packb(host) for i, host in enumerate(answer)})
            return super().answer(query)

    bench.nodes["n0"] = Seed()
    (bench.path / "n0.yaml").write_text("networking: {port: 9413}")
    found = values(
        bench.engine(seed="n0", runtime_config=f"{bench.path}/{{hostname}}.yaml").scrape(None, LONG)
    )
    assert up(found) == {"n0": 1, "n2": 1}
    assert found["clio_cluster_membership_success"] == {(): 0}
    assert sorted(found["clio_config_load_success"].values()) == [0, 1]


def test_a_configuration_path_that_is_none_costs_only_its_file(bench: Bench) -> None:
    text = 'clusters: [{nodes: [n0], runtime_config: "/a\\0/{node_id}"}]'
    found = values(bench.from_file(text).scrape(None, LONG))
    assert up(found) == {"n0": 1}
    assert list(found["clio_config_load_success"].values()) == [0]
