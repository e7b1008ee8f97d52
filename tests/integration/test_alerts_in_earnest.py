"""Alerts on real runtimes: none while a cluster is well, whatever it goes through; and one for each fault.

The rules are those of the kit on a fast clock: windows and waits are divided by `FASTER`. A process takes its
own time to start again: where one is restarted, alerts about what is down keep the waits they have. Faults
are waited for no longer than `PATIENCE`. The tables of docs/alerting.md come from here (`make alert-tables`).
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

from clio_exporter.kit.rules import Options, alerts
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.alert_trials import (
    FIRING,
    Figures,
    Phases,
    fired,
    unwatched,
    wait_for_evaluations,
    write_rules,
)
from tests.exporter_process import ExporterProcess
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool"), pytest.mark.timeout(900)]

NODES = 4
FASTER = 20
PATIENCE = 3
"""Minutes of the rules' clock."""
INTERVAL = "3s"
TIMEOUT = 3
SECONDS = 180.0
IN_REAL_TIME = (
    "ClioNodeDown",
    "ClioNodeHung",
    "ClioClusterNoLeader",
    "ClioExporterDown",
    "ClioExporterScrapeSlow",
)
BENCH = ("--threads", "1", "--depth", "1", "--query-type", "local")
ENDLESS = ("--op", "PutGet", "--io-size", "64k", "--io-count", "100000000", "--max-total-blobs", "400")
FILES = 'max(bdev:clio_bdev_used:ratio{node_id="0"} unless on (node_id, pool_id) clio_bdev_info{type="ram"})'


def in_real_time() -> dict[str, str]:
    return {
        name: f"{FASTER * minutes}m" for name, minutes in minutes_of_waits().items() if name in IN_REAL_TIME
    }


def minutes_of_waits() -> dict[str, int]:
    """How long the alerts of the kit wait; all whole minutes or an hour."""
    units = {"m": 1, "h": 60}
    return {alert.name: int(alert.wait[:-1]) * units[alert.wait[-1]] for alert in alerts() if alert.wait}


def options(waits: dict[str, str]) -> Options:
    return Options(faster=FASTER, waits=waits, thresholds={"scrape_timeout": TIMEOUT})


def impatient() -> dict[str, str]:
    """Waits of at most `PATIENCE`, with two exceptions.

    A scrape with a node that hangs lasts as long as the node is given, and a runtime that was stopped takes
    its own time to the next sample.
    """
    waits = minutes_of_waits()
    hurried = {name: f"{min(minutes, PATIENCE)}m" for name, minutes in waits.items()}
    stale = "ClioNodeStatisticsStale"
    return {
        **hurried,
        "ClioExporterScrapeSlow": f"{waits['ClioExporterScrapeSlow']}m",
        stale: f"{FASTER * waits[stale]}m",
    }


class Watched:
    """A cluster with exporter and Prometheus, each of which can be ended and started again."""

    def __init__(self, cluster: LocalCluster, directory: Path, running: ExitStack) -> None:
        self.cluster = cluster
        self.directory = directory
        self._running = running
        settings = directory / "settings.yml"
        own = {"name": "lab", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
        clusters = [{**own, "hostfile": str(cluster.hostfile)}]
        settings.write_text(yaml.safe_dump({"clusters": clusters, "runtime": {"timeout": "2700ms"}}))
        self.settings = settings
        self.clients: list[subprocess.Popen[bytes]] = []
        self._waits = in_real_time()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._flags = (f"--config.file={settings}",)
        self.exporter = running.enter_context(ExporterProcess(directory, *self._flags))
        self.prometheus = self._prometheus()
        running.callback(self.end_clients)

    def restart_prometheus(self) -> None:
        self.prometheus.stop()
        self.prometheus = self._prometheus()

    def restart_exporter(self) -> None:
        self.exporter.stop()
        self.exporter = self._running.enter_context(ExporterProcess(self.directory, *self._flags))
        self.prometheus.reload(self._config())

    def look(self, scrapes: int) -> None:
        """Wait until this Prometheus has scraped so many times, and evaluated all rules."""
        self.prometheus.wait_for_scrapes(scrapes, 'up{job="clio-exporter"}', SECONDS)
        wait_for_evaluations(self.prometheus, 1, SECONDS)

    def wait_ready(self) -> None:
        self.prometheus.wait_for(f"sum(clio_node_up) == {NODES}", seconds=SECONDS)

    def fires(self, alert: str) -> None:
        self.prometheus.wait_for(f'{FIRING[:-1]}, alertname="{alert}"}}', seconds=SECONDS)

    def rules(self, waits: dict[str, str]) -> None:
        """Put rules with these waits in force; those of the others are divided by `FASTER`."""
        self._waits = waits
        self.prometheus.reload(self._config())

    def scrape_also(self, job: str, targets: list[str]) -> None:
        """Let Prometheus scrape these targets too; without any, the job itself stays.

        Prometheus forgets the targets of a job that is gone only after five minutes.
        """
        self._jobs[job] = {"job_name": job, "static_configs": [{"targets": targets}] if targets else []}
        self.prometheus.reload(self._config())

    def bench(self, index: int, tag: str, *arguments: str) -> None:
        """Start a client of one node that puts blobs of names that begin with `tag`."""
        node = self.cluster.nodes[index]
        with (node.directory / f"bench-{tag}.log").open("wb") as log:
            self.clients.append(
                subprocess.Popen(
                    [str(self.cluster.install.bench), *BENCH, *arguments],
                    env={**node.environment, "CLIO_WAIT_SERVER": "10", "NODE_ID": tag},
                    cwd=node.directory,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def end_clients(self) -> None:
        for client in self.clients:
            client.kill()
            client.wait(10)
        self.clients = []

    def _prometheus(self) -> Prometheus:
        return self._running.enter_context(Prometheus(self.directory, self._config()))

    def _config(self) -> dict[str, Any]:
        job = {"job_name": "clio-exporter", "static_configs": [{"targets": [self.exporter.address]}]}
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": "1s"},
            "rule_files": write_rules(self.directory, options(self._waits)),
            "scrape_configs": [job, *self._jobs.values()],
        }


@pytest.fixture(scope="module")
def cluster(
    runtime_install: RuntimeInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Four runtimes; a test leaves them ready, the last one need not."""
    with LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        NODES,
        install=runtime_install,
        base_port=find_base_port(NODES),
        capacities=Capacities(file_tier=128),
    ) as cluster:
        yield cluster


@pytest.fixture
def watched(cluster: LocalCluster, tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as running:
        watched = Watched(cluster, tmp_path, running)
        watched.wait_ready()
        yield watched


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    return Figures(tmp_path)


def test_a_healthy_cluster_alerts_nobody_whatever_it_goes_through(
    watched: Watched, figures: Figures, tmp_path: Path
) -> None:
    phases = Phases()
    watched.look(4)
    phases.end("idle", fired(watched.prometheus))

    traffic = Traffic(watched.cluster, State(tmp_path / "traffic.json"))
    traffic.start(lambda _line: None)
    try:
        watched.look(8)
        phases.end("steady load on all nodes", fired(watched.prometheus))

        watched.bench(0, "burst", "--op", "Put", "--io-size", "1m", "--io-count", "100")
        watched.prometheus.wait_for(f"{FILES} > 0.5", seconds=SECONDS)
        watched.look(6)
        watched.prometheus.wait_for(f"{FILES} > 0.5")
        watched.end_clients()
        phases.end("a burst that fills a tier half, and stays", fired(watched.prometheus))

        for node in watched.cluster.nodes:
            node.restart()
        watched.wait_ready()
        watched.look(4)
        phases.end("a rolling restart", fired(watched.prometheus))

        os.kill(watched.exporter.pid, signal.SIGSTOP)
        try:
            watched.prometheus.wait_for('up{job="clio-exporter"} == 0')
        finally:
            os.kill(watched.exporter.pid, signal.SIGCONT)
        watched.look(3)
        phases.end("a scrape that is late", fired(watched.prometheus))

        scraped = watched.prometheus.value('count_over_time(up{job="clio-exporter"}[1h])')
        before = time.time()
        watched.restart_prometheus()
        # A process of its own, whose evaluations begin at 0, with what the one before it has stored.
        watched.look(4)
        kept = watched.prometheus.query('count_over_time(up{job="clio-exporter"}[1h])', at=before)
        assert [sample.value for sample in kept] >= [scraped - 1], "what was stored before is lost"
        phases.end("Prometheus restarted", fired(watched.prometheus))

        watched.restart_exporter()
        watched.wait_ready()
        watched.look(4)
        phases.end("the exporter restarted", fired(watched.prometheus))
    finally:
        traffic.stop()
    figures.silent(f"{NODES} real nodes", phases.figures, unwatched(watched.prometheus))


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


def scraping_nobody(job: str) -> tuple[Step, Step]:
    """Let Prometheus scrape a port where nobody listens."""
    return (
        lambda watched: watched.scrape_also(job, [f"127.0.0.1:{free_port()}"]),
        lambda watched: watched.scrape_also(job, []),
    )


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
    Fault("no control API at its port", "ClioControlApiDown", *scraping_nobody("clio-control-api")),
    Fault("no exporter at the port of a probe", "ClioProbeFailing", *scraping_nobody("clio-nodes")),
    Fault("no Prometheus at the port of a shard", "ClioShardDown", *scraping_nobody("clio-shards")),
)


def test_every_fault_is_seen_and_nothing_besides(watched: Watched, figures: Figures) -> None:
    wrong = {}
    watched.rules(impatient())
    watched.look(2)
    for fault in FAULTS:
        since, began = time.time(), time.monotonic()
        try:
            fault.do(watched)
            watched.fires(fault.alert)
            seconds = time.monotonic() - began
        finally:
            fault.undo(watched)
        watched.wait_ready()
        watched.prometheus.wait_for(f"absent({FIRING})", seconds=SECONDS)
        besides = fired(watched.prometheus, since) - {fault.alert}
        print(f"{fault.alert} | {fault.what} | {seconds:.0f} | {besides or 'nothing'}", flush=True)
        figures.seen(fault.alert, fault.what, seconds, besides, held_back=())
        if besides:
            wrong[fault.what] = besides
    assert wrong == {}


def test_two_nodes_that_put_blobs_of_one_name_are_seen_to_wait(watched: Watched, figures: Figures) -> None:
    """The runtime's own deadlock: all answer, and no client gets on. The last test: nothing ends it."""
    watched.rules(impatient())
    watched.look(2)
    began = time.monotonic()
    for index in range(NODES):
        watched.bench(index, "same", *ENDLESS)
    watched.prometheus.wait_for("node:clio_bdev_idle:bool5m == 0", seconds=SECONDS)
    watched.fires("ClioWorkStalled")
    seconds = time.monotonic() - began
    besides = fired(watched.prometheus) - {"ClioWorkStalled"}
    assert watched.prometheus.value("sum(clio_node_up)") == NODES
    what = "clients of four nodes put blobs of one name: the runtimes deadlock"
    print(f"ClioWorkStalled | {what} | {seconds:.0f} | {besides or 'nothing'}", flush=True)
    figures.seen("ClioWorkStalled", what, seconds, besides, held_back=())
    assert besides == set()
