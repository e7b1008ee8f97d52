"""Reports of a job's directory, and of any Prometheus."""

from __future__ import annotations

import time
from pathlib import Path

from clio_client.config.errors import ConfigError
from clio_exporter.job import marks, server, state
from clio_exporter.report import source
from clio_exporter.report.build import build
from clio_exporter.report.model import Report
from clio_exporter.report.questions import Range


def of_job(directory: Path, seconds: float) -> Report:
    """The report of a job: by its own Prometheus while it runs, else by one that has `seconds` to start.

    Raises:
        ConfigError: there is no job, or its data cannot be asked.
    """
    job = state.load(directory)
    with server.asked(directory, job, seconds) as url:
        if server.running_prometheus(job) is not None:
            end: float | None = time.time()
        else:
            # Of one that was killed, the data tell.
            end = job.ended or source.newest(url)
        if end is None:
            raise ConfigError(str(directory), "has no samples", "Look into its logs for the reason")
        asked = Range(job.began, max(end, job.began + 1), job.interval)
        answers = source.ask(url, asked)
    who = f" of {job.labels['user']}" if "user" in job.labels else ""
    marked = [(mark.time, mark.text) for mark in marks.read(directory)]
    return build(f"{job.title}{who}", asked, answers, rules=True, marks=marked)


def of_prometheus(url: str, asked: Range) -> Report:
    """The report of a time range of any Prometheus. Raises `ConfigError`."""
    answers = source.ask(url, asked)
    return build(f"CLIO at {url}", asked, answers, rules=source.rules_loaded(url))
