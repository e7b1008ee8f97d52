"""What is known of a job, in its directory: who it is, when it ran, and which processes are its own."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_exporter.scrape_command import write_atomically

VERSION: Final = 1
_MOST: Final = 2**53
STATE: Final = "job.json"
DATA: Final = "prometheus"
"""Prometheus's data, below the job's directory."""
MARKS: Final = "annotations.jsonl"
MARK_RULES: Final = "rules/annotations.yml"

_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of the job's: its id, when it started (Unix time), its port on loopback."""

    pid: int
    started: float
    port: int


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The command that starts a job: its id, when it began (Unix time), the mark of what it starts."""

    pid: int
    started: float
    mark: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is or was monitored.

    Attributes:
        host: on which its exporter and Prometheus run.
        labels: what every series carries: `job_id`, `user`, `job_name`.
        interval: seconds between two scrapes.
        began: Unix time from which on all served; until then, of the start's beginning.
        ended: Unix time of the stop; None while it runs, and for ever where it was killed.
        processes: by name (`exporter`, `prometheus`), while they are to run.
        starting: true until all serve; it stays true where the start was killed.
        start: who started it.
        made: whether the start made the directory.
        target: path of the exporter's target file (`--sd.file`).
    """

    host: str
    labels: Mapping[str, str]
    nodes: int
    interval: float
    began: float
    ended: float | None = None
    processes: Mapping[str, ProcessRecord] = field(default_factory=dict)
    starting: bool = False
    start: StartRecord | None = None
    made: bool = False
    target: str | None = None

    @property
    def title(self) -> str:
        """The job, for people."""
        named = f" ({self.labels['job_name']})" if "job_name" in self.labels else ""
        return f"job {self.labels.get('job_id', '?')}{named}"


def claim(directory: Path, job: Job) -> Job:
    """Make the directory a job's, which is starting; the job as it was written down.

    Raises:
        FileExistsError: it is a job's already.
        ConfigError: it cannot be written.
    """
    job = dataclasses.replace(job, starting=True, made=not directory.exists())
    path = directory / STATE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, _document(job), new=True, sync=True)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Where there are no hard links, a reader may see an empty file for a moment.
            with path.open("x", encoding="utf-8"):
                pass
            save(directory, job)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise
        raise ConfigError(
            str(directory), f"cannot be written: {error.strerror}", "Give another --directory"
        ) from error
    return job


def save(directory: Path, job: Job) -> None:
    """Write the job down. Raises OSError."""
    write_atomically(directory / STATE, _document(job), sync=True)


def _document(job: Job) -> str:
    return json.dumps({"version": VERSION, **dataclasses.asdict(job)}, indent=1) + "\n"


def _checked(job: Job) -> Job:
    """The job, if all in it is of its type; raises `ValueError`."""
    texts: list[object] = [job.host, *job.labels, *job.labels.values(), job.target or ""]
    flags: list[object] = [job.starting, job.made]
    numbers: list[object] = [job.nodes, job.interval, job.began, 0 if job.ended is None else job.ended]
    for process in job.processes.values():
        numbers += (process.pid, process.started, process.port)
    if job.start is not None:
        numbers += (job.start.pid, job.start.started)
        texts.append(job.start.mark)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name is no text")
    if not all(_is_number(number) for number in numbers):
        raise ValueError("a number is none")
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError("neither true nor false")
    return job


def _is_number(found: object) -> bool:
    """Whether it is one that a clock, a port or a process may have: JSON knows numbers beyond any float."""
    return isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < _MOST


def load(directory: Path, *, starting: bool = False) -> Job:
    """The job of a directory; with `starting`, also one of which not all serves yet.

    Raises:
        ConfigError: it is no job's directory, or one that this version cannot read.
    """
    path = directory / STATE
    remedy = "Give the directory that `clio-exporter job start` made"
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("version") != VERSION:
            raise ConfigError(str(path), "is of another version", "Use the clio-exporter that wrote it")
        document["processes"] = {n: ProcessRecord(**p) for n, p in document["processes"].items()}
        if document.get("start") is not None:
            document["start"] = StartRecord(**document["start"])
        job = _checked(Job(**document))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", remedy) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ConfigError(str(path), "is not what a job leaves", remedy) from None
    if job.starting and not starting:
        raise ConfigError(
            str(directory), "is of a job whose start has not come to its end",
            f"Wait for it; if it was killed, clear it: clio-exporter job stop --directory {directory}",
        )  # fmt: skip
    return job
