"""Moments that somebody has marked: lines of a file, and a series of the job's Prometheus."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from clio_client.config.errors import ConfigError
from clio_exporter.job.processes import running
from clio_exporter.job.state import MARK_RULES, MARKS, Job
from clio_exporter.scrape_command import write_atomically
from clio_web.appending import append_line

SERIES: Final = "clio_annotation_timestamp_seconds"
MAX_TEXT: Final = 200
MAX_MARKS: Final = 1000
"""Each is a series; more are kept in the file alone."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A text at a Unix time."""

    time: float
    text: str


def add(directory: Path, mark: Mark) -> None:
    """Write a mark down at the end of the job's file.

    Raises:
        ConfigError: the text is none, or the file cannot be written.
    """
    if not mark.text.strip() or not mark.text.isprintable() or len(mark.text) > MAX_TEXT:
        raise ConfigError("TEXT", "is empty, too long or not printable", f"Give 1 to {MAX_TEXT} characters")
    path = directory / MARKS
    line = json.dumps({"time": round(mark.time, 3), "text": mark.text}, ensure_ascii=False)
    try:
        append_line(path, line, 0o644)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be written: {error.strerror}", "Give the job's --directory"
        ) from error


def read(directory: Path) -> list[Mark]:
    """The marks by time; a line that was written in part, or not by `add`, is left out."""
    marks = []
    try:
        lines = (directory / MARKS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found = json.loads(line)
            mark = Mark(float(found["time"]), str(found["text"]))
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            continue
        if math.isfinite(mark.time) and mark.text.isprintable():
            marks.append(mark)
    return sorted(marks, key=lambda mark: mark.time)


def show(directory: Path, job: Job, host: str) -> bool:
    """Have the job's Prometheus tell of the marks, by recording rules; whether one runs here to be told.

    Raises:
        OSError: the rules cannot be written.
    """
    write_atomically(directory / MARK_RULES, rules(job, read(directory)))
    process = running(job.processes["prometheus"]) if "prometheus" in job.processes else None
    if process is None or job.host != host:
        return False
    process.send_signal(signal.SIGHUP)
    return True


def rules(job: Job, marks: list[Mark]) -> str:
    """Recording rules that make each mark a series with its time as the value."""
    named = {mark.text: mark.time for mark in marks[-MAX_MARKS:]}
    made = [
        {"record": SERIES, "labels": {**job.labels, "text": text}, "expr": f"vector({at:.3f})"}
        for text, at in named.items()
    ]
    return yaml.safe_dump({"groups": [{"name": "clio-annotations", "rules": made}]}, allow_unicode=True)
