"""`clio-exporter job` with simulated nodes and a real Prometheus: what runs, what ends, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from clio_exporter.job import state
from clio_exporter.job.processes import MARK
from clio_exporter.job.reporting import of_prometheus
from clio_exporter.report.questions import Range
from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from clio_lab.simulator.process import SimulatorProcess
from clio_web.processes import is_alive, kill, with_environment
from tests import grafana_stand_in
from tests.exporter_process import COMMAND, ExporterProcess, clean_environment, eventually, run_exporter
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool")]

NODES = 3


@pytest.fixture(scope="module")
def hostfile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("simulator") / "hosts"
    options = ["--nodes", str(NODES), "--workers", "2", "--bdevs", "2", "--age", "100"]
    with SimulatorProcess(*options, "--base-port", str(free_port(20)), "--hostfile", str(path)):
        yield path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """`clio-exporter job`; what it leaves running is ended, by the ids that it wrote down."""

    def job(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_exporter(tmp_path, "job", *arguments, environment=environment)

    yield job
    for path in tmp_path.glob(f"*/{state.STATE}"):
        for record in json.loads(path.read_text())["processes"].values():
            for process in own(record):
                process.kill()


def own(record: dict[str, Any]) -> list[psutil.Process]:
    """The process of a record, while it runs."""
    try:
        process = psutil.Process(record["pid"])
        ended = process.status() == psutil.STATUS_ZOMBIE or process.create_time() != record["started"]
    except psutil.NoSuchProcess:
        return []
    return [] if ended else [process]


def recorded(directory: Path) -> dict[str, Any]:
    """What `job start` has written down when all serves; AssertionError before."""
    document: dict[str, Any] = json.loads((directory / state.STATE).read_text())
    assert not document["starting"]
    return document


def query(port: int, expression: str, **more: float) -> list[dict[str, Any]]:
    """The instant vector of an expression."""
    asked = urllib.parse.urlencode({"query": expression, **more})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{asked}", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def exporter_arguments() -> list[str]:
    return ["--", "--runtime.reply-port", str(free_port())]


def test_from_start_to_open(run: Any, hostfile: Path, tmp_path: Path) -> None:
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_USER": "ann", "SLURM_JOB_NAME": "sort"}
    started = run("start", "--hostfile", str(hostfile), *exporter_arguments(), **slurm)
    assert started.returncode == 0, started.stderr
    directory = tmp_path / "clio-job-17"
    written = recorded(directory)
    records = written["processes"]
    assert [len(own(record)) for record in records.values()] == [1, 1]
    port = records["prometheus"]["port"]

    up = 'clio_node_up{job_id="17",user="ann",job_name="sort"}'
    eventually("scrapes", lambda: len(query(port, f"count_over_time({up}[1h]) >= 3")) == NODES)
    assert query(port, "prometheus_tsdb_head_series") == []  # it does not scrape itself
    eventually(
        "rules", lambda: query(port, "node:clio_memory_used:ratio") or query(port, "{__name__=~'node:.*'}")
    )

    again = run("start", "--hostfile", str(hostfile), **slurm)
    assert again.returncode == 1
    assert "has the data of a job already" in again.stderr

    marked = run("annotate", 'phase "2"', **slurm)
    assert (marked.returncode, marked.stderr) == (0, "")
    found = eventually("the mark", lambda: query(port, "clio_annotation_timestamp_seconds"))
    assert found[0]["metric"]["text"] == 'phase "2"'
    line = json.loads((directory / state.MARKS).read_text())
    assert float(found[0]["value"][1]) == line["time"]

    live = run("report", "--format", "markdown", **slurm)
    assert live.returncode == 0, live.stderr
    assert 'phase "2"' in live.stdout
    stopped = run("stop", **slurm)
    assert stopped.returncode == 0, stopped.stderr
    assert "coverage: " in stopped.stdout
    page = (directory / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert [own(record) for record in records.values()] == [[], []]
    ended = recorded(directory)
    assert (ended["processes"], ended["began"]) == ({}, written["began"])
    assert run("stop", **slurm).returncode == 0
    with_opened(
        tmp_path, directory, lambda port: query(port, f"count_over_time({up}[1h])", time=ended["ended"])
    )
    with_grafana(tmp_path, directory, ended["began"], ended["ended"])


def with_opened(tmp_path: Path, directory: Path, ask: Any, count: int = NODES) -> None:
    """`job open`: nothing but the saved samples is there; ended by Ctrl-C, and its Prometheus with it."""
    log = tmp_path / "open.log"
    with ChildProcess(
        "open", [*COMMAND, "job", "open", "--no-grafana", str(directory)],
        log_path=log, environment=clean_environment(tmp_path / "home"), directory=tmp_path,
    ) as opened:  # fmt: skip
        eventually("it is open", lambda: "Ctrl-C" in log.read_text(), 60)
        children = psutil.Process(opened.pid).children()
        port = int(log.read_text().splitlines()[0].rpartition(":")[2])
        assert len(ask(port)) == count
        opened.send_signal(signal.SIGINT)
        assert opened.wait(30) == 0, log.read_text()
        assert [child for child in children if child.is_running()] == []


def with_grafana(tmp_path: Path, directory: Path, began: float, ended: float) -> None:
    """`job open` where there is a Grafana (its stand-in): our dashboards at the job's time, on its data."""
    programs = tmp_path / "bin"
    programs.mkdir()
    grafana_stand_in.write(programs)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    more = {
        "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(temporary), "GF_SERVER_HTTP_PORT": "1",
    }  # fmt: skip
    log = tmp_path / "grafana.log"
    with ChildProcess(
        "open", [*COMMAND, "job", "open", str(directory)],
        log_path=log, environment=clean_environment(tmp_path / "home", more), directory=tmp_path,
    ) as opened:  # fmt: skip
        eventually("it is open", lambda: "Ctrl-C" in log.read_text(), 120)
        prometheus, shown, _ = log.read_text().splitlines()
        place = urllib.parse.urlsplit(shown.rpartition(" ")[2])
        asked = urllib.parse.parse_qs(place.query)
        assert 1000 * began - 10_000 < float(asked["from"][0]) <= 1000 * began
        assert 1000 * ended <= float(asked["to"][0]) < 1000 * ended + 10_000

        def get(path: str) -> Any:
            with urllib.request.urlopen(f"http://{place.netloc}{path}", timeout=30) as answer:
                return json.load(answer)

        (source,) = get("/api/datasources")
        assert [source["uid"]] == asked["var-datasource"]
        assert source["url"] == prometheus.rpartition(" ")[2]
        assert place.path.removeprefix("/d/") in {board["uid"] for board in get("/api/search")}
        children = psutil.Process(opened.pid).children()
        assert len(children) == 2
        opened.send_signal(signal.SIGINT)
        assert opened.wait(60) == 0, log.read_text()
        assert [child for child in children if child.is_running()] == []
    assert list(temporary.iterdir()) == []


def test_a_job_that_was_killed_leaves_its_data(run: Any, hostfile: Path, tmp_path: Path) -> None:
    directory = tmp_path / "killed"
    arguments = ["--directory", str(directory), "--hostfile", str(hostfile), "--id", "k"]
    started = run("start", *arguments, *exporter_arguments())
    assert started.returncode == 0, started.stderr
    records = recorded(directory)["processes"]
    port = records["prometheus"]["port"]
    eventually("scrapes", lambda: len(query(port, "count_over_time(clio_node_up[1h]) >= 3")) == NODES)
    for record in records.values():
        os.kill(record["pid"], signal.SIGKILL)
    eventually("they end", lambda: not [p for record in records.values() for p in own(record)])
    with_opened(tmp_path, directory, lambda port: query(port, "last_over_time(clio_node_up[1h])"))
    told = run("report", str(directory))
    assert told.returncode == 0, told.stderr
    assert f"nodes: {NODES}" in told.stdout


def test_the_reports_numbers_are_those_of_queries(cluster4: LocalCluster, tmp_path: Path) -> None:
    """Real runtimes: what a person would ask the same Prometheus, in other words than the report's."""
    began = time.time()
    with ExporterProcess(tmp_path, "--hostfile", str(cluster4.hostfile)) as exporter:
        jobs = [{"job_name": "clio", "static_configs": [{"targets": [exporter.address]}]}]
        with Prometheus(tmp_path, {"scrape_configs": jobs}) as prometheus:
            prometheus.wait_for_scrapes(15, "clio_node_up")
            end = time.time()
            asked = Range(began, end, 1.0)
            report = of_prometheus(prometheus.url, asked)
            window = f"{asked.seconds}s"
            nodes = {str(row[0]).split()[0]: row for row in report.tables[0].rows}
            assert list(nodes) == ["0", "1", "2", "3"]
            for node_id, row in nodes.items():
                node = f'node_id="{node_id}"'
                [tasks] = prometheus.query(
                    f"sum(increase(clio_worker_tasks_processed_total{{{node}}}[{window}]))", end
                )
                assert row[1] == pytest.approx(tasks.value)
                assert tasks.value > 0
                for column, series in (
                    (2, "clio_node_cpu_utilization_ratio"),
                    (3, "clio_node_memory_used_ratio"),
                ):
                    stored = prometheus.api("query", query=f"{series}{{{node}}}[{window}]", time=f"{end:.3f}")
                    values = [float(value) for _, value in stored["result"][0]["values"]]
                    assert row[column] == max(values)
                assert row[4:6] == (None, None)  # no GPU here
                assert 0 < row[8] <= 1
            tiers = next(table for table in report.tables if table.title == "Tiers")
            assert {row[1] for row in tiers.rows} >= {"ram"}
            for row in tiers.rows:
                of_tier = f'node_id="{str(row[0]).split()[0]}"'
                pools = {
                    sample.labels["pool_id"]
                    for sample in prometheus.query(
                        f'last_over_time(clio_bdev_info{{{of_tier},type="{row[1]}"}}[{window}])', end
                    )
                }
                capacity = [
                    sample.value
                    for sample in prometheus.query(
                        f"last_over_time(clio_bdev_capacity_bytes{{{of_tier}}}[{window}])", end
                    )
                    if sample.labels["pool_id"] in pools
                ]
                assert row[4] == sum(capacity)
            assert any("no rules" in problem for problem in report.problems)
            assert [problem for problem in report.problems if "no rules" not in problem] == []


def test_a_start_that_fails_leaves_nothing(run: Any, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1:1\n")
    before = {hosts, tmp_path / "home"}
    for arguments, said in (
        (["--hostfile", str(tmp_path / "missing")], "missing: cannot be read"),
        (["--hostfile", str(hosts), "--", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--hostfile", str(hosts), "--timeout", "0.1"], "does not serve in time"),
        ([], "SLURM_JOB_NODELIST"),
    ):
        failed = run("start", "--id", "1", *arguments)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert set(tmp_path.iterdir()) == before
    without = run("start", "--id", "1", "--hostfile", str(hosts), PATH="/nowhere")
    assert "prometheus: is not on PATH" in without.stderr
    assert set(tmp_path.iterdir()) == before


# `job start` that is killed as it writes its state down, before or after the n-th time.
KILLED = """
import os, signal, sys
from clio_exporter import cli
from clio_exporter.job import state
left, after = int(sys.argv[1]), sys.argv[2] == "after"
write = state.write_atomically
def killed(*arguments, **options):
    global left
    left -= 1
    if left == 0 and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments, **options)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
state.write_atomically = killed
sys.exit(cli.main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Begun:
    """A start in a directory of a test, and how it is asked for."""

    directory: Path
    arguments: tuple[str, ...]
    targets: Path

    def processes(self) -> list[psutil.Process]:
        """What it has started and still runs."""
        started = json.loads((self.directory / state.STATE).read_text())["start"]
        return with_environment(MARK, started["mark"])


@pytest.fixture
def begun(tmp_path: Path, hostfile: Path) -> Begun:
    targets = tmp_path / "targets"
    targets.mkdir()
    arguments = (
        "job", "start", "--directory", str(tmp_path / "job"), "--hostfile", str(hostfile), "--id", "k",
        *exporter_arguments(), "--sd.file", str(targets / "k.json"),
    )  # fmt: skip
    return Begun(tmp_path / "job", arguments, targets)


def child(tmp_path: Path, *command: str) -> ChildProcess:
    environment = clean_environment(tmp_path / "home")
    return ChildProcess(
        "start", [sys.executable, *command],
        log_path=tmp_path / "start.log", environment=environment, directory=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "running", "all_killed"),
    [
        ("1 after", 0, False),  # the directory is claimed
        ("2 before", 1, False),  # the exporter is started
        ("2 before", 1, True),
        ("2 after", 1, True),  # and written down
        ("3 before", 2, False),  # Prometheus is started
        ("4 before", 2, True),  # all serves
    ],
)
def test_stop_clears_what_a_start_that_was_killed_has_left(
    run: Any, begun: Begun, tmp_path: Path, moment: str, running: int, all_killed: bool
) -> None:
    with child(tmp_path, "-c", KILLED, *moment.split(), *begun.arguments) as start:
        assert start.wait(60) == -signal.SIGKILL, (tmp_path / "start.log").read_text()
    left = begun.processes()
    assert len(left) == running
    if running:
        eventually("the exporter serves", lambda: [p for p in begun.targets.iterdir() if p.suffix == ".json"])
    if all_killed:
        for process in left:
            kill(process)

    where = ("--directory", str(begun.directory))
    assert "start has not come to its end" in run("annotate", *where, "x").stderr
    again = run(*begun.arguments[1:])
    assert (again.returncode, "interrupted" in again.stderr) == (1, True), again.stderr
    cleared = run("stop", *where)
    assert cleared.returncode == 0, cleared.stderr
    assert "its start was interrupted; cleared" in cleared.stdout
    assert cleared.stdout.count("ended ") == (0 if all_killed else running)
    assert [process for process in left if is_alive(process)] == []
    assert not begun.directory.exists()
    assert list(begun.targets.iterdir()) == []


def test_beside_a_start_there_is_no_other_and_no_stop(run: Any, begun: Begun, tmp_path: Path) -> None:
    where = ("--directory", str(begun.directory))
    with child(tmp_path, "-m", "clio_exporter", *begun.arguments) as start:
        eventually("it is claimed", (begun.directory / state.STATE).exists, 60)
        start.send_signal(signal.SIGSTOP)
        written = json.loads((begun.directory / state.STATE).read_text())
        assert (written["starting"], written["start"]["pid"]) == (True, start.pid)
        other = run(*begun.arguments[1:])
        assert (other.returncode, f"process {start.pid} is starting" in other.stderr) == (1, True)
        early = run("stop", *where)
        assert (early.returncode, f"being started by process {start.pid}" in early.stderr) == (1, True)
        start.send_signal(signal.SIGCONT)
        assert start.wait(60) == 0, (tmp_path / "start.log").read_text()
    assert list(recorded(begun.directory)["processes"]) == ["exporter", "prometheus"]
    stopped = run("stop", "--no-report", *where)
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped, data in" in stopped.stdout
    assert list(begun.targets.iterdir()) == []


def test_stop_removes_the_target_of_an_exporter_that_was_killed(
    run: Any, begun: Begun, tmp_path: Path
) -> None:
    assert run(*begun.arguments[1:]).returncode == 0
    for process in begun.processes():
        kill(process)
    assert [path.name for path in begun.targets.iterdir() if path.suffix == ".json"] == ["k.json"]
    stopped = run("stop", "--no-report", "--directory", str(begun.directory))
    assert stopped.returncode == 0, stopped.stderr
    assert list(begun.targets.iterdir()) == []
    assert (begun.directory / state.DATA).is_dir()
