"""Everything at once on real runtimes, for as long as one likes: none ends, none is shown twice, none leaks.

Two exporters, the control API and Prometheus run; shells scrape by alias and by discovery and are killed half
way; nodes are restarted and paused. `CLIO_SOAK_SECONDS` sets how long (120; `make soak`: an hour).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from tests.exporter_process import COMMAND, ExporterProcess, clean_environment, eventually, run_exporter
from tests.integration.footprint import Footprint
from tests.integration.live import NodeScrape, free_port
from tests.prometheus import Prometheus
from tests.system import missing_reason

SOAK_SECONDS = float(os.environ.get("CLIO_SOAK_SECONDS", "120"))

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(600 + 2 * SOAK_SECONDS)]

SETTLED_S = 90.0
"""A node that answered no generation while it was started is left alone for a minute."""

FATAL_S = 11.0
"""After this long a runtime that was shown an identity twice has ended."""

ADDRESSES = 2
"""By which every node is asked: its hostfile's and 127.0.0.1."""

IDENTITIES = 4 * ADDRESSES + 1 + (ADDRESSES + 3)
"""That a runtime is shown: by two exporters and two kinds of shell; by the control API; by discovery, which
looks for the other three at the seed's port."""

SHELL_S = 180.0
"""For a shell's scrape: ten seconds, and what a machine with all of this on it makes of them."""

DEADLINE_S = 8.0
"""That an exporter is given for a scrape."""

LATE_RATIO = 0.01
"""Scrapes that may be answered after that, by what else the machine does just then."""

CONNECTIONS = 2 * 5
"""Of those alive at one time, one for each program: the request's and the dial-back's."""

PROBES = 12
"""Of a runtime that is slow to answer while it starts; each leaves one dial-back of a random name."""

PROBES_A_PAUSE = 4 * ADDRESSES
"""The same while a runtime is stopped: by the four shells that may meet it first in those seconds."""

ELASTIC = 8
"""Descriptors by which a runtime's own number goes up and down."""


@pytest.fixture
def cluster(runtime_install: RuntimeInstall, tmp_path: Path) -> Iterator[LocalCluster]:
    """Four runtimes of the test's own."""
    base_port = find_base_port(4)
    with LocalCluster(tmp_path / "cluster", 4, install=runtime_install, base_port=base_port) as running:
        yield running


class Soak:
    """What runs until the time is up or something fails, and what it has seen."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.most = [0] * len(cluster.nodes)
        self.unexplained = [0] * len(cluster.nodes)
        self.pauses = [0] * len(cluster.nodes)
        self.random = random.Random(4711)
        self._over = threading.Event()
        self._pids = [node.pid for node in cluster.nodes]
        self._restarting: set[int] = set()
        self._threads: list[threading.Thread] = []

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it was over before that time."""
        return self._over.wait(seconds)

    def add(self, what: str, act: Callable[[], None], pause: float) -> None:
        """Do this again and again, with a pause of about that many seconds."""

        def run() -> None:
            try:
                while not self.over:
                    act()
                    self.counts[what] += 1
                    self.wait(pause * (0.5 + self.random.random()))
            except BaseException as failure:  # noqa: BLE001 - told by the test's own thread
                self.failures.append(f"{what}: {failure!r}")
                self._over.set()

        self._threads.append(threading.Thread(target=run, name=what))
        self._threads[-1].start()

    def run(self, seconds: float) -> None:
        """Watch the runtimes for that time, end everything, and watch for the last consequences."""
        try:
            self._watch(seconds)
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(SHELL_S + 20)
        assert self.failures == []
        assert [thread.name for thread in self._threads if thread.is_alive()] == []
        self._watch(FATAL_S)

    def restart(self, node: LocalNode, *, kill: bool) -> None:
        """The one way a runtime may end here."""
        self._restarting.add(node.index)
        if kill:
            node.kill()
        node.restart()
        self._pids[node.index] = node.pid
        self.pauses[node.index] = 0
        self._restarting.discard(node.index)

    def _watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.failures:
            for node in self.cluster.nodes:
                expected, pid = self._pids[node.index], node.pid
                if node.index in self._restarting or expected != self._pids[node.index]:
                    continue
                assert pid == expected, f"node {node.index} ended, see {node.log_path}"
                assert pid is not None
                with contextlib.suppress(psutil.NoSuchProcess):
                    found, index = Footprint.of(pid).descriptors, node.index
                    self.most[index] = max(self.most[index], found)
                    probes = PROBES_A_PAUSE * self.pauses[index]
                    self.unexplained[index] = max(self.unexplained[index], found - probes)
            time.sleep(0.25)

    def check(self, text: str) -> None:
        """No runtime is in this scrape twice."""
        # The rest would take a second to parse, which others could scrape in.
        scrape = NodeScrape("\n".join(line for line in text.splitlines() if "clio_node_" in line))
        self.counts["scrapes read"] += 1
        starts = [value for _, value in scrape.series("clio_node_start_time_seconds")]
        assert len(starts) == len(set(starts)), f"one runtime twice: {starts}"
        leaders = [labels for labels, value in scrape.series("clio_node_leader") if value]
        # Two runtimes may each believe it for a moment, after one of them was stopped by a signal.
        self.counts["two leaders"] += len(leaders) > 1
        for labels, _ in scrape.series("clio_node_down_info"):
            self.counts[f"down: {labels['reason']}"] += 1


@contextlib.contextmanager
def control_api(directory: Path, hostfile: Path, reply_port: int) -> Iterator[str]:
    """The control API's address."""
    (directory / "exporter.yaml").write_text(yaml.safe_dump({"clusters": [{"hostfile": str(hostfile)}]}))
    (directory / "control.yaml").write_text(
        yaml.safe_dump({"exporter_config": "exporter.yaml", "reply_port": reply_port})
    )
    child = ChildProcess(
        "control API",
        [sys.executable, "-m", "clio_control_api", "--port", "0", "--config", "control.yaml"],
        log_path=directory / "control-api.log",
        directory=directory,
        environment=clean_environment(directory),
    )
    with child:
        found = eventually("it listens", lambda: re.search(rb"127\.0\.0\.1:(\d+)", child.log()))
        assert found is not None
        yield f"http://{found[0].decode()}"


def topology(address: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{address}/api/topology", timeout=20) as answer:
        nodes: list[dict[str, object]] = json.load(answer)["nodes"]
        return nodes


def test_no_runtime_ends_is_shown_twice_or_leaks(cluster: LocalCluster, tmp_path: Path) -> None:
    assert cluster.hostfile is not None
    fresh = max(Footprint.of(node.pid).descriptors for node in cluster.nodes if node.pid is not None)
    reply_port = free_port()
    own = [f"{node.host}:{node.port}" for node in cluster.nodes]
    every = [*own, *(f"127.0.0.1:{node.port}" for node in cluster.nodes)]
    soak = Soak(cluster, tmp_path)
    # Ports of their own, so that the number of identities does not hang on who starts first.
    ports = {name: free_port() for name in ("alias", "discovery", "killed", "control API")}
    by_alias = (f"--nodes={','.join(every)}", f"--runtime.reply-port={ports['alias']}")

    def shell(*arguments: str) -> None:
        done = run_exporter(tmp_path, "scrape", *arguments, seconds=SHELL_S)
        assert done.returncode in (0, 1, 3), done.stderr
        soak.check(done.stdout)

    def alias() -> None:
        shell(*by_alias)

    def discovery() -> None:
        seed = soak.random.choice(every)
        shell(f"--seed={seed}", f"--runtime.reply-port={ports['discovery']}", "--timeout=5s")

    def killed() -> None:
        arguments = ["scrape", by_alias[0], f"--runtime.reply-port={ports['killed']}"]
        with ChildProcess(
            "shell",
            [*COMMAND, *arguments],
            log_path=tmp_path / "killed.log",
            directory=tmp_path,
            environment=clean_environment(tmp_path),
        ) as child:
            soak.wait(soak.random.uniform(0.1, 2.5))
            child.kill()

    with contextlib.ExitStack() as stack:
        exporters = [
            stack.enter_context(ExporterProcess(tmp_path, f"--nodes={nodes}", reply_port=reply_port))
            for nodes in (",".join(every), ",".join(every[::-1]))
        ]
        api = stack.enter_context(control_api(tmp_path, cluster.hostfile, ports["control API"]))
        if missing_reason("prometheus", "promtool") is None:
            jobs = [
                {"job_name": f"clio{i}", "static_configs": [{"targets": [exporter.address]}]}
                for i, exporter in enumerate(exporters)
            ]
            stack.enter_context(Prometheus(tmp_path, {"scrape_configs": jobs}))

        def scrape(exporter: ExporterProcess) -> Callable[[], None]:
            def once() -> None:
                answer = exporter.get(
                    "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": f"{DEADLINE_S:g}"}
                )
                assert answer.status == 200, answer.text
                soak.counts["late"] += answer.seconds >= DEADLINE_S
                soak.check(answer.text)

            return once

        def read() -> None:
            try:
                nodes = topology(api)
            except urllib.error.HTTPError as error:
                error.close()
                soak.counts[f"control API {error.code}"] += 1
                return
            assert [node["node_id"] for node in nodes] == [0, 1, 2, 3]

        def disturb() -> None:
            node = soak.random.choice(cluster.nodes)
            if soak.random.random() < 0.5:
                soak.restart(node, kill=soak.random.random() < 0.5)
                soak.counts["restarts"] += 1
                return
            soak.pauses[node.index] += 1
            node.pause()
            try:
                soak.wait(soak.random.uniform(0.3, 4.0))
            finally:
                node.resume()
            soak.counts["pauses"] += 1

        for number, exporter in enumerate(exporters):
            soak.add(f"exporter {number}", scrape(exporter), 0.5)
        soak.add("control API", read, 0.5)
        soak.add("shell by alias", alias, 1.0)
        soak.add("shell by discovery", discovery, 1.0)
        soak.add("killed shell", killed, 0.5)
        soak.wait(5.0)
        soak.add("disturbance", disturb, 8.0)
        try:
            soak.run(SOAK_SECONDS)
        finally:
            print(f"{SOAK_SECONDS:g} s: {dict(soak.counts)}; descriptors {fresh} -> at most {soak.most}")
        # Everything is as it should be once nobody disturbs it.
        for exporter in exporters:
            eventually(
                "each runtime is shown by one of its two members",
                functools.partial(_settled, exporter),
                SETTLED_S,
            )
        eventually(
            "the control API reaches all four",
            lambda: [node["alive"] for node in topology(api)] == [True] * 4,
            SETTLED_S,
        )
    scrapes = soak.counts["exporter 0"] + soak.counts["exporter 1"]
    assert soak.counts["late"] <= max(1, LATE_RATIO * scrapes), soak.counts
    bound = fresh + IDENTITIES + CONNECTIONS + PROBES + ELASTIC
    assert max(soak.unexplained) <= bound, (
        f"{soak.unexplained} without probes of pauses, at most {bound} expected"
    )


def _settled(exporter: ExporterProcess) -> bool:
    scrape = NodeScrape(exporter.scrape().text)
    reasons = [scrape.reason(index) for index in range(8)]
    return sorted(map(str, reasons)) == ["None"] * 4 + ["duplicate"] * 4
