"""Alerts on simulated nodes: none on 500 that are well; one for each fault that real nodes cannot be given.

The rules are those of the kit on a fast clock, as in test_alerts_in_earnest.py.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_lab.simulator.process import SimulatorProcess
from tests.alert_trials import (
    FASTER,
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
from tests.control_api_process import ControlApiProcess
from tests.exporter_process import eventually
from tests.ports import free_port
from tests.prometheus import Prometheus, Sample, backfill
from tests.system import needs_system
from tests.unit.web.support import Authority, client_context, write

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool"), pytest.mark.timeout(900)]

SECONDS = 120.0
WEB = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
SLOWLY = ("--rate", "0.02", "--age", "2000")
"""Counters move, and no device is half full within the hour: simulated ones fill and are emptied."""


class Watched(Watch):
    """Simulated nodes."""

    seconds = SECONDS

    def __init__(
        self,
        running: ExitStack,
        directory: Path,
        nodes: int,
        interval: int,
        faster: int = FASTER,
        *,
        tls: bool = False,
        arrays: int = 0,
    ) -> None:
        self.nodes = nodes
        self.hostfile = directory / "hosts"
        self._interval = interval
        self._faster = faster
        flags = (
            "--nodes",
            str(nodes),
            "--workers",
            "4",
            "--bdevs",
            "2",
            "--arrays",
            str(arrays),
            "--hostfile",
            str(self.hostfile),
            *SLOWLY,
        )
        self.simulator = running.enter_context(
            SimulatorProcess(*flags, "--base-port", str(free_port()), timeout=60)
        )
        runtime = directory / "clio.yaml"
        runtime.write_text("networking: {port: 9413}\nruntime: {num_threads: 4}\n")
        cluster = {"name": "sim", "hostfile": str(self.hostfile), "runtime_config": str(runtime)}
        settings = directory / "settings.yml"
        document = {"clusters": [{**cluster, "generation": "C"}]}
        settings.write_text(yaml.safe_dump({**document, "runtime": {"timeout": f"{interval - 0.3:.1f}s"}}))
        exporter = [f"--config.file={settings}"]
        self._authority = Authority() if tls else None
        if self._authority is not None:
            self._certificates = directory
            write(directory / "authority.pem", self._authority.pem)
            self.certify(dt.timedelta(days=90))
            web = write(directory / "web.yml", WEB)
            exporter.append(f"--web.config.file={web}")
        context = None if self._authority is None else client_context(self._authority)
        self._begin(running, directory, exporter, in_real_time(), context)
        self.wait_ready()

    def certify(self, lasts: dt.timedelta) -> None:
        """Give the exporter another certificate, as a renewal does."""
        assert self._authority is not None
        self._authority.issue(self._certificates, "server", lasts=lasts)

    def _config(self) -> dict[str, Any]:
        interval = f"{self._interval}s"
        return {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": write_rules(self.directory, options(self._waits, self._interval, self._faster)),
            "scrape_configs": [{**self._job(), **self._tls_settings()}, *self._jobs.values()],
        }

    def begin_anew(self, history: str) -> None:
        """Go on with another Prometheus, which knows this (OpenMetrics with times) and nothing else."""
        own = self.directory / "anew"
        own.mkdir()
        (own / "history").write_text(history)
        self.prometheus.stop()
        self._jobs.clear()
        backfill(own, own / "history")
        self.prometheus = self._running.enter_context(Prometheus(own, self._config()))

    def _tls_settings(self) -> dict[str, Any]:
        if self._authority is None:
            return {}
        return {"scheme": "https", "tls_config": {"ca_file": str(self._certificates / "authority.pem")}}


@contextmanager
def watched(
    directory: Path, nodes: int, interval: int, faster: int = FASTER, *, tls: bool = False, arrays: int = 0
) -> Iterator[Watched]:
    with ExitStack() as running:
        yield Watched(running, directory, nodes, interval, faster, tls=tls, arrays=arrays)


@pytest.mark.alone  # scrapes of 500 nodes within five seconds; what else measures times goes on beside it
def test_500_nodes_alert_nobody(tmp_path: Path) -> None:
    """The shortest window, two minutes, has three scrapes."""
    phases = Phases()
    with watched(tmp_path, 500, 5, faster=8) as cluster:
        cluster.look(10)
        # None is pending for good; first scrapes of so many may be late.
        cluster.prometheus.wait_for("absent(ALERTS)", seconds=SECONDS)
        phases.end("steady load on all nodes", fired(cluster.prometheus))

        cluster.simulator.restart_node(range(0, 500, 25), 2)
        cluster.look(2)
        cluster.wait_ready()
        cluster.look(3)
        phases.end("20 nodes restarted", fired(cluster.prometheus))

        late = range(7, 500, 50)
        cluster.simulator.set_fault(late, "silent")
        cluster.prometheus.wait_for(f"sum(clio_node_up) == {500 - len(late)}", seconds=SECONDS)
        cluster.simulator.clear(late)
        cluster.wait_ready()
        cluster.look(3)
        phases.end("10 nodes that miss an answer", fired(cluster.prometheus))

        os.kill(cluster.exporter.pid, signal.SIGSTOP)
        try:
            cluster.prometheus.wait_for('up{job="clio-exporter"} == 0', seconds=SECONDS)
        finally:
            os.kill(cluster.exporter.pid, signal.SIGCONT)
        cluster.wait_ready()
        cluster.look(3)
        phases.end("a scrape that is late", fired(cluster.prometheus))

        cluster.restart_prometheus()
        cluster.wait_ready()
        cluster.look(4)
        phases.end("Prometheus restarted", fired(cluster.prometheus))

        cluster.restart_exporter()
        cluster.wait_ready()
        cluster.look(4)
        phases.end("the exporter restarted", fired(cluster.prometheus))
        Figures(tmp_path).silent("500 simulated nodes", phases.figures, unwatched(cluster.prometheus))


@dataclass(frozen=True)
class Fault:
    """Faults of simulated nodes by number, and the alert that they are for.

    `but` wait as long as in real time meanwhile. `with_it` are alerts that are meant to fire too.
    """

    alert: str
    what: str
    faults: dict[int, str]
    but: Collection[str] = ()
    with_it: frozenset[str] = frozenset()


FAULTS = (
    Fault("ClioNodeStatisticsStale", "samples of a node stand still", {3: "frozen"}),
    Fault("ClioWorkerStuck", "workers with tasks queued complete none", {3: "stuck"}),
    Fault("ClioQueueBacklogGrowing", "20 tasks a second more are queued on a node", {3: "backlog:5"}),
    Fault("ClioNodeSaturated", "workers never idle, 20 tasks queued for each", {3: "busy"}),
    Fault("ClioNodeMemoryPressure", "95 % of a node's memory in use", {3: "memory:95"}),
    Fault("ClioNodeMemoryExhausted", "99 % of a node's memory in use", {3: "memory:99"}),
    Fault("ClioCollectorFailing", "answers of a node end too early", {3: "truncated:200"}),
    Fault("ClioExporterScrapeSlow", "a node is waited for until its timeout", {3: "silent"}, IN_REAL_TIME),
    Fault("ClioClusterNoLeader", "no node says that it leads", {0: "leader:0"}),
    Fault("ClioClusterSeveralLeaders", "two nodes say that they lead", {3: "leader:1"}),
    Fault(
        "ClioClusterManyNodesDown",
        "4 of 12 nodes down at once",
        dict.fromkeys((3, 4, 5, 6), "refused"),
    ),
)
DEVICES = (
    Fault("ClioNodeGpuMemoryPressure", "97 % of the memory of a node's GPU in use", {1: "gpu-memory:97"}),
    Fault("ClioNodeStorageAlmostFull", "devices in memory full, the file to 89 %", {2: "full:89"}),
    Fault("ClioBdevFailurePredicted", "a device has 20 days to live", {3: "failing:20"}),
    Fault("ClioBdevFailureImminent", "a device has 2 days to live", {4: "failing:2"}),
    Fault("ClioSafeBdevDegraded", "one of six members of an array is faulty", {5: "faulty:1"}),
    Fault(
        "ClioSafeBdevRecovering",
        "a member of an array is being rebuilt",
        {6: "rebuild:40"},
        with_it=frozenset({"ClioSafeBdevDegraded"}),
    ),
    Fault(
        "ClioSafeBdevOutOfSpares", "two members of an array with two for parity are faulty", {7: "faulty:2"}
    ),
)
"""Faults that are made at once, each on a node of its own."""
FILLING = {8: (600, 360), 10: (10800, 24000)}
"""Files that fill: seconds from half full to full, and how long they already fill at that pace."""
WITH_A_PAST = (
    Fault(
        "ClioBdevFillsWithin4Hours",
        "a file that fills in 3 hours and 20 minutes, as it has for 2 hours",
        {8: "filling:600"},
    ),
    Fault(
        "ClioBdevFillsWithin3Days",
        "a file that fills in two and a half days, as it has for 6 hours",
        {10: "filling:10800"},
    ),
    Fault(
        "ClioBdevLatencyHigh",
        "I/O on a file takes 50 ms, and took its usual time for a day",
        {9: "latency:50"},
    ),
)
"""Faults that need a past, which Prometheus is given before it starts."""
HURRIED = {"ClioExporterScrapeSlow": "3m", "ClioNodeStatisticsStale": "3m"}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A dozen nodes for all faults, each with an array, behind an exporter with a certificate."""
    with watched(tmp_path_factory.mktemp("twelve"), 12, 2, tls=True, arrays=1) as cluster:
        yield cluster


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.alert)
def test_a_simulated_fault_is_seen_and_nothing_besides(fault: Fault, twelve: Watched, tmp_path: Path) -> None:
    def begin() -> None:
        for node, text in fault.faults.items():
            twelve.simulator.set_fault(node, text)

    own = {name: wait for name, wait in HURRIED.items() if name == fault.alert}
    waits = {**impatient(but=fault.but), **own}
    end = partial(twelve.simulator.clear, fault.faults)
    assert besides(twelve, fault.alert, f"simulated: {fault.what}", waits, begin, end, tmp_path) == set()


def test_a_certificate_about_to_expire_is_seen_and_nothing_besides(twelve: Watched, tmp_path: Path) -> None:
    alert = "ClioCertificateExpires"
    what = "the exporter is given a certificate for 13 days"
    begin = partial(twelve.certify, dt.timedelta(days=13))
    end = partial(twelve.certify, dt.timedelta(days=90))
    assert besides(twelve, alert, what, impatient(), begin, end, tmp_path) == set()


def besides(
    twelve: Watched,
    alert: str,
    what: str,
    waits: dict[str, str],
    begin: Callable[[], None],
    end: Callable[[], None],
    directory: Path,
) -> set[str]:
    """What fires beside an alert from the begin of a fault until all is well again, held back by nothing."""
    prometheus = twelve.prometheus
    twelve.rules(waits)
    twelve.look(2)
    prometheus.wait_for("absent(ALERTS)", seconds=SECONDS)
    since, began = time.time(), time.monotonic()
    try:
        begin()
        twelve.fires(alert)
        seconds = time.monotonic() - began
    finally:
        end()
    twelve.wait_ready()
    prometheus.wait_for(f"absent({FIRING})", seconds=SECONDS)
    return Figures(directory).seen(alert, what, seconds, fired(prometheus, since))


def past(cluster: Watched, until: float) -> str:
    """What Prometheus knows of all files now, as if it had long been so, and how those in `FILLING` filled.

    Free bytes for more than six hours, recorded means of latency for more than the day and the hour that
    are looked back to, at the intervals of scrapes and rules. AssertionError while a file is missing.
    """
    lines = []

    def add(name: str, hours: float, step: float, value: Callable[[Sample, float], float]) -> None:
        files = cluster.prometheus.query(f'{name} and on (node_id, pool_id) clio_bdev_info{{type="file"}}')
        assert len(files) == len(sizes) == cluster.nodes, f"{name}: {files}"
        for sample in files:
            labels = {key: text for key, text in sample.labels.items() if key != "__name__"}
            series = ",".join(f"{key}={json.dumps(text)}" for key, text in labels.items())
            for number in range(int(hours * 3600 / FASTER / step), -1, -1):
                ago = number * step
                lines.append(f"{name}{{{series}}} {value(sample, ago):.9g} {until - ago:.3f}\n")

    def free(now: Sample, ago: float) -> float:
        node = now.labels["node_id"]
        if int(node) not in FILLING:
            return now.value
        seconds, filled = FILLING[int(node)]
        return sizes[node] / 2 * (1 + min(ago, filled) / seconds)

    of_files = 'clio_bdev_capacity_bytes and on (node_id, pool_id) clio_bdev_info{type="file"}'
    sizes = {size.labels["node_id"]: size.value for size in cluster.prometheus.query(of_files)}
    add("clio_bdev_free_bytes", 6.5, 2, free)
    for direction in ("read", "write"):
        add(f"bdev:clio_bdev_{direction}_latency_seconds:avg5m", 26, 240 / FASTER, lambda now, _: now.value)
    return "".join((*lines, "# EOF\n"))


def seen(cluster: Watched, directory: Path) -> None:
    """Make all faults, wait for the alert of each, take them back; each node has its own alerts only."""
    faults = (*WITH_A_PAST, *DEVICES)
    began: dict[str, float] = {}
    took: dict[tuple[str, str], float] = {}
    wanted = {(name, str(node)) for f in faults for node in f.faults for name in (f.alert, *f.with_it)}

    def make(fault: Fault) -> None:
        for node, text in fault.faults.items():
            began[str(node)] = time.monotonic()
            cluster.simulator.set_fault(node, text)

    def missing() -> set[tuple[str, str]]:
        for sample in cluster.prometheus.query(FIRING):
            alert, node = sample.labels["alertname"], sample.labels.get("node_id", "")
            took.setdefault((alert, node), time.monotonic() - began.get(node, 0))
        return wanted - took.keys()

    try:
        known = eventually("a past", lambda: past(cluster, time.time()), cluster.seconds, pause=0.5)
        since = time.time()
        for fault in WITH_A_PAST:
            make(fault)
        cluster.begin_anew(known)
        cluster.wait_ready()
        for fault in DEVICES:
            make(fault)
        eventually("all alerts", lambda: not missing(), 2 * cluster.seconds, pause=0.5)
    finally:
        cluster.simulator.clear([node for fault in faults for node in fault.faults])
    cluster.wait_ready()
    prometheus = cluster.prometheus
    prometheus.wait_for(f"absent({FIRING})", seconds=cluster.seconds)
    assert fired(prometheus, since, 'node_id=""') == set()
    for fault in faults:
        (node,) = fault.faults
        names = fired(prometheus, since, f'node_id="{node}"')
        what = f"simulated: {fault.what}"
        seconds = took[fault.alert, str(node)]
        unmeant = Figures(directory).seen(fault.alert, what, seconds, names, fault.with_it)
        assert unmeant == set(), fault.alert


def test_a_control_api_that_cannot_act_is_seen_and_nothing_besides(twelve: Watched, tmp_path: Path) -> None:
    ssh = {"host": "127.0.0.1", "port": free_port(), "connect_timeout": "3s"}
    with ControlApiProcess(tmp_path / "control", twelve.hostfile, ssh) as api:
        twelve.scrape_also("clio-control-api", [api.address])
        twelve.prometheus.wait_for("clio_control_tokens_file_usable == 1", seconds=SECONDS)
        alert, what = "ClioControlTokensUnusable", "the tokens file of a control API has no line that is one"
        begin, end = api.break_tokens, api.mend_tokens
        assert besides(twelve, alert, what, impatient(), begin, end, tmp_path) == set()

        alert, what = "ClioControlActionFailed", "a restart is asked for where no sshd listens"
        since, began = time.time(), time.monotonic()
        status, document = api.act(0, "restart")
        assert status >= 500, document
        twelve.fires(alert)
        seconds = time.monotonic() - began
        # Nothing undoes a failure: the alert lasts as long as its window.
        twelve.look(2)
        names = fired(twelve.prometheus, since)
        twelve.scrape_also("clio-control-api", [])
    assert Figures(tmp_path).seen(alert, what, seconds, names) == set()


def test_faults_of_devices_are_seen_each_on_its_node(twelve: Watched, tmp_path: Path) -> None:
    # What fills has done so for long, so that forecasts need no long wait to tell it from a burst.
    hurried = {"ClioBdevFillsWithin4Hours": "2m", "ClioBdevFillsWithin3Days": "2m"}
    twelve.rules({**impatient(but=IN_REAL_TIME), **hurried})
    seen(twelve, tmp_path)
