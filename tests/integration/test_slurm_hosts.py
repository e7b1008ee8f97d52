"""Job mode where a job has several hosts: `srun` starts a runtime on each, the exporter asks them by name."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clio_exporter.job.reporting import of_job
from clio_lab.demo.state import State
from tests.exporter_process import eventually, run_exporter
from tests.integration import hosts as hosts_on_this_machine
from tests.integration.hosts import Hosts, NoHostsError
from tests.integration.test_slurm import recorded, site_script
from tests.paths import ROOT
from tests.slurm import COMMANDS, NoSlurmError, Slurm
from tests.system import needs_system

pytestmark = [
    pytest.mark.integration,
    needs_system("prometheus", "promtool", "srun", *COMMANDS, *hosts_on_this_machine.COMMANDS),
    pytest.mark.skipif(os.geteuid() != 0, reason="hosts are made of network namespaces, which takes root"),
]

COUNT = 3
NAME = "sort over hosts"

# As a person writes it, but for the wait: no ports, no addresses.
SCRIPT = """#!/bin/bash
#SBATCH --job-name={name} --nodes={count} --ntasks-per-node=1 --time=10
set -eu
scontrol show hostnames >hostfile-$SLURM_JOB_ID
srun {python} {step} {directory}/runtimes-$SLURM_JOB_ID {directory}/hostfile-$SLURM_JOB_ID {user} & step=$!
{python} -m clio_exporter job start --timeout 150
for _ in $(seq 900); do if [ -e go-$SLURM_JOB_ID ]; then break; fi; sleep 0.2; done
{python} -m clio_exporter job annotate "phase 2"
{python} -m clio_exporter job stop
# srun itself, when it gets a signal, kills what it has started.
scancel --signal=TERM $SLURM_JOB_ID.0
wait $step
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    before = links()
    try:
        made = Hosts(tmp_path_factory.mktemp("hosts"), COUNT)
    except NoHostsError as error:
        pytest.skip(f"network namespaces cannot be had here: {error}")
    with made:
        assert links() == before
        yield made
    assert made.inside() == []
    assert links() == before


@pytest.fixture(scope="module")
def slurm(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    directory = tmp_path_factory.mktemp("slurm")
    (directory / "map").mkdir()
    scripts = {name: site_script(directory, name) for name in ("prolog", "epilog")}
    more = {"Prolog": scripts["prolog"], "PrologFlags": "Alloc", "Epilog": scripts["epilog"]}
    try:
        cluster = Slurm(directory, hosts.nodes, more, head=hosts.head)
    except NoSlurmError as error:
        pytest.skip(f"Slurm does not run here: {error}")
    try:
        with cluster:
            yield cluster
    finally:
        for left in directory.glob("runtimes-*/*/state.json"):
            State.load(left).clean()


@pytest.fixture
def user() -> str:
    """What names all that the runtimes of a job have outside their directories."""
    return f"clio-exporter-{secrets.token_hex(6)}"


def links() -> set[str]:
    """This machine's bridges and wires; other tests may make some of their own names."""
    return {
        path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(("bridge", "to-n"))
    }


def submitted(slurm: Slurm, user: str) -> str:
    """A job of one runtime on each host; its id."""
    text = SCRIPT.format(
        name=shlex.quote(NAME), count=COUNT, python=shlex.quote(sys.executable), user=user,
        step=shlex.quote(str(ROOT / "tests" / "integration" / "runtime_in_step.py")),
        directory=shlex.quote(str(slurm.directory)),
    )  # fmt: skip
    script = slurm.directory / "batch.sh"
    script.write_text(text, encoding="utf-8")
    return slurm.sbatch(script)


def query(host: tuple[str, ...], port: int, expression: str) -> list[dict[str, Any]]:
    """The instant vector that a Prometheus on the loopback interface of a host answers."""
    command = ["promtool", "query", "instant", "--format=json", f"http://127.0.0.1:{port}", expression]
    done = subprocess.run(
        [*host, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def monitored(slurm: Slurm, job_id: str, labels: str) -> dict[str, Any]:
    """What `job start` wrote, once its Prometheus has five samples of each node, each up."""

    def running() -> None:
        if slurm.state(job_id) not in ("PENDING", "RUNNING"):
            raise RuntimeError(f"{slurm.state(job_id)}: {slurm.output(job_id)}\n{slurm.said()}")

    def started() -> bool:
        running()
        return (slurm.directory / f"clio-job-{job_id}" / "job.json").exists()

    eventually("the job starts", started, 120, pause=0.2)
    job = recorded(slurm, job_id)
    port = job["processes"]["prometheus"]["port"]
    up = f"count_over_time((clio_node_up{{{labels}}} == 1)[1h:1s]) >= 5"

    def sampled() -> bool:
        running()
        return len(query(slurm.nodes["n1"].enter, port, up)) == COUNT

    eventually("samples of all nodes", sampled, 150, pause=0.5)
    return job


def labels_of(job_id: str) -> str:
    return f'job_id="{job_id}",user="root",job_name="{NAME}"'


def programs(hosts: Hosts) -> list[tuple[str, str]]:
    """Which host runs which programs."""
    found = []
    for host, process in hosts.inside():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((host, Path(process.exe()).name))
    return found


def of_the_job(hosts: Hosts, job_id: str, user: str) -> list[str]:
    """What still runs of a job."""
    found = []
    for host, process in hosts.inside():
        with contextlib.suppress(psutil.NoSuchProcess):
            environment = process.environ()
            if environment.get("SLURM_JOB_ID") == job_id or environment.get("USER", "").startswith(user):
                found.append(f"{process.name()} ({process.pid}) on {host}")
    return found


def shared_memory(hosts: Hosts) -> list[str]:
    """What is in the shared memory of the hosts."""
    found = [
        subprocess.run([*host.enter, "ls", "-A", "/dev/shm"], capture_output=True, text=True, check=True)
        for host in (hosts.head, *hosts.nodes)
    ]
    return [name for each in found for name in each.stdout.split()]


def test_a_job_with_a_runtime_on_each_of_its_hosts(slurm: Slurm, hosts: Hosts, user: str) -> None:
    job_id = submitted(slurm, user)
    labels = labels_of(job_id)
    job = monitored(slurm, job_id, labels)
    assert (job["host"], job["nodes"]) == ("n1", COUNT)
    port = job["processes"]["prometheus"]["port"]
    asked = [
        series["metric"] for series in query(slurm.nodes["n1"].enter, port, f"clio_node_info{{{labels}}}")
    ]
    assert {each["node_id"]: each["hostname"] for each in asked} == {
        str(index): host.name for index, host in enumerate(hosts.nodes)
    }
    assert sorted(host for host, name in programs(hosts) if name == "clio_run") == ["n1", "n2", "n3"]
    mapped = {path.name: path.read_text() for path in (slurm.directory / "map").glob("*.job")}
    assert sorted(mapped) == [f"{job_id}.{host.name}.job" for host in hosts.nodes]
    for host in hosts.nodes:
        assert f"node={host.name} {host.name} {host.address}" in mapped[f"{job_id}.{host.name}.job"]

    (slurm.directory / f"go-{job_id}").touch()
    assert slurm.wait_for_end(job_id) == "COMPLETED", slurm.output(job_id)
    assert of_the_job(hosts, job_id, user) == []
    assert shared_memory(hosts) == []
    assert list(Path("/tmp").glob(f"clio_{user}*")) == []
    assert list((slurm.directory / "map").iterdir()) == []

    directory = slurm.directory / f"clio-job-{job_id}"
    assert f"job {job_id} ({NAME}): stopped" in slurm.output(job_id)
    assert (directory / "report.html").stat().st_size > 0
    rows = of_job(directory, 60).tables[0].rows
    assert [str(row[0]).split()[:2] for row in rows] == [
        [str(index), host.name] for index, host in enumerate(hosts.nodes)
    ]
    for _node, tasks, *_ in rows:
        assert tasks > 0


def test_a_job_over_hosts_that_is_cancelled(slurm: Slurm, hosts: Hosts, user: str, tmp_path: Path) -> None:
    job_id = submitted(slurm, user)
    monitored(slurm, job_id, labels_of(job_id))
    assert of_the_job(hosts, job_id, user) != []
    slurm.run("scancel", job_id)
    assert slurm.wait_for_end(job_id) == "CANCELLED"
    eventually("nothing is left", lambda: of_the_job(hosts, job_id, user) == [], 60, pause=0.2)
    assert shared_memory(hosts) == []
    assert list(Path("/tmp").glob(f"clio_{user}*")) == []
    told = run_exporter(tmp_path, "job", "report", str(slurm.directory / f"clio-job-{job_id}"))
    assert told.returncode == 0, told.stderr
    assert f"nodes: {COUNT}" in told.stdout
