"""Start and stop of what monitors a job."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_exporter import flags
from clio_exporter.job import processes, server, state
from clio_exporter.job.nodes import find_job
from clio_exporter.job.processes import HOST, MARK, Detached, EndedEarlyError, free_port, signals_deferred
from clio_exporter.job.state import Job, StartRecord
from clio_exporter.sd_file import TargetFile
from clio_web import processes as any_processes

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
    mark = secrets.token_hex(8)
    me = StartRecord(os.getpid(), psutil.Process().create_time(), mark)
    job = Job(
        host=socket.gethostname(), labels=labels, nodes=count, interval=interval, began=time.time(),
        start=me, target=_target(arguments),
    )  # fmt: skip
    try:
        job = state.claim(directory, job)
    except FileExistsError:
        raise _taken(directory) from None
    started: list[Detached] = []

    def run(name: str, command: Sequence[str], log: Path, port: int, *, alone: bool = False) -> Detached:
        """Start a program, and write it down before anybody waits for it."""
        nonlocal job
        process = Detached(name, command, log, port, alone=alone, mark=mark)
        job = dataclasses.replace(job, processes={**job.processes, name: process.record})
        try:
            state.save(directory, job)
        except BaseException:
            process.end(EXPORTER_STOP_SECONDS)
            raise
        return process

    try:
        if hostfile is None:
            hostfile = directory / "hostfile"
            hostfile.write_text("".join(f"{node}\n" for node in nodes), encoding="utf-8")
        deadline = time.monotonic() + seconds
        exporter = _exporter(directory, hostfile, labels, arguments, deadline, run)
        started.append(exporter)
        configuration = server.write_configuration(directory, f"{HOST}:{exporter.port}", interval)
        prometheus = server.start(program, directory, configuration, deadline, run)
        started.append(prometheus)
        job = dataclasses.replace(job, began=time.time(), starting=False)
        state.save(directory, job)
    except BaseException as error:
        for process in reversed(started):
            process.end(EXPORTER_STOP_SECONDS)
        problem = _with_log(error, directory)
        _remove_target(job)
        _remove(directory, job.made)
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
    _require_host(directory, job)
    if not any(map(processes.running, job.processes.values())):
        # It was killed: when, its data tell.
        _remove_target(job)
        return job, True
    ended = time.time()
    well = True
    for name, seconds in (
        ("prometheus", server.STOP_SECONDS),
        ("exporter", EXPORTER_STOP_SECONDS),
    ):
        if name in job.processes:
            well &= processes.end(job.processes[name], seconds)
    _remove_target(job)
    job = dataclasses.replace(job, ended=ended, processes={})
    state.save(directory, job)
    return job, well


def clear(directory: Path) -> list[str] | None:
    """End and remove what an interrupted start has left; what was done, None where none was interrupted.

    Raises:
        ConfigError: there is no job, its start is under way, or it was on another host.
    """
    job = state.load(directory, starting=True)
    if not job.starting:
        return None
    _require_host(directory, job)
    if (starter := _starter(job)) is not None:
        raise ConfigError(
            str(directory), f"is being started by process {starter.pid}",
            "Stop it when all serves, or end that process",
        )  # fmt: skip
    done = []
    left = {p: name for name, r in job.processes.items() if (p := processes.running(r)) is not None}
    if job.start is not None:
        # Of one that was started but not written down any more, its environment tells.
        marked = any_processes.with_environment(MARK, job.start.mark)
        left |= {process: "a program of its" for process in marked if process not in left}
    for process, name in sorted(left.items(), key=lambda found: found[1] != "prometheus"):
        any_processes.end(process, server.STOP_SECONDS)
        done.append(f"ended {name} (pid {process.pid})")
    if _remove_target(job):
        done.append(f"removed {job.target}")
    _remove(directory, job.made)
    done.append(f"removed what was in {directory}")
    return done


def _starter(job: Job) -> psutil.Process | None:
    """The command that starts the job, while it runs on this host."""
    if not job.starting or job.start is None or job.host != socket.gethostname():
        return None
    return any_processes.find(job.start.pid, job.start.started)


def _require_host(directory: Path, job: Job) -> None:
    if job.host != socket.gethostname():
        raise ConfigError(
            str(directory), f"is of a job that was started on {job.host}", "Stop it on that host"
        )


def _taken(directory: Path) -> ConfigError:
    """Why a directory cannot be claimed."""
    with contextlib.suppress(ConfigError):
        job = state.load(directory, starting=True)
        if (starter := _starter(job)) is not None:
            problem = f"is of a job that process {starter.pid} is starting"
            return ConfigError(str(directory), problem, "Give another --directory")
        if job.starting and job.host == socket.gethostname():
            remedy = f"Clear it: clio-exporter job stop --directory {directory}"
            return ConfigError(str(directory), "has what a start that was interrupted left", remedy)
    return ConfigError(
        str(directory),
        "has the data of a job already, which may be running",
        "Give another --directory, or end that job with `clio-exporter job stop` and move its data away",
    )


def _target(arguments: Sequence[str]) -> str | None:
    """The target file that the exporter will have by these arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    table.add_arguments(parser, flags.SD)
    try:
        given, _ = parser.parse_known_args(list(arguments))
        path = table.resolved(flags.SD, vars(given))["file"]
    except (argparse.ArgumentError, ConfigError, SystemExit):
        return None  # the exporter will say what is wrong with them
    return None if path is None else str(path.absolute())


def _remove_target(job: Job) -> bool:
    """Remove the target file of an exporter that was killed; whether there was one."""
    if job.target is None:
        return False
    record = job.processes.get("exporter")
    left = TargetFile(Path(job.target), 0.0)
    return left.remove_left(job.host, None if record is None else record.pid)


def _exporter(
    directory: Path,
    hostfile: Path,
    labels: Mapping[str, str],
    arguments: Sequence[str],
    deadline: float,
    run: server.Run,
) -> Detached:
    log = directory / "exporter.log"
    for left in reversed(range(server.TRIES)):
        port = free_port()
        command = [
            sys.executable, "-m", "clio_exporter", "--hostfile", str(hostfile.absolute()),
            f"--web.listen-address={HOST}:{port}",
            *(f"--label={name}={value}" for name, value in labels.items()), *arguments,
        ]  # fmt: skip
        exporter = None
        try:
            with signals_deferred():
                exporter = run("exporter", command, log, port)
            exporter.wait_ready(deadline)
        except EndedEarlyError as error:
            if left == 0 or "in use" not in str(error):
                raise ConfigError("exporter", str(error), "Mend that, and start again") from None
        except BaseException:
            if exporter is not None:
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
    """Remove what a start has written, last what says so; and the directory, if that has made it."""
    for name in (state.DATA, "rules"):
        shutil.rmtree(directory / name, ignore_errors=True)
    names = ("hostfile", "prometheus.yml", "prometheus.log", "exporter.log")
    for path in (
        *(directory / name for name in names), *directory.glob(f".{state.STATE}.*"), directory / state.STATE,
    ):  # fmt: skip
        path.unlink(missing_ok=True)
    if made:
        with contextlib.suppress(OSError):  # somebody has put something there
            directory.rmdir()
