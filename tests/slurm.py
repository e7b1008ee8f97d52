"""A Slurm of the test's own: munged, slurmctld and several slurmd, on this host or on hosts made for it.

    with Slurm(directory, 2, {}) as slurm:
        job_id = slurm.sbatch(script)
        slurm.run("scancel", job_id)
        slurm.wait_for_end(job_id)

Its key, sockets, ports, state and configuration are its own; the machine's Slurm, if there is one, is not
touched. Tests that use it are marked `needs_system(*COMMANDS)`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from clio_lab.child import ChildProcess
from clio_lab.demo.state import State
from clio_web import processes
from tests.exporter_process import eventually
from tests.ports import free_port
from tests.system import find_command

COMMANDS: Final = ("munged", "slurmctld", "slurmd", "sbatch")

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


class NoSlurmError(Exception):
    """Slurm does not run on this machine; the message says what it said."""


@dataclass(frozen=True)
class Host:
    """Where daemons run.

    Attributes:
        name: its hostname, up to the first dot.
        address: under which the others reach it.
        enter: what a command line begins with that is to run there; empty for this host.
    """

    name: str
    address: str
    enter: tuple[str, ...] = ()


def this_host() -> Host:
    """This host, by loopback."""
    return Host(socket.gethostname().partition(".")[0], "127.0.0.1")


class Slurm:
    """A cluster of the nodes n1, n2 and so on, idle when constructed. `more` are lines of slurm.conf.

    All runs as the user who runs the tests. A number of nodes is so many on this host; else there is one on
    each of these hosts, and the controller on `head`, where Slurm's programs are called too.
    """

    def __init__(
        self, directory: Path, nodes: int | Sequence[Host], more: Mapping[str, str], head: Host | None = None
    ) -> None:
        self.directory = directory
        self.head = this_host() if head is None else head
        hosts = [self.head] * nodes if isinstance(nodes, int) else nodes
        self.nodes = {f"n{number}": host for number, host in enumerate(hosts, 1)}
        self.config = directory / "slurm.conf"
        self._daemons: list[ChildProcess] = []
        # A socket's path has at most 107 characters; those of pytest's directories may have more.
        self._short = Path(tempfile.mkdtemp(prefix="clio-munge-"))
        self._state = State(directory / "state.json")
        self._state.remember(directories=[str(self._short)])
        try:
            self._write(more)
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Slurm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's programs see: this cluster, and no job that the tests may run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return {**kept, "SLURM_CONF": str(self.config)}

    def run(self, command: str, *arguments: str) -> str:
        """Run one of Slurm's programs; its output. AssertionError when it fails."""
        done = self._run(command, *arguments)
        assert done.returncode == 0, f"{command} {arguments}: {done.stdout}{done.stderr}\n{self.said()}"
        return done.stdout.strip()

    def sbatch(self, script: Path, *options: str) -> str:
        """Submit a script that runs in the directory of the cluster; the job's id."""
        output = self.directory / "job-%j.out"
        return self.run(
            "sbatch", "--parsable", f"--chdir={self.directory}", f"--output={output}", *options, str(script)
        )

    def output(self, job_id: str) -> str:
        """What a job has printed so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / f"job-{job_id}.out").read_text(encoding="utf-8", errors="replace")
        return ""

    def state(self, job_id: str) -> str:
        """A job's state, such as RUNNING."""
        fields = self.run("scontrol", "--oneliner", "show", "job", job_id).split()
        return next(field.partition("=")[2] for field in fields if field.startswith("JobState="))

    def wait_for_end(self, job_id: str, seconds: float = 90.0) -> str:
        """Wait until a job and its epilogs are over; its last state."""

        def over() -> bool:
            return self.state(job_id) not in ("PENDING", "RUNNING", "COMPLETING")

        eventually(f"the end of job {job_id}", over, seconds, pause=0.2)
        return self.state(job_id)

    def said(self) -> str:
        """The last lines of the logs."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}: {_last_lines(log)}" for log in logs)

    def close(self) -> None:
        """Cancel all jobs, end the daemons and what jobs have left, by what they were started with."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired, AssertionError):
            if len(self._daemons) > 1 and self._run("squeue", "--noheader").stdout.strip():
                self._run("scancel", "--user", _user())
                eventually("no jobs", lambda: not self._run("squeue", "--noheader").stdout.strip(), 30)
        for daemon in reversed(self._daemons):
            daemon.end(_STOP_SECONDS)
        for process in processes.with_environment("SLURM_CONF", str(self.config)):
            processes.kill(process)
        self._state.remove_directory(self._short)

    def _run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.head.enter, command, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _write(self, more: Mapping[str, str]) -> None:
        user = _user()
        first = free_port(1 + len(self.nodes))
        for name in ("state", "spool"):
            (self.directory / name).mkdir(parents=True)
        lines = {
            "ClusterName": "cliotest",
            # Epilogs find a job's processes by its id, and there may be another Slurm on this machine.
            "FirstJobId": str(1 + secrets.randbelow(10_000_000)),
            "SlurmctldHost": f"{self.head.name}({self.head.address})",
            "SlurmctldPort": str(first),
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._socket}",
            # As many processors as the jobs ask for, without cgroups and without systemd.
            "SlurmdParameters": "config_overrides",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "SchedulerType": "sched/builtin",
            "ReturnToService": "2",
            "MailProg": "/bin/true",
            "StateSaveLocation": str(self.directory / "state"),
            "SlurmdSpoolDir": str(self.directory / "spool" / "%n"),
            "SlurmctldPidFile": str(self.directory / "slurmctld.pid"),
            "SlurmdPidFile": str(self.directory / "%n.pid"),
            "SlurmctldLogFile": str(self.directory / "slurmctld.log"),
            "SlurmdLogFile": str(self.directory / "%n.log"),
            **more,
        }
        nodes = [
            f"NodeName={name} NodeHostname={host.name} NodeAddr={host.address} Port={first + number} CPUs=8"
            for number, (name, host) in enumerate(self.nodes.items(), 1)
        ]
        partition = "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
        text = "\n".join([*(f"{name}={value}" for name, value in lines.items()), *nodes, partition])
        self.config.write_text(text + "\n", encoding="utf-8")

    @property
    def _socket(self) -> Path:
        return self._short / "socket"

    def _start(self) -> None:
        key = self.directory / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        # --force: our directories are in /tmp, which it would not trust.
        munged = [
            "--foreground", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={self._socket}",
            f"--pid-file={self._short / 'pid'}", f"--seed-file={self._short / 'seed'}",
        ]  # fmt: skip
        daemon = self._daemon("munged", munged, self.head)
        try:
            eventually("munged's socket", self._socket.exists, _START_SECONDS)
        except AssertionError as error:
            raise NoSlurmError(f"{error}; {daemon.log_tail()}") from None
        self._daemon("slurmctld", ["-D", "-f", str(self.config)], self.head)
        for node, host in self.nodes.items():
            (self.directory / "spool" / node).mkdir()
            self._daemon("slurmd", ["-D", "-N", node, "-f", str(self.config)], host)
        try:
            eventually("idle nodes", self._idle, _START_SECONDS, pause=0.2)
        except AssertionError as error:
            raise NoSlurmError(f"{error}; {self.said()}") from None

    def _daemon(self, program: str, arguments: list[str], host: Host) -> ChildProcess:
        found = find_command(program)
        assert found is not None
        child = ChildProcess(
            program,
            [*host.enter, found, *arguments],
            log_path=self.directory / f"{len(self._daemons)}-{program}.log",
            environment=self.environment,
            directory=self.directory,
        )
        self._daemons.append(child)
        return child

    def _idle(self) -> bool:
        for daemon in self._daemons:
            if not daemon.is_running:
                raise NoSlurmError(f"{daemon.name} {daemon.how_it_ended()}: {daemon.log_tail()}")
        states = self._run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()
        return states == ["idle"] * len(self.nodes)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(line[:200] for line in lines[-5:])
