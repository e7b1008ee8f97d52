"""What is known of a job, in its directory: who it is, when it ran, and which processes are its own."""

from __future__ import annotations

import dataclasses
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


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of the job's: its id, when it started (Unix time), its port on loopback."""

    pid: int
    started: float
    port: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is or was monitored.

    Attributes:
        host: on which its exporter and Prometheus run.
        labels: what every series carries: `job_id`, `user`, `job_name`.
        interval: seconds between two scrapes.
        began: Unix time from which on all served.
        ended: Unix time of the stop; None while it runs, and for ever where it was killed.
        processes: by name (`exporter`, `prometheus`), while they are to run.
    """

    host: str
    labels: Mapping[str, str]
    nodes: int
    interval: float
    began: float
    ended: float | None = None
    processes: Mapping[str, ProcessRecord] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The job, for people."""
        named = f" ({self.labels['job_name']})" if "job_name" in self.labels else ""
        return f"job {self.labels.get('job_id', '?')}{named}"


def claim(directory: Path) -> bool:
    """Make the directory a job's; returns whether it was made too.

    Raises:
        ConfigError: it is a job's already, or cannot be written.
    """
    made = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / STATE).open("x", encoding="utf-8"):
            pass
    except FileExistsError:
        raise ConfigError(
            str(directory),
            "has the data of a job already, which may be running",
            "Give another --directory, or end that job with `clio-exporter job stop` and move its data away",
        ) from None
    except OSError as error:
        raise ConfigError(
            str(directory), f"cannot be written: {error.strerror}", "Give another --directory"
        ) from error
    return made


def save(directory: Path, job: Job) -> None:
    """Write the job down. Raises OSError."""
    document = {"version": VERSION, **dataclasses.asdict(job)}
    write_atomically(directory / STATE, json.dumps(document, indent=1) + "\n")


def _checked(job: Job) -> Job:
    """The job, if all in it is of its type; raises `ValueError`."""
    texts = [job.host, *job.labels, *job.labels.values()]
    numbers: list[object] = [job.nodes, job.interval, job.began, 0 if job.ended is None else job.ended]
    for process in job.processes.values():
        numbers += (process.pid, process.started, process.port)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name is no text")
    if not all(_is_number(number) for number in numbers):
        raise ValueError("a number is none")
    return job


def _is_number(found: object) -> bool:
    """Whether it is one that a clock, a port or a process may have: JSON knows numbers beyond any float."""
    return isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < _MOST


def load(directory: Path) -> Job:
    """The job of a directory.

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
        return _checked(Job(**document))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", remedy) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise ConfigError(str(path), "is not what a job leaves, or its start is under way", remedy) from None
