"""What a cluster or a demo has outside its own memory, on disk, so that a later run can clean up.

A pid alone proves nothing: it is reused. A process is ours only when pid, start time and boot
all match what was written down when we started it, or when its environment carries our mark: a
process that was started just before we were killed may not have been written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path

from exporter.demo import addresses as loopback

MARK = "CLIO_DEMO_STATE"
"""Environment variable that every process we start has: the path of the record it belongs to."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process that we started. `start_ticks` is field 22 of /proc/PID/stat (clock ticks since boot)."""

    pid: int
    start_ticks: int
    boot_id: str
    role: str

    @classmethod
    def of(cls, pid: int, role: str) -> ProcessRecord:
        """Describe the running process `pid`; raises ProcessLookupError when there is none."""
        ticks = start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, ticks, boot_id(), role)

    def is_alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


@dataclass
class State:
    """The record itself; `save` after each change, before the next step."""

    path: Path
    owner: ProcessRecord | None = None
    processes: list[ProcessRecord] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the record at `path`; an absent or damaged one is empty (there is nothing to prove)."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            owner = ProcessRecord(**raw["owner"]) if raw["owner"] else None
            processes = [ProcessRecord(**entry) for entry in raw["processes"]]
            return cls(path, owner, processes, list(raw["addresses"]), list(raw["directories"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def save(self) -> None:
        """Write the record, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = asdict(self)
        del raw["path"]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(raw, indent=1), encoding="utf-8")
        temporary.replace(self.path)

    @property
    def mark(self) -> dict[str, str]:
        """Environment by which a process is known as ours even where it is not written down."""
        return {MARK: str(self.path.absolute())}

    def add_process(self, pid: int, role: str) -> None:
        """Write down a process just started. One that has ended already is left out."""
        with contextlib.suppress(ProcessLookupError):
            self.processes.append(ProcessRecord.of(pid, role))
            self.save()

    def remove_process(self, pid: int) -> None:
        """Forget a process that was reaped."""
        self.processes = [record for record in self.processes if record.pid != pid]
        self.save()

    def clean(self, timeout: float = 5.0) -> list[str]:
        """End and remove all that is written down and still there; return what was done, for people.

        Only processes that are provably the recorded ones are touched. Raises OSError when the
        system refuses (for example addresses added by root).
        """
        done = []
        for record in [*self.processes, *self._unrecorded()]:
            if record.is_alive():
                kill_record(record, timeout)
                done.append(f"ended {record.role} (pid {record.pid}) of an earlier run")
        if self.addresses:
            loopback.remove(self.addresses)
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)
        self.owner, self.processes, self.addresses, self.directories = None, [], [], []
        self.path.unlink(missing_ok=True)
        return done

    def _unrecorded(self) -> list[ProcessRecord]:
        """Running processes with our mark that are not written down."""
        wanted = f"{MARK}={self.mark[MARK]}".encode()
        known = {os.getpid(), *(record.pid for record in self.processes)}
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in known:
                continue
            # Gone meanwhile, or somebody else's: not ours in either case.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(ProcessRecord.of(int(entry.name), "process"))
        return found


def kill_record(record: ProcessRecord, timeout: float) -> None:
    """SIGKILL the recorded process, if it is that one, and wait up to `timeout` seconds for its end."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor pins the process: check after opening it, then no reuse of the pid can matter.
        if record.is_alive():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            waiter = select.poll()
            waiter.register(descriptor, select.POLLIN)
            waiter.poll(timeout * 1000)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def start_ticks(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks since boot; None when it does not run (or is a zombie)."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third (state) on, None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def boot_id() -> str:
    """Return the kernel's id of this boot; start times are comparable only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
