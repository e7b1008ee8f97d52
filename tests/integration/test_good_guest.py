"""What the exporter leaves behind in a runtime, and what it costs one: little, and bounded.

`CLIO_SOAK_SECONDS` sets how long the soak lasts (30; `make soak`: 600) and the rounds of the
measurement with it. Figures are printed (`pytest -s`, `-rP`).
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clio_exporter.engine import Engine
from clio_exporter.settings import Settings
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from tests.integration.footprint import Footprint, cpu_seconds
from tests.integration.live import Deadline, Exporter, NodeScrape, free_port

pytestmark = pytest.mark.integration

SOAK_SECONDS = float(os.environ.get("CLIO_SOAK_SECONDS", "30"))

BUDGET_AT_5_S = 0.005
"""Of a core, what a scrape each 5 s may add to a node."""

RATIO, RATIO_WORKERS = 10, 40
"""How much less CPU a scrape of four nodes takes for one of them than the runtime's own tool, at least."""

GROWTH = 24 * 2**20
"""Resident bytes a process may add: the allocator's arenas of the exporter's threads level off below this."""
ELASTIC = 4
"""Threads a runtime starts and ends by itself, and what they hold open."""


def pid_of(node: LocalNode) -> int:
    assert node.pid is not None, f"the runtime ended:\n{node.log_tail(20)}"
    return node.pid


def errors_in(node: LocalNode) -> list[str]:
    """ERROR lines of the runtime's log, without colours and numbers."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", node.log_path.read_text(errors="replace"))
    return [re.sub(r"\d+", "N", line) for line in text.splitlines() if " ERROR " in line]


def restart_in_process(hostfile: Path, reply_port: int, home: Path, nodes: int) -> None:
    """A life of the exporter: sockets, connections, one scrape, and the end."""
    settings = Settings().with_overrides(hostfile=str(hostfile), reply_port=reply_port)
    with contextlib.closing(Engine(lambda: settings, {}, home)) as engine:
        scrape = NodeScrape(b"".join(engine.scrape(None, 10.0).render(openmetrics=False)).decode())
    assert [scrape.reason(index) for index in range(nodes)] == [None] * nodes


def restart_as_command(hostfile: Path, reply_port: int) -> None:
    arguments = ["scrape", f"--hostfile={hostfile}", f"--runtime.reply-port={reply_port}", "--format=table"]
    subprocess.run(
        [sys.executable, "-m", "clio_exporter", *arguments], check=True, capture_output=True, timeout=60
    )


@pytest.mark.timeout(900)
def test_a_hundred_restarts_leave_nothing(cluster4: LocalCluster, tmp_path: Path) -> None:
    assert cluster4.hostfile is not None
    port = free_port()
    for _ in range(3):
        restart_in_process(cluster4.hostfile, port, tmp_path, 4)
    before = [Footprint.of(pid_of(node)) for node in cluster4.nodes]
    for count in range(100):
        if count % 10 == 9:
            restart_as_command(cluster4.hostfile, port)
        else:
            restart_in_process(cluster4.hostfile, port, tmp_path, 4)
    after = [Footprint.of(pid_of(node)) for node in cluster4.nodes]
    for node, was, now in zip(cluster4.nodes, before, after, strict=True):
        print(f"node {node.index}: {was} -> {now}")
        assert now.descriptors <= was.descriptors + ELASTIC
        assert now.threads <= was.threads + ELASTIC
        assert now.resident <= was.resident + GROWTH
    # An identity used twice aborts a runtime about 8 s later.
    with Exporter(tmp_path, f"--hostfile={cluster4.hostfile}", reply_port=port) as exporter:
        for scrape in exporter.takes(12, pause=1.0):
            assert [scrape.up(node.index) for node in cluster4.nodes if pid_of(node)] == [True] * 4


@pytest.mark.soak
@pytest.mark.timeout(300 + 2 * SOAK_SECONDS)
def test_scraping_each_second(cluster4: LocalCluster, tmp_path: Path) -> None:
    with Exporter(tmp_path, f"--hostfile={cluster4.hostfile}") as exporter:
        for _ in exporter.takes(5, pause=0.5):
            pass  # caches, allocators and elastic workers settle
        watched: dict[str, int] = {f"node {n.index}": pid_of(n) for n in cluster4.nodes}
        watched["exporter"] = exporter.pid
        errors = [len(errors_in(node)) for node in cluster4.nodes]
        before = {name: Footprint.of(pid) for name, pid in watched.items()}
        most = dict(before)
        scrapes = 0
        for scrape in exporter.takes(SOAK_SECONDS, pause=1.0):
            scrapes += 1
            assert [scrape.up(node.index) for node in cluster4.nodes] == [True] * 4
            for name, pid in watched.items():
                now, high = Footprint.of(pid), most[name]
                most[name] = Footprint(
                    max(now.descriptors, high.descriptors),
                    max(now.threads, high.threads),
                    max(now.resident, high.resident),
                )
        assert scrapes > SOAK_SECONDS / 3
        for name, was in before.items():
            print(f"{name}: {was} -> at most {most[name]} in {scrapes} scrapes")
            assert most[name].descriptors <= was.descriptors + ELASTIC
            assert most[name].threads <= was.threads + ELASTIC
            assert most[name].resident <= was.resident + GROWTH
        for node, count in zip(cluster4.nodes, errors, strict=True):
            assert errors_in(node)[count:] == []
        opened = scrape.value("clio_exporter_runtime_connections_opened_total")
        assert opened == 4
        assert scrape.value("clio_exporter_runtime_answers_total", fate="late") <= scrapes * 0.01
        assert scrape.value("clio_exporter_runtime_answers_total", fate="unexpected") == 0


@pytest.fixture(scope="module")
def plain_node(
    runtime_install: RuntimeInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """One runtime with the timers of the kernel's default, as on a node that nobody has tuned."""
    root = tmp_path_factory.mktemp("plain")
    base_port = find_base_port(1)
    with LocalCluster(root, 1, install=runtime_install, base_port=base_port, timer_slack_us=None) as cluster:
        yield cluster


def load_of(pid: int, seconds: float, act: Callable[[], object], pause: float | None) -> float:
    """CPU the process takes over this time, in cores, while `act` is done at each `pause` (None: never)."""
    started = time.monotonic()
    before = cpu_seconds(pid)
    end = Deadline(seconds)
    while not end.over:
        began = time.monotonic()
        if pause is not None:
            act()
        time.sleep(min(end.left, max(0.0, began + pause - time.monotonic()) if pause else end.left))
    return (cpu_seconds(pid) - before) / (time.monotonic() - started)


def added_load(pid: int, act: Callable[[], object], pause: float, seconds: float, pairs: int) -> float:
    """What doing `act` each `pause` seconds adds to the process, in cores: median of pairs of rounds.

    A runtime's own load drifts by more than is added, so neighbouring rounds are compared, in either order.
    """
    without, added = [], []
    for number in range(pairs):
        pair = {}
        for scraped in (True, False) if number % 2 else (False, True):
            pair[scraped] = load_of(pid, seconds, act, pause if scraped else None)
        without.append(pair[False])
        added.append(pair[True] - pair[False])
    middle = statistics.median(added)
    print(
        f"each {pause} s: {middle:+.2%} of a core ({min(added):+.2%} to {max(added):+.2%} in {pairs} pairs), "
        f"{middle * pause * 1000:.1f} ms a scrape; without: {statistics.median(without):.2%}"
    )
    return middle


@pytest.mark.soak
@pytest.mark.timeout(300 + 2 * SOAK_SECONDS)
@pytest.mark.alone
def test_what_scraping_costs_a_node(plain_node: LocalCluster, tmp_path: Path) -> None:
    pid = pid_of(plain_node.nodes[0])
    with Exporter(tmp_path, f"--hostfile={plain_node.hostfile}") as exporter:
        exporter.take()
        if SOAK_SECONDS > 100:
            added_load(pid, exporter.take, 5.0, 30.0, pairs=4)
            added_load(pid, exporter.take, 1.0, 15.0, pairs=6)
        # Five scrapes a second stand out from the noise; one in five seconds costs a twenty-fifth of that.
        pause = 0.2
        added = added_load(pid, exporter.take, pause, 2.0, pairs=8)
    assert added * pause / 5 < BUDGET_AT_5_S


def own_tool(node: LocalNode, program: str) -> float:
    """CPU seconds of the runtime's own `clio_run monitor`, which shows the workers of one node."""
    process = subprocess.Popen(
        [program, "monitor", "--once", "--json"],
        env={**node.environment, "CLIO_WAIT_SERVER": "10"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert b"num_tasks_processed" in output.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def asking(exporter: Exporter, path: str, scrapes: int) -> float:
    """CPU seconds of the exporter for one scrape of this path."""
    for _ in range(10):
        exporter.get(path)
    before = cpu_seconds(exporter.pid)
    for _ in range(scrapes):
        assert exporter.get(path).status == 200
    return (cpu_seconds(exporter.pid) - before) / scrapes


@pytest.mark.alone
def test_a_scrape_costs_less_than_the_runtimes_own_tool(cluster4: LocalCluster, tmp_path: Path) -> None:
    """CPU on the side that asks, for one node."""
    runs, scrapes, nodes = 10, 100, len(cluster4.nodes)
    node, program = cluster4.nodes[0], cluster4.install.start_command[0]
    tool = statistics.median(own_tool(node, program) for _ in range(runs))
    with Exporter(tmp_path, f"--hostfile={cluster4.hostfile}") as exporter:
        everything = asking(exporter, "/metrics", scrapes) / nodes
        workers = asking(exporter, "/metrics?collect[]=worker", scrapes) / nodes
    print(f"a node's workers by clio_run monitor: {tool * 1000:.1f} ms of CPU")
    print(f"by the exporter: {workers * 1000:.2f} ms, {tool / workers:.0f} times less")
    print(f"everything by the exporter: {everything * 1000:.2f} ms, {tool / everything:.0f} times less")
    assert everything * RATIO < tool
    assert workers * RATIO_WORKERS < tool
