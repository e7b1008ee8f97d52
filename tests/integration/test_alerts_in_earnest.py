"""Alerts on real runtimes: none while a cluster is well, whatever it goes through; and one for a deadlock.

The rules are those of the kit on a fast clock: windows and waits are divided by `FASTER`. A process takes its
own time to start again, so alerts about what is down keep the waits they have.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_exporter.kit.rules import Options, alerts, render
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.exporter_process import ExporterProcess
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool"), pytest.mark.timeout(900)]

NODES = 4
FASTER = 20
INTERVAL = "3s"
TIMEOUT = 3
IN_REAL_TIME = ("ClioNodeDown", "ClioNodeHung", "ClioExporterDown", "ClioExporterScrapeSlow")
BENCH = ("--threads", "1", "--depth", "1", "--query-type", "local")
ENDLESS = ("--op", "PutGet", "--io-size", "64k", "--io-count", "100000000", "--max-total-blobs", "400")
FIRING = 'ALERTS{alertstate="firing"}'


def options() -> Options:
    """The committed waits, at the fast clock or in real time."""
    minutes = {
        alert.name: int(alert.wait.removesuffix("m")) for alert in alerts() if alert.name in IN_REAL_TIME
    }
    waits = {name: f"{FASTER * wait}m" for name, wait in minutes.items()}
    return Options(faster=FASTER, waits=waits, thresholds={"scrape_timeout": TIMEOUT})


class Watched:
    """A cluster with exporter and Prometheus, each of which can be ended and started again."""

    def __init__(self, cluster: LocalCluster, directory: Path, running: ExitStack) -> None:
        self.cluster = cluster
        self.directory = directory
        self._running = running
        settings = directory / "settings.yml"
        own = {"name": "lab", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
        clusters = [{**own, "hostfile": str(cluster.hostfile)}]
        settings.write_text(yaml.safe_dump({"clusters": clusters, "runtime": {"timeout": "2s"}}))
        self.settings = settings
        self.rules = options()
        self.jobs: list[dict[str, Any]] = []
        self._flags = (f"--config.file={settings}",)
        self.exporter = running.enter_context(ExporterProcess(directory, *self._flags))
        self.port = self.exporter.address
        self.prometheus = self._prometheus()

    def restart_prometheus(self) -> None:
        self.prometheus.stop()
        self.prometheus = self._prometheus()

    def restart_exporter(self) -> None:
        self.exporter.stop()
        self.exporter = self._running.enter_context(ExporterProcess(self.directory, *self._flags))
        self.prometheus.reload(self._config())

    def fired(self) -> set[str]:
        """Names of the alerts that fired at any time so far."""
        return {
            sample.labels["alertname"] for sample in self.prometheus.query(f"max_over_time({FIRING}[1h])")
        }

    def scrapes(self, number: int) -> None:
        self.prometheus.wait_for_scrapes(number, 'up{job="clio-exporter"}', 120)

    def impatient(self) -> None:
        """Every wait divided by `FASTER`: nothing is restarted here that takes its own time."""
        self.rules = Options(faster=FASTER, thresholds={"scrape_timeout": TIMEOUT})
        self.prometheus.reload(self._config())

    def scrape_also(self, *jobs: str) -> None:
        """Let Prometheus scrape a port where nobody listens, under these names."""
        nobody = [{"targets": [f"127.0.0.1:{free_port()}"]}]
        self.jobs = [{"job_name": job, "static_configs": nobody} for job in jobs]
        self.prometheus.reload(self._config())

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {sample.labels["alertname"] for sample in self.prometheus.query(FIRING)}

    def _prometheus(self) -> Prometheus:
        return self._running.enter_context(Prometheus(self.directory, self._config()))

    def _config(self) -> dict[str, Any]:
        files = []
        for name, text in render(self.rules).items():
            (self.directory / name).write_text(text)
            files.append(str(self.directory / name))
        job = {"job_name": "clio-exporter", "static_configs": [{"targets": [self.exporter.address]}]}
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": "1s"},
            "rule_files": files,
            "scrape_configs": [job, *self.jobs],
        }


@pytest.fixture
def watched(runtime_install: RuntimeInstall, tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as running:
        cluster = running.enter_context(
            LocalCluster(
                tmp_path / "cluster", NODES, install=runtime_install, base_port=find_base_port(NODES)
            )
        )
        watched = Watched(cluster, tmp_path, running)
        watched.prometheus.wait_for(f"sum(clio_node_up) == {NODES}")
        yield watched


def bench(watched: Watched, index: int, tag: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A client of one node that puts blobs of names that begin with `tag`."""
    node = watched.cluster.nodes[index]
    with (node.directory / f"bench-{tag}.log").open("wb") as log:
        return subprocess.Popen(
            [str(watched.cluster.install.bench), *BENCH, *arguments],
            env={**node.environment, "CLIO_WAIT_SERVER": "10", "NODE_ID": tag},
            cwd=node.directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def test_a_healthy_cluster_alerts_nobody_whatever_it_goes_through(watched: Watched, tmp_path: Path) -> None:
    watched.scrapes(5)
    assert watched.fired() == set(), "idle"

    traffic = Traffic(watched.cluster, State(tmp_path / "traffic.json"))
    traffic.start(lambda _line: None)
    try:
        watched.scrapes(10)
        assert watched.fired() == set(), "steady load"

        burst = bench(watched, 0, "burst", "--op", "Put", "--io-size", "1m", "--io-count", "150")
        try:
            half = 'max(bdev:clio_bdev_used:ratio{node_id="0"}) > 0.5'
            watched.prometheus.wait_for(half, seconds=120)
            watched.scrapes(10)
            watched.prometheus.wait_for(half)
        finally:
            ended(burst)
        assert watched.fired() == set(), "a burst that fills a tier half, and stays"

        for node in watched.cluster.nodes:
            node.restart()
        watched.prometheus.wait_for(f"sum(clio_node_up) == {NODES}")
        watched.scrapes(5)
        assert watched.fired() == set(), "a rolling restart"

        os.kill(watched.exporter.pid, signal.SIGSTOP)
        try:
            watched.prometheus.wait_for('up{job="clio-exporter"} == 0')
        finally:
            os.kill(watched.exporter.pid, signal.SIGCONT)
        watched.scrapes(3)
        assert watched.fired() == set(), "a scrape that is late"

        watched.restart_prometheus()
        watched.scrapes(5)
        assert watched.fired() == set(), "Prometheus restarted"

        watched.restart_exporter()
        watched.scrapes(5)
        assert watched.fired() == set(), "exporter restarted"
    finally:
        traffic.stop()


def test_two_nodes_that_put_blobs_of_one_name_are_seen_to_wait(watched: Watched) -> None:
    """The runtime's own deadlock: all answer, and no client gets on."""
    clients = [bench(watched, index, "same", *ENDLESS) for index in range(NODES)]
    try:
        watched.prometheus.wait_for("node:clio_bdev_idle:bool5m == 0", seconds=60)
        began = time.monotonic()
        watched.prometheus.wait_for(f'{FIRING[:-1]}, alertname="ClioWorkStalled"}}', seconds=240)
        print(f"ClioWorkStalled {time.monotonic() - began:.0f} s after the first bytes, on the fast clock")
        assert watched.fired() == {"ClioWorkStalled"}
        assert watched.prometheus.value("sum(clio_node_up)") == NODES
    finally:
        for client in clients:
            ended(client)


@dataclass(frozen=True)
class Fault:
    """What is done, and the alert that it is for."""

    what: str
    alert: str
    do: Callable[[Watched], object]
    undo: Callable[[Watched], object]


def rewritten(path: Callable[[Watched], Path], change: Callable[[str], str]) -> Callable[[Watched], None]:
    def do(watched: Watched) -> None:
        path(watched).write_text(change(path(watched).read_text()))

    return do


def config(watched: Watched) -> Path:
    return watched.cluster.nodes[1].config_path


def hostfile(watched: Watched) -> Path:
    assert watched.cluster.hostfile is not None
    return watched.cluster.hostfile


def settings_broken(watched: Watched) -> None:
    watched.settings.write_text(watched.settings.read_text() + "nonsense: 1\n")
    os.kill(watched.exporter.pid, signal.SIGHUP)


def settings_mended(watched: Watched) -> None:
    watched.settings.write_text(watched.settings.read_text().replace("nonsense: 1\n", ""))
    os.kill(watched.exporter.pid, signal.SIGHUP)


Step = Callable[[Watched], object]


def on_node(index: int, do: Callable[[LocalNode], None]) -> Step:
    return lambda watched: do(watched.cluster.nodes[index])


def to_exporter(number: int) -> Step:
    return lambda watched: os.kill(watched.exporter.pid, number)


def scraping(*jobs: str) -> Step:
    return lambda watched: watched.scrape_also(*jobs)


def line(path: Callable[[Watched], Path], text: str) -> tuple[Step, Step]:
    """Add a line to a file, and take it away."""
    return rewritten(path, lambda all_: all_ + text), rewritten(path, lambda all_: all_.replace(text, ""))


FAULTS = (
    Fault(
        "SIGKILL to a runtime",
        "ClioNodeDown",
        lambda watched: watched.cluster.nodes[2].kill(),
        lambda watched: watched.cluster.nodes[2].restart(),
    ),
    Fault("SIGSTOP to a runtime", "ClioNodeHung", on_node(3, LocalNode.pause), on_node(3, LocalNode.resume)),
    Fault(
        "a node's file has one more setting", "ClioConfigDiffers", *line(config, "swim: {enabled: true}\n")
    ),
    Fault("a node's file is no YAML", "ClioConfigUnreadable", *line(config, "oops: [\n")),
    Fault(
        "a line in the hostfile that is no host", "ClioMembershipStale", *line(hostfile, "no host:at:all !\n")
    ),
    Fault("settings with an unknown key", "ClioExporterReloadFailed", settings_broken, settings_mended),
    Fault(
        "SIGSTOP to the exporter",
        "ClioExporterDown",
        to_exporter(signal.SIGSTOP),
        to_exporter(signal.SIGCONT),
    ),
    Fault("no control API at its port", "ClioControlApiDown", scraping("clio-control-api"), scraping()),
)


def test_every_fault_is_seen_and_nothing_besides(watched: Watched) -> None:
    watched.impatient()
    watched.scrapes(3)
    for fault in FAULTS:
        before = watched.firing()
        began = time.monotonic()
        fault.do(watched)
        try:
            watched.prometheus.wait_for(f'{FIRING[:-1]}, alertname="{fault.alert}"}}', seconds=180)
            seconds = time.monotonic() - began
            besides = watched.firing() - before - {fault.alert}
        finally:
            fault.undo(watched)
        print(
            f"{fault.alert} | {fault.what} | {seconds:.0f} | {', '.join(sorted(besides)) or 'nothing'}",
            flush=True,
        )
        assert besides == set()
        watched.prometheus.wait_for(f"absent({FIRING})", seconds=180)
