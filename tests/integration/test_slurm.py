"""Job mode in batch jobs of a real Slurm: found by a central Prometheus, cancelled, looked at afterwards."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_exporter.job import nodes, state
from clio_exporter.job.processes import running
from clio_exporter.job.reporting import of_job
from clio_exporter.job.state import ProcessRecord
from clio_exporter.report.questions import Range
from clio_lab.demo.state import State
from tests.exporter_process import ExporterProcess, eventually, run_exporter
from tests.integration.test_job import query, with_opened
from tests.paths import ROOT
from tests.ports import free_port
from tests.prometheus import Prometheus
from tests.slurm import COMMANDS, NoSlurmError, Slurm
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool", *COMMANDS)]

NAME = "sort of blobs"
SCRIPTS = ROOT / "contrib" / "slurm"

SCRIPT = """#!/bin/bash
#SBATCH --job-name={name} --nodes=2 --time=10
set -eu
wait_for() {{ # FILE: for at most three minutes
    for _ in $(seq 900); do if [ -e "$1" ]; then return; fi; sleep 0.2; done
    echo "no $1"; exit 1
}}
{python} {helper} runtimes-$SLURM_JOB_ID {nodes} & runtimes=$!
trap 'kill $runtimes; wait $runtimes' EXIT
wait_for runtimes-$SLURM_JOB_ID/ready
{exporter} job start --hostfile runtimes-$SLURM_JOB_ID/hostfile --timeout 150 -- \\
    --runtime.reply-port {reply_port} --web.listen-address 127.0.0.1:{port} \\
    --sd.address 127.0.0.1:{port} --sd.file sd/$SLURM_JOB_ID.json
wait_for go-$SLURM_JOB_ID
{exporter} job annotate "phase 2"
{exporter} job stop
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    directory = tmp_path_factory.mktemp("slurm")
    (directory / "sd").mkdir()
    (directory / "map").mkdir()
    scripts = {name: site_script(directory, name) for name in ("prolog", "epilog")}
    more = {"Prolog": scripts["prolog"], "PrologFlags": "Alloc", "Epilog": scripts["epilog"]}
    try:
        cluster = Slurm(directory, 2, more)
    except NoSlurmError as error:
        pytest.skip(f"Slurm does not run here: {error}")
    with cluster:
        yield cluster
    for left in directory.glob("runtimes-*/state.json"):
        State.load(left).clean()


def site_script(directory: Path, name: str) -> str:
    """One of ours as a site installs it: with its own directory of jobs."""
    script = directory / f"{name}.sh"
    ours, jobs = shlex.quote(str(SCRIPTS / f"{name}.sh")), shlex.quote(str(directory / "map"))
    script.write_text(f"#!/bin/sh\nCLIO_JOB_DIRECTORY={jobs} exec {ours}\n", encoding="utf-8")
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def central(slurm: Slurm) -> Iterator[Prometheus]:
    """A site's Prometheus, which knows jobs by their files alone."""
    jobs = {
        "job_name": "jobs",
        "file_sd_configs": [{"files": [f"{slurm.directory}/sd/*.json"], "refresh_interval": "1s"}],
    }
    with Prometheus(slurm.directory / "central", {"scrape_configs": [jobs]}) as prometheus:
        yield prometheus


def submitted(slurm: Slurm, runtimes: int) -> str:
    """A job with so many runtimes; its id."""
    text = SCRIPT.format(
        name=shlex.quote(NAME), nodes=runtimes, python=shlex.quote(sys.executable),
        helper=shlex.quote(str(ROOT / "tests" / "integration" / "cluster_in_job.py")),
        exporter=f"{shlex.quote(sys.executable)} -m clio_exporter",
        port=free_port(), reply_port=free_port(),
    )  # fmt: skip
    script = slurm.directory / f"batch-{runtimes}.sh"
    script.write_text(text, encoding="utf-8")
    return slurm.sbatch(script)


def matchers(slurm: Slurm, job_id: str) -> str:
    """What all series of a job carry."""
    user = slurm.run("squeue", "--noheader", "--format=%u", f"--jobs={job_id}")
    return f'job_id="{job_id}",user="{user}",job_name="{NAME}"'


def wait_until_found(slurm: Slurm, central: Prometheus, job_id: str, labels: str, runtimes: int) -> None:
    """Wait until the central Prometheus has all nodes of a job; fail at once when the job has ended."""

    def found() -> bool:
        if slurm.state(job_id) not in ("PENDING", "RUNNING"):
            raise RuntimeError(f"{slurm.state(job_id)}: {slurm.output(job_id)}\n{slurm.said()}")
        return len(central.query(f"clio_node_up{{{labels}}} == 1")) == runtimes

    eventually(f"job {job_id} is found", found, 240, pause=0.2)


def targets(central: Prometheus) -> list[Any]:
    found: list[Any] = central.api("targets", state="active")["activeTargets"]
    return found


def recorded(slurm: Slurm, job_id: str) -> dict[str, Any]:
    """What `job start` has written down, which it does when all serve: after the exporter is found."""
    path = slurm.directory / f"clio-job-{job_id}" / state.STATE

    def written() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(path.read_text())
        return {} if document["starting"] else document

    return eventually("the job has started", written, 180, pause=0.2)


def wait_for_samples(port: int, runtimes: int, number: int) -> None:
    """Wait until the job's own Prometheus has so many scrapes of each node, each up."""
    up = f"count_over_time((clio_node_up == 1)[1h:1s]) >= {number}"
    eventually("samples of the job", lambda: len(query(port, up)) == runtimes, 60, pause=0.2)


def test_nodes_are_those_that_scontrol_names(slurm: Slurm) -> None:
    for listed in ("n1", "n[1-2]", "n[01-03,7],login2", "a[1-2]b[08-11],c"):
        assert nodes.expand(listed, "") == slurm.run("scontrol", "show", "hostnames", listed).split()


def test_whose_job_is_on_a_node(slurm: Slurm, tmp_path: Path) -> None:
    script = slurm.directory / "share.sh"
    script.write_text("#!/bin/sh\nexec sleep 300\n", encoding="utf-8")
    options = ["--collector.disable-defaults", "--collector.node", "--nodes=n1.site:9,N2:9"]
    where = f"--collector.node.job-directory={slurm.directory / 'map'}"
    with ExporterProcess(tmp_path, *options, where) as exporter:

        def shown() -> list[tuple[str, str]]:
            scrape = exporter.scrape()
            assert scrape.value("clio_job_map_load_success") == 1
            series = scrape.series("clio_node_job_info")
            return sorted((labels["hostname"], labels["job_id"]) for labels, _ in series)

        assert shown() == []
        one = slurm.sbatch(script, "--nodelist=n1")
        both = slurm.sbatch(script, "--nodes=2")
        eventually(
            "jobs are shown", lambda: shown() == sorted([("n1.site", one), ("n1.site", both), ("N2", both)])
        )
        users = {labels["user"] for labels, _ in exporter.scrape().series("clio_node_job_info")}
        assert users == {slurm.run("squeue", "--noheader", "--format=%u", f"--jobs={one}")}
        slurm.run("scancel", both)
        assert slurm.wait_for_end(both) == "CANCELLED"
        assert shown() == [("n1.site", one)]
        slurm.run("scancel", one)
        slurm.wait_for_end(one)
        assert shown() == []


def test_a_job_from_its_start_to_its_report(slurm: Slurm, central: Prometheus, tmp_path: Path) -> None:
    job_id = submitted(slurm, 4)
    labels = matchers(slurm, job_id)
    wait_until_found(slurm, central, job_id, labels, 4)
    wait_for_samples(recorded(slurm, job_id)["processes"]["prometheus"]["port"], 4, 5)
    (slurm.directory / f"go-{job_id}").touch()
    assert slurm.wait_for_end(job_id) == "COMPLETED", slurm.output(job_id)
    eventually("the central Prometheus has lost it", lambda: targets(central) == [])
    assert list((slurm.directory / "sd").iterdir()) == []

    directory = slurm.directory / f"clio-job-{job_id}"
    printed = slurm.output(job_id)
    assert f"job {job_id} ({NAME}): stopped" in printed
    assert "phase 2" in printed
    report = of_job(directory, 60)
    ended = recorded(slurm, job_id)
    asked = Range(ended["began"], ended["ended"], ended["interval"])
    with_opened(tmp_path, directory, lambda port: same_numbers(report.tables, labels, asked, port), 4)


def same_numbers(tables: Any, labels: str, asked: Range, port: int) -> list[object]:
    """The report's nodes, each compared with what a person would ask the same data."""
    rows = {str(row[0]).split()[0]: row for row in tables[0].rows}
    window = f"[{asked.seconds}s]"

    def value(expression: str) -> float:
        [found] = query(port, expression, time=asked.end)
        return float(found["value"][1])

    for node_id, (_, tasks, cpu, memory, *_more, answered, samples) in rows.items():
        node = f'{{node_id="{node_id}",{labels}}}{window}'
        assert tasks == pytest.approx(value(f"sum(increase(clio_worker_tasks_processed_total{node}))"))
        assert tasks > 0
        assert cpu == value(f"max_over_time(clio_node_cpu_utilization_ratio{node})")
        assert memory == value(f"max_over_time(clio_node_memory_used_ratio{node})")
        assert answered == pytest.approx(value(f"avg_over_time(clio_node_up{node})"))
        assert samples == pytest.approx(min(1, value(f"count_over_time(clio_node_up{node})") / asked.seconds))
    return list(rows)


def test_a_job_that_is_cancelled(slurm: Slurm, central: Prometheus, tmp_path: Path) -> None:
    job_id = submitted(slurm, 3)
    labels = matchers(slurm, job_id)
    wait_until_found(slurm, central, job_id, labels, 3)
    started = recorded(slurm, job_id)["processes"]
    wait_for_samples(started["prometheus"]["port"], 3, 3)
    slurm.run("scancel", job_id)
    assert slurm.wait_for_end(job_id) == "CANCELLED"
    # Slurm follows processes without cgroups here: the epilog has ended them.
    assert {name: running(ProcessRecord(**record)) for name, record in started.items()} == {
        "exporter": None, "prometheus": None,
    }  # fmt: skip
    eventually("the central Prometheus has lost it", lambda: targets(central) == [])

    directory = slurm.directory / f"clio-job-{job_id}"
    told = run_exporter(tmp_path, "job", "report", str(directory))
    assert told.returncode == 0, told.stderr
    assert "nodes: 3" in told.stdout
    with_opened(
        tmp_path,
        directory,
        lambda port: query(port, f"last_over_time(clio_node_up{{{labels}}}[1h])"),
    )
