"""Faults that are a change: a node that ends, comes back, has another number or time; another hostfile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import Scrape, eventually
from tests.faults.conftest import WORKERS, Exporter, MakeExporter, is_gone, is_whole, reasons
from tests.ports import free_port

NODES = 3
PROCESSED = "clio_worker_tasks_processed_total"
STARTED = "clio_node_start_time_seconds"


@dataclass(frozen=True)
class Simulated:
    process: SimulatorProcess
    targets: list[str]

    def requests(self, node: int) -> int:
        return int(self.process.describe(node)["requests"])


@pytest.fixture(scope="module")
def _running() -> Iterator[Simulated]:
    port = free_port()
    options = ["--nodes", str(NODES), "--base-port", str(port), "--address", "127.96.5.1"]
    with SimulatorProcess(*options, "--workers", str(WORKERS), "--bdevs", "1", "--age", "100") as process:
        yield Simulated(process, [f"127.96.5.{i + 1}:{port}" for i in range(NODES)])


@pytest.fixture
def simulated(_running: Simulated) -> Iterator[Simulated]:
    """Healthy nodes, which nobody has treated against the protocol's rules."""
    _running.process.reset_stats()
    yield _running
    _running.process.clear()
    assert _running.process.stats()["violations"] == {}


def are_whole(scrape: Scrape) -> bool:
    """Whether nothing of the three is missing."""
    return all(is_whole(scrape, node) for node in range(NODES))


def whole(exporter: Exporter, *nodes: int) -> None:
    exporter.scrape_until("all are whole", lambda s: all(is_whole(s, node) for node in nodes))


def test_a_clock_that_jumps(simulated: Simulated, make_exporter: MakeExporter) -> None:
    exporter = make_exporter(nodes=simulated.targets)
    whole(exporter, 0, 1, 2)
    times, counts = [], []
    for jump in ("", "clock:86400", "clock:0"):
        if jump:
            simulated.process.set_fault(1, jump)
        before = times[-1] if times else 0.0
        far = 80_000 if jump else 0

        def jumped(found: object, before: float = before, far: float = far) -> bool:
            now = found.value("clio_node_sample_timestamp_seconds", node_id="1")  # type: ignore[attr-defined]
            return abs(now - before) > far

        found = exporter.scrape_until(f"the clock after {jump!r}", lambda s: are_whole(s) and jumped(s))
        times.append(found.value("clio_node_sample_timestamp_seconds", node_id="1"))
        counts.append(sum(found.by("worker_id", PROCESSED, node_id="1").values()))
    assert counts == sorted(counts)
    exporter.engine.close()


def test_nodes_that_have_each_others_numbers(simulated: Simulated, make_exporter: MakeExporter) -> None:
    first, second, third = simulated.targets
    exporter = make_exporter(nodes=[second, first, third])
    whole(exporter, 0, 1, 2)
    found = exporter.scrape()
    hosts = {labels["node_id"]: labels["hostname"] for labels, _ in found.series("clio_node_up")}
    assert hosts == {
        "0": second.partition(":")[0],
        "1": first.partition(":")[0],
        "2": third.partition(":")[0],
    }
    lines = [line for line in exporter.log.splitlines() if "numbers this node differently" in line]
    assert len(lines) == 2
    exporter.engine.close()


def test_a_node_that_is_killed_in_mid_scrape(simulated: Simulated, make_exporter: MakeExporter) -> None:
    port = free_port()
    options = ("--nodes", "1", "--base-port", str(port), "--address", "127.96.6.1")
    with SimulatorProcess(*options, "--workers", str(WORKERS), "--bdevs", "1", "--age", "100") as victim:
        exporter = make_exporter(nodes=[*simulated.targets, f"127.96.6.1:{port}"], timeout_seconds=60)
        whole(exporter, 0, 1, 2, 3)
        victim.set_fault(0, "silent")
        before = victim.describe(0)["requests"]
        with ThreadPoolExecutor(1) as pool:
            scraping = pool.submit(exporter.scrape, 90.0)
            eventually("it is asked", lambda: victim.describe(0)["requests"] > before)
            assert not scraping.done()
            victim.stop()
            found = scraping.result(60)  # the node would have had a minute
    assert reasons(found).keys() == {"3"}
    assert reasons(found)["3"] in ("connection_lost", "hung", "refused")
    assert is_gone(found, 3), found.names_of(node_id="3")
    assert all(is_whole(found, node) for node in range(NODES))
    exporter.engine.close()


def test_a_node_that_is_restarted(simulated: Simulated, make_exporter: MakeExporter) -> None:
    exporter = make_exporter(nodes=simulated.targets)
    whole(exporter, 0, 1, 2)
    before = exporter.scrape()
    simulated.process.restart_node(1)
    found = exporter.scrape_until(
        "the successor",
        lambda s: are_whole(s) and s.value(STARTED, node_id="1") > before.value(STARTED, node_id="1") + 50,
    )
    earlier, later = (scrape.by("worker_id", PROCESSED, node_id="1") for scrape in (before, found))
    both = earlier.keys() & later.keys()
    assert both
    assert sum(later[worker] for worker in both) < sum(earlier[worker] for worker in both)
    for node in ("0", "2"):
        assert found.value(STARTED, node_id=node) == pytest.approx(before.value(STARTED, node_id=node), abs=2)
    exporter.engine.close()


def test_a_hostfile_that_breaks(simulated: Simulated, make_exporter: MakeExporter, tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts"
    good = "".join(f"{target}\n" for target in simulated.targets)
    hostfile.write_text(good)
    exporter = make_exporter(hostfile=str(hostfile))
    whole(exporter, 0, 1, 2)
    for broken in ("bad:port\n", "", None):
        if broken is None:
            hostfile.unlink()
        else:
            hostfile.write_text(broken)
        found = exporter.scrape_until(
            "the error is noticed", lambda s: s.value("clio_cluster_membership_success") == 0 and are_whole(s)
        )
        assert found.value("clio_cluster_nodes") == NODES
    hostfile.write_text(good)
    exporter.scrape_until("it is mended", lambda s: s.value("clio_cluster_membership_success") == 1)
    exporter.engine.close()


def test_a_hostfile_that_changes_during_a_scrape(
    simulated: Simulated, make_exporter: MakeExporter, tmp_path: Path
) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("".join(f"{target}\n" for target in simulated.targets))
    exporter = make_exporter(hostfile=str(hostfile))
    whole(exporter, 0, 1, 2)
    simulated.process.set_fault(2, "silent")  # for as long as a node has, the scrape lasts
    before = simulated.requests(2)

    def change() -> None:
        eventually("the scrape is under way", lambda: simulated.requests(2) > before)
        hostfile.write_text("".join(f"{target}\n" for target in simulated.targets[:2]))

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        found = exporter.scrape()
        changing.result(60)
    assert found.value("clio_cluster_nodes") == NODES
    assert found.by("node_id", "clio_node_up").keys() == {"0", "1", "2"}
    after = exporter.scrape_until("two nodes", lambda s: s.value("clio_cluster_nodes") == 2)
    assert after.by("node_id", "clio_node_up").keys() == {"0", "1"}
    whole(exporter, 0, 1)
    exporter.engine.close()
