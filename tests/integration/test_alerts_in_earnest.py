"""Alerts on real runtimes: none while a cluster is well, whatever it goes through; and one for each fault.

The rules are those of the kit on a fast clock: windows and waits are divided by `FASTER`. A process takes its
own time to start again: where one is restarted, alerts about what is down keep the waits they have. The
tables of docs/alerting.md come from here and from test_alerts_simulated.py (`make alert-tables`).
"""

from __future__ import annotations

import os
import shutil
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

from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import LocalNode
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities
from clio_lab.demo.state import State
from clio_lab.demo.traffic import Traffic
from tests.alert_trials import (
    FIRING,
    IN_REAL_TIME,
    Figures,
    Phases,
    Watch,
    fired,
    impatient,
    in_real_time,
    options,
    unwatched,
    write_rules,
)
from tests.integration.wrong_clock import restart_with_clock, restart_with_right_clock
from tests.ports import free_port
from tests.system import needs_system

pytestmark = [
    pytest.mark.integration,
    needs_system("prometheus", "promtool", "faketime"),
    pytest.mark.timeout(900),
]

NODES = 4
INTERVAL = "3s"
TIMEOUT = 3
SECONDS = 180.0
OF_THE_MACHINE = ("ClioBdevLatencyHigh",)
"""Alerts that are right where other tests take the processors; so they wait as in real time."""
BENCH = ("--threads", "1", "--depth", "1", "--query-type", "local")
ENDLESS = ("--op", "PutGet", "--io-size", "64k", "--io-count", "100000000", "--max-total-blobs", "400")
STARTED = 'node:clio_node_start_time_seconds:max{node_id="2"}'
FILES = 'max(bdev:clio_bdev_used:ratio{node_id="0"} unless on (node_id, pool_id) clio_bdev_info{type="ram"})'


class Watched(Watch):
    """Four real runtimes."""

    nodes = NODES
    seconds = SECONDS

    def __init__(self, cluster: LocalCluster, directory: Path, running: ExitStack) -> None:
        self.cluster = cluster
        settings = directory / "settings.yml"
        own = {"name": "lab", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
        clusters = [{**own, "hostfile": str(cluster.hostfile)}]
        settings.write_text(yaml.safe_dump({"clusters": clusters, "runtime": {"timeout": "2700ms"}}))
        self.settings = settings
        self.clients: list[subprocess.Popen[bytes]] = []
        self._begin(running, directory, (f"--config.file={settings}",), in_real_time(*OF_THE_MACHINE))
        running.callback(self.end_clients)

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

    def _config(self) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": "1s"},
            "rule_files": write_rules(self.directory, options(self._waits, TIMEOUT)),
            "scrape_configs": [self._job(), *self._jobs.values()],
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
        capacities=Capacities(file_tier=256),
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watched(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with ExitStack() as running:
        watched = Watched(cluster, tmp_path_factory.mktemp("watched"), running)
        watched.wait_ready()
        yield watched


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    return Figures(tmp_path)


def test_a_healthy_cluster_alerts_nobody_whatever_it_goes_through(
    watched: Watched, figures: Figures, tmp_path: Path
) -> None:
    phases = Phases()
    watched.rules(in_real_time(*OF_THE_MACHINE))
    watched.look(4)
    phases.end("idle", fired(watched.prometheus))

    traffic = Traffic(watched.cluster, State(tmp_path / "traffic.json"))
    traffic.start(lambda _line: None)
    try:
        watched.look(8)
        phases.end("steady load on all nodes", fired(watched.prometheus))

        watched.bench(0, "burst", "--op", "Put", "--io-size", "1m", "--io-count", "200")
        watched.prometheus.wait_for(f"{FILES} > 0.5", seconds=SECONDS)
        watched.look(6)
        watched.prometheus.wait_for(f"{FILES} > 0.5")
        watched.end_clients()
        phases.end("a burst that fills a tier half, and stays", fired(watched.prometheus))

        comment, without = line(hostfile, "# a remark\n")
        comment(watched)
        watched.look(6)
        without(watched)
        watched.look(2)
        phases.end("a comment line in the hostfile", fired(watched.prometheus))

        for node in watched.cluster.nodes:
            node.restart()
        watched.wait_ready()
        watched.look(4)
        phases.end("a rolling restart", fired(watched.prometheus))

        os.kill(watched.exporter.pid, signal.SIGSTOP)
        try:
            watched.prometheus.wait_for('up{job="clio-exporter"} == 0', seconds=SECONDS)
        finally:
            os.kill(watched.exporter.pid, signal.SIGCONT)
        watched.wait_ready()
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
    figures.silent(f"{NODES} real nodes", phases.figures, unwatched(watched.prometheus) | {*OF_THE_MACHINE})


@dataclass(frozen=True)
class Fault:
    """What is done, and the alert that it is for; `but` wait as long as in real time meanwhile."""

    what: str
    alert: str
    do: Callable[[Watched], object]
    undo: Callable[[Watched], object]
    but: tuple[str, ...] = ()


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


def restarted(times: int) -> Step:
    """Restart a node, and each time wait until it has been scraped."""

    def do(watched: Watched) -> None:
        for _ in range(times):
            before = watched.prometheus.value(STARTED)
            watched.cluster.nodes[2].restart(composed=False)
            watched.prometheus.wait_for(f"{STARTED} > {before + 1}", seconds=SECONDS)

    return do


def filled(watched: Watched) -> None:
    """Put blobs until the file tier of node 0 is full."""
    watched.bench(0, "full", "--op", "Put", "--io-size", "1m", "--io-count", "500")
    watched.prometheus.wait_for(f"{FILES} > 0.95", seconds=SECONDS)


def emptied(watched: Watched) -> None:
    """Let the runtime start with an empty store: what its devices hold stays over a restart."""
    watched.end_clients()
    node = watched.cluster.nodes[0]
    node.terminate()
    shutil.rmtree(node.store)
    node.restart()
    watched.prometheus.wait_for(f"{FILES} < 0.5", seconds=SECONDS)


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
    # Restarts a node twice, so it is one that no fault before has restarted: a third time would be flapping.
    Fault(
        "the clock of a runtime's host is an hour ahead (libfaketime)",
        "ClioNodeClockWrong",
        on_node(1, lambda node: restart_with_clock(node, 3600)),
        on_node(1, restart_with_right_clock),
        but=IN_REAL_TIME,
    ),
    Fault(
        "a runtime restarted three times",
        "ClioNodeFlapping",
        restarted(3),
        lambda watched: watched.cluster.nodes[2].wait_ready(),
        but=IN_REAL_TIME,
    ),
    Fault("no control API at its port", "ClioControlApiDown", *scraping_nobody("clio-control-api")),
    Fault("no exporter at the port of a probe", "ClioProbeFailing", *scraping_nobody("clio-nodes")),
    Fault("no Prometheus at the port of a shard", "ClioShardDown", *scraping_nobody("clio-shards")),
    Fault("blobs put until the file tier is full", "ClioBdevAlmostFull", filled, emptied, but=IN_REAL_TIME),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.alert)
def test_a_fault_is_seen_and_nothing_besides(fault: Fault, watched: Watched, figures: Figures) -> None:
    watched.rules(impatient(but=fault.but))
    watched.look(2)
    watched.prometheus.wait_for("absent(ALERTS)", seconds=SECONDS)
    since, began = time.time(), time.monotonic()
    try:
        fault.do(watched)
        watched.fires(fault.alert)
        seconds = time.monotonic() - began
    finally:
        fault.undo(watched)
    watched.wait_ready()
    watched.prometheus.wait_for(f"absent({FIRING})", seconds=SECONDS)
    assert figures.seen(fault.alert, fault.what, seconds, fired(watched.prometheus, since)) == set()


def test_two_nodes_that_put_blobs_of_one_name_are_seen_to_wait(watched: Watched, figures: Figures) -> None:
    """The runtime's own deadlock: all answer, and no client gets on. The last test: nothing ends it."""
    # Devices of a busy machine are slow in earnest, for a while.
    watched.rules(impatient(but=OF_THE_MACHINE))
    watched.look(2)
    watched.prometheus.wait_for("absent(ALERTS)", seconds=SECONDS)
    since, began = time.time(), time.monotonic()
    for index in range(NODES):
        watched.bench(index, "same", *ENDLESS)
    watched.prometheus.wait_for("node:clio_bdev_idle:bool5m == 0", seconds=SECONDS)
    watched.fires("ClioWorkStalled")
    seconds = time.monotonic() - began
    assert watched.prometheus.value("sum(clio_node_up)") == NODES
    what = "clients of four nodes put blobs of one name: the runtimes deadlock"
    assert figures.seen("ClioWorkStalled", what, seconds, fired(watched.prometheus, since)) == set()
