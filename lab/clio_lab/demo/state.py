"""What a cluster or a demo has outside its own memory, on disk, so that a later run can clean up.

A pid alone proves nothing: it is reused. A process is ours only when pid and start time both match
what was written down when we started it, or when its environment carries our mark: a process that
was started just before we were killed may not have been written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from clio_lab.demo import addresses as loopback
from clio_lab.demo import containers as engine
from clio_web import processes

MARK = "CLIO_DEMO_STATE"
"""Environment variable that every process we start has: the path of the record it belongs to."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process that we started. `created` is when, in seconds since the epoch."""

    pid: int
    created: float
    role: str

    @classmethod
    def of(cls, process: psutil.Process, role: str) -> ProcessRecord:
        """Describe a running process; raises psutil.NoSuchProcess when there is none."""
        return cls(process.pid, process.create_time(), role)

    def process(self) -> psutil.Process | None:
        """Return exactly this process; None when it does not run any more (a zombie does not)."""
        return processes.find(self.pid, self.created)


@dataclass
class State:
    """The record itself. Each change is on disk before the next step. Safe for several threads."""

    path: Path
    owner: ProcessRecord | None = None
    processes: list[ProcessRecord] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the record at `path`; an absent or damaged one is empty (there is nothing to prove)."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            owner = ProcessRecord(**raw["owner"]) if raw["owner"] else None
            known = [ProcessRecord(**entry) for entry in raw["processes"]]
            lists = (list(raw.get(name, [])) for name in ("addresses", "directories", "containers"))
            return cls(path, owner, known, *lists)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    @property
    def mark(self) -> dict[str, str]:
        """Environment by which a process is known as ours even where it is not written down."""
        return {MARK: str(self.path.absolute())}

    def set_owner(self, role: str) -> None:
        """Write down that this process keeps the record."""
        with self._lock:
            self.owner = ProcessRecord.of(psutil.Process(), role)
            self._save()

    def add_process(self, pid: int, role: str) -> None:
        """Write down a process just started. One that has ended already is left out."""
        with self._lock, contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if processes.is_alive(process):
                self.processes.append(ProcessRecord.of(process, role))
                self._save()

    def remove_process(self, pid: int) -> None:
        """Forget a process that was reaped."""
        with self._lock:
            self.processes = [record for record in self.processes if record.pid != pid]
            self._save()

    def remember(
        self,
        *,
        addresses: Iterable[str] = (),
        directories: Iterable[str] = (),
        containers: Iterable[str] = (),
    ) -> None:
        """Write down what is about to be made: after a crash in between, removing too much is harmless."""
        with self._lock:
            self.addresses += addresses
            self.directories += directories
            self.containers += containers
            self._save()

    def forget(self, *, addresses: Iterable[str] = (), directories: Iterable[str] = ()) -> None:
        """Strike out what was removed."""
        gone, gone_directories = set(addresses), set(directories)
        with self._lock:
            self.addresses = [address for address in self.addresses if address not in gone]
            self.directories = [path for path in self.directories if path not in gone_directories]
            self._save()

    def remove_directory(self, path: Path) -> None:
        """Remove a directory that is written down, and strike it out; no effect on any other."""
        if str(path) in self.directories:
            shutil.rmtree(path, ignore_errors=True)
            self.forget(directories=[str(path)])

    def remove_container(self, name: str) -> None:
        """End and remove a container that is written down, and strike it out; no effect on any other."""
        if name in self.containers:
            engine.remove([name])
            with self._lock:
                self.containers = [each for each in self.containers if each != name]
                self._save()

    def clean(self, timeout: float = 5.0) -> list[str]:
        """End and remove all that is written down and still there; return what was done, for people.

        Only processes that are provably the recorded ones are touched. Raises OSError when the
        system refuses (for example addresses added by root).
        """
        with self._lock:
            done = []
            found = [(record.process(), record.role) for record in self.processes]
            known = {os.getpid(), *(process.pid for process, _ in found if process is not None)}
            marked = processes.with_environment(MARK, self.mark[MARK])
            found += [(process, "process") for process in marked if process.pid not in known]
            for process, role in found:
                if process is not None:
                    processes.kill(process, timeout)
                    done.append(f"ended {role} (pid {process.pid}) of an earlier run")
            removed = engine.remove(self.containers)
            done += [f"removed the container {name} of an earlier run" for name in removed]
            if self.addresses:
                loopback.remove(self.addresses)
            for directory in self.directories:
                shutil.rmtree(directory, ignore_errors=True)
            self.owner, self.processes = None, []
            self.addresses, self.directories, self.containers = [], [], []
            self.path.unlink(missing_ok=True)
            return done

    def _save(self) -> None:
        """Write the record, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = {
            "owner": None if self.owner is None else asdict(self.owner),
            "processes": [asdict(record) for record in self.processes],
            "addresses": self.addresses,
            "directories": self.directories,
            "containers": self.containers,
        }
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(raw, indent=1), encoding="utf-8")
        temporary.replace(self.path)
