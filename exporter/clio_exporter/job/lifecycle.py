"""Start and stop of what monitors a job."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clio_client.config.errors import ConfigError
from clio_exporter.job import processes, server, state
from clio_exporter.job.nodes import find_job
from clio_exporter.job.processes import HOST, Detached, EndedEarlyError, free_port
from clio_exporter.job.state import Job

EXPORTER_STOP_SECONDS: Final = 10.0


def identity(env: Mapping[str, str], user: str, job_id: str | None, name: str | None) -> dict[str, str]:
    """Labels of the job: what is given, else what Slurm or Flux says; absent what nobody says."""
    found = {
        "job_id": job_id or find_job(env),
        "user": env.get("SLURM_JOB_USER") or user,
        "job_name": name or env.get("SLURM_JOB_NAME"),
    }
    return {label: value for label, value in found.items() if value}


def start(
    directory: Path,
    labels: Mapping[str, str],
    hostfile: Path | None,
    nodes: Sequence[str],
    interval: float,
    seconds: float,
    arguments: Sequence[str] = (),
) -> Job:
    """Start exporter and Prometheus; both serve when it returns, and go on when we end.

    `hostfile` is the nodes', or None: then one is written with `nodes`. `arguments` go to the exporter.

    Raises:
        ConfigError: that cannot be done within `seconds`; nothing is left of it.
    """
    program = server.find_program()
    count = len(nodes) if hostfile is None else _lines(hostfile)
    made = state.claim(directory)
    started: list[Detached] = []
    try:
        if hostfile is None:
            hostfile = directory / "hostfile"
            hostfile.write_text("".join(f"{node}\n" for node in nodes), encoding="utf-8")
        deadline = time.monotonic() + seconds
        exporter = _exporter(directory, hostfile, labels, arguments, deadline)
        started.append(exporter)
        configuration = server.write_configuration(directory, f"{HOST}:{exporter.port}", interval)
        prometheus = server.start(program, directory, configuration, deadline)
        started.append(prometheus)
        job = Job(
            host=socket.gethostname(), labels=labels, nodes=count, interval=interval, began=time.time(),
            processes={process.name: process.record for process in started},
        )  # fmt: skip
        state.save(directory, job)
    except BaseException as error:
        for process in reversed(started):
            process.end(EXPORTER_STOP_SECONDS)
        problem = _with_log(error, directory)
        _remove(directory, made)
        if isinstance(problem, OSError):
            raise ConfigError(
                str(directory), f"cannot be written: {problem.strerror}", "Give another --directory"
            ) from error
        raise problem from None
    return job


def stop(directory: Path) -> tuple[Job, bool]:
    """End the job's own processes and note the end; the job, and whether all ended by themselves.

    Takes at most 50 seconds. A second time it does nothing.

    Raises:
        ConfigError: there is no job, or it runs on another host.
    """
    job = state.load(directory)
    if job.ended is not None:
        return job, True
    if job.host != socket.gethostname():
        raise ConfigError(
            str(directory), f"is of a job that was started on {job.host}", "Stop it on that host"
        )
    if not any(map(processes.running, job.processes.values())):
        # It was killed: when, its data tell.
        return job, True
    ended = time.time()
    well = True
    for name, seconds in (
        ("prometheus", server.STOP_SECONDS),
        ("exporter", EXPORTER_STOP_SECONDS),
    ):
        if name in job.processes:
            well &= processes.end(job.processes[name], seconds)
    job = dataclasses.replace(job, ended=ended, processes={})
    state.save(directory, job)
    return job, well


def _exporter(
    directory: Path, hostfile: Path, labels: Mapping[str, str], arguments: Sequence[str], deadline: float
) -> Detached:
    log = directory / "exporter.log"
    for left in reversed(range(server.TRIES)):
        port = free_port()
        command = [
            sys.executable, "-m", "clio_exporter", "--hostfile", str(hostfile.absolute()),
            f"--web.listen-address={HOST}:{port}",
            *(f"--label={name}={value}" for name, value in labels.items()), *arguments,
        ]  # fmt: skip
        exporter = Detached("exporter", command, log, port)
        try:
            exporter.wait_ready(deadline)
        except EndedEarlyError as error:
            if left == 0 or "in use" not in str(error):
                raise ConfigError("exporter", str(error), "Mend that, and start again") from None
        except BaseException:
            exporter.end(EXPORTER_STOP_SECONDS)
            raise
        else:
            return exporter
    raise AssertionError("unreachable")


def _lines(hostfile: Path) -> int:
    """How many nodes a hostfile names, roughly: for people. Raises `ConfigError`."""
    try:
        lines = hostfile.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(
            f"--hostfile {hostfile}", f"cannot be read: {error.strerror}", "Give the runtime's hostfile"
        ) from error
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def _with_log(error: BaseException, directory: Path) -> BaseException:
    """The error without a log that is removed with the directory: with its last lines instead."""
    if not isinstance(error, ConfigError) or "does not serve in time" not in error.problem:
        return error
    said = processes.last_lines(directory / f"{error.path}.log")
    return ConfigError(error.path, f"does not serve in time; it said: {said}", error.remedy)


def _remove(directory: Path, made: bool) -> None:
    """Remove what a start has written."""
    if made:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for name in (state.DATA, "rules"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (state.STATE, "hostfile", "prometheus.yml", "prometheus.log", "exporter.log"):
        (directory / name).unlink(missing_ok=True)
