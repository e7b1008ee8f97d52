"""Whose job runs on which node: small files that a scheduler's prolog writes and its epilog removes.

A file has a line `KEY=VALUE` each of `job_id`, `user`, `node` (one or more names or addresses of the node,
with blanks between) and, where it is known, `job_name`; other keys are left for later versions. Its name ends
in `.job`. Files are read again when they change.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clio_web.logs import get_logger
from clio_web.state_log import StateLog

SUFFIX: Final = ".job"
MAX_FILES: Final = 16_384
"""More are not read: some four for each node of the largest clusters."""
MAX_BYTES: Final = 4096
"""Of a file."""
MAX_VALUE: Final = 256
READ_SECONDS: Final = 0.25
"""How long a scrape waits for the directory, which may be on a file system that hangs."""

_KEYS: Final = ("job_id", "user", "job_name")
_log = get_logger(__name__)


class JobFileError(Exception):
    """A file is not what a prolog writes; the message says why."""


@dataclass(frozen=True, slots=True)
class NodeJob:
    """A job on a node.

    Attributes:
        nodes: what the node may be called, in lower case.
        labels: `job_id`, `user` and, where it is known, `job_name`.
    """

    nodes: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class JobList:
    """What the directory says; `complete` unless it, or a file in it, could not be read."""

    jobs: tuple[NodeJob, ...] = ()
    complete: bool = True


def parse(text: str) -> NodeJob:
    """The job of a file's text. Raises `JobFileError`."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise JobFileError(f"line {number} is not KEY=VALUE")
        if key in found:
            raise JobFileError(f"line {number} gives {key[:40]!r} again")
        found[key] = value.strip()
    for key in (*_KEYS, "node"):
        value = found.get(key, "")
        if not value and key != "job_name":
            raise JobFileError(f"there is no {key}")
        if not value.isprintable() or (key != "node" and len(value) > MAX_VALUE):
            raise JobFileError(f"{key} is not printable, or longer than {MAX_VALUE} characters")
    labels = tuple((key, found[key]) for key in _KEYS if found.get(key))
    return NodeJob(tuple(found["node"].lower().split()), labels)


class JobsOfNodes:
    """The jobs of a list, by what a node is called."""

    def __init__(self, jobs: Iterable[NodeJob]) -> None:
        self._full: dict[str, dict[NodeJob, None]] = {}
        self._short: dict[str, dict[NodeJob, None]] = {}
        for job in jobs:
            for name in job.nodes:
                self._full.setdefault(name, {})[job] = None
                if "." in name and not _is_address(name):
                    self._short.setdefault(name.partition(".")[0], {})[job] = None

    def of(self, *names: str) -> list[NodeJob]:
        """The jobs of a node with these names and addresses; one without a domain fits any domain's."""
        found: dict[NodeJob, None] = {}
        for name in {name.lower(): None for name in names}:
            found |= self._full.get(name, {})
            if _is_address(name):
                continue
            if "." in name:
                found |= self._full.get(name.partition(".")[0], {})
            else:
                found |= self._short.get(name, {})
        return list(found)


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()


class JobMap:
    """The directory, read in a thread of its own. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._found = JobList(complete=False)
        self._files: dict[str, tuple[tuple[int, int, int], NodeJob | None]] = {}
        self._states = StateLog(_log)

    def begin(self) -> None:
        """Have the directory read, unless that is under way."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._refresh, name="clio-job-map", daemon=True)
                self._thread.start()

    def result(self, seconds: float = READ_SECONDS) -> JobList:
        """What was read since `begin`; nothing, and not complete, when it is not over in time."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        late = thread is None or thread.is_alive()
        self._states.report("late", not late, "the directory of jobs is slow", directory=str(self._directory))
        return JobList(complete=False) if late else self._found

    def read(self) -> JobList:
        """The jobs of all files; those that cannot be used are named in the log, once."""
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        except OSError as error:
            self._state("", error.strerror or str(error))
            return JobList(complete=False)
        self._state("", f"more than {MAX_FILES} files" if len(names) > MAX_FILES else None)
        complete = len(names) <= MAX_FILES
        names = names[:MAX_FILES]
        for gone in self._files.keys() - set(names):
            del self._files[gone]
            self._states.forget(gone)
        jobs = []
        for name in names:
            try:
                job = self._file(name)
            except FileNotFoundError:  # its job has just ended
                continue
            except OSError as error:
                self._state(name, error.strerror or str(error))
                job = None
            complete &= job is not None
            if job is not None:
                jobs.append(job)
        return JobList(tuple(jobs), complete)

    def _refresh(self) -> None:
        self._found = self.read()

    def _file(self, name: str) -> NodeJob | None:
        """The job of a file, None of one that cannot be used. Raises OSError."""
        path = self._directory / name
        about = path.stat()
        version = (about.st_mtime_ns, about.st_size, about.st_ino)
        known = self._files.get(name)
        if known is not None and known[0] == version:
            return known[1]
        try:
            # Who may write here must not make us wait for a pipe.
            if not stat.S_ISREG(about.st_mode):
                raise JobFileError("is no file")
            with path.open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise JobFileError(f"is larger than {MAX_BYTES} bytes")
            job: NodeJob | None = parse(raw.decode("utf-8"))
            problem = None
        except (JobFileError, UnicodeDecodeError) as error:
            job, problem = None, str(error)
        self._files[name] = (version, job)
        self._state(name, problem)
        return job

    def _state(self, name: str, problem: str | None) -> None:
        fields: Mapping[str, Any] = {"file": str(self._directory / name), "problem": problem}
        self._states.report(name, problem is None, "jobs are not shown", **fields)
