"""Grafana with our dashboards on the data of opened jobs, where one is installed."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from clio_client.config.errors import ConfigError
from clio_exporter.job.processes import HOST, Detached, EndedEarlyError, free_port, last_lines
from clio_exporter.kit import grafana as kit
from clio_web.grafana_server import configuration, find_program

STOP_SECONDS: Final = 20.0

_MADE: Final = "Made by `clio-exporter job open`."
_DATASOURCES: Final = "provisioning/datasources/clio.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """An opened job: its title, its Prometheus, seconds between two scrapes, and its time (Unix)."""

    title: str
    url: str
    interval: float
    begin: float
    end: float


class NoGrafanaError(Exception):
    """Grafana cannot be had; the message says why."""


@contextlib.contextmanager
def opened(sources: Sequence[Source], seconds: float) -> Iterator[Detached]:
    """Grafana on loopback with a data source a job; what it wrote goes at the end.

    Raises:
        NoGrafanaError: none is installed, or it does not serve within `seconds`.
    """
    program = find_program()
    if program is None:
        raise NoGrafanaError("no grafana or grafana-server is on PATH")
    with tempfile.TemporaryDirectory(prefix="clio-job-grafana-") as made:
        directory = Path(made)
        for name, text in files(str(directory), sources).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for name in ("data/plugins", "provisioning/plugins", "provisioning/alerting"):
            (directory / name).mkdir(parents=True)
        port = free_port()
        settings = directory / "grafana.ini"
        settings.write_text(
            configuration(_MADE, str(directory), str(directory / "data"), port), encoding="utf-8"
        )
        home = [f"--homepath={program.home}"] if program.home is not None else []
        log = directory / "grafana.log"
        command = [*program.command, *home, f"--config={settings}"]
        # Settings in the environment would overrule those of the file.
        env = {name: value for name, value in os.environ.items() if not name.startswith("GF_")}
        server = Detached("grafana", command, log, port, ready="/api/health", env=env)
        try:
            _wait_ready(server, seconds)
            yield server
        finally:
            server.end(STOP_SECONDS)


def _wait_ready(server: Detached, seconds: float) -> None:
    try:
        server.wait_ready(time.monotonic() + seconds)
    except EndedEarlyError as error:
        raise NoGrafanaError(str(error)) from None
    except ConfigError:
        raise NoGrafanaError(f"it does not serve in time: {last_lines(server.log)}") from None


def files(directory: str, sources: Sequence[Source]) -> dict[str, str]:
    """Dashboards and provisioning for these jobs by path; the first job is what is shown first."""
    options = kit.GrafanaOptions(directory, prometheus_url=sources[0].url)
    made = kit.render(options)
    document = yaml.safe_load(made[_DATASOURCES])
    (prometheus,) = document["datasources"]
    document["datasources"] = [_datasource(prometheus, *each) for each in enumerate(sources)]
    return {**made, _DATASOURCES: yaml.safe_dump(document, sort_keys=False)}


def uid(number: int) -> str:
    """The data source of the job of this number, from 0."""
    return f"clio-job-{number + 1}"


def link(port: int, number: int, source: Source) -> str:
    """Our first dashboard at the time of a job, with its data."""
    # A little more than the job, so that its ends can be seen.
    chosen = {
        "from": f"{1000 * (source.begin - 5):.0f}",
        "to": f"{1000 * (source.end + 5):.0f}",
        "var-datasource": uid(number),
    }
    return f"http://{HOST}:{port}/d/{kit.HOME}?{urllib.parse.urlencode(chosen)}"


def _datasource(like: Mapping[str, Any], number: int, source: Source) -> dict[str, Any]:
    every = f"{max(1, round(source.interval))}s"
    return {
        **like,
        # Two jobs may have one title.
        "name": f"{number + 1}: {source.title}".replace("$", "$$"),
        "uid": uid(number),
        "url": source.url,
        "isDefault": number == 0,
        "jsonData": {**like["jsonData"], "timeInterval": every},
    }
