"""A real Prometheus server as a child process.

    config = {"scrape_configs": [{"job_name": "clio", "static_configs": [{"targets": [exporter.address]}]}]}
    with Prometheus(tmp_path, config) as prometheus:
        prometheus.wait_for('up{job="clio"} == 1')

Tests that use it are marked `needs_system("prometheus")`.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.exporter_process import eventually, free_port
from tests.server_process import ServerProcess
from tests.system import find_command

SCRAPE_INTERVAL = "1s"


@dataclass(frozen=True)
class Sample:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float
    time: float


class QueryError(AssertionError):
    """Prometheus refused a query."""


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool; the caller looks at the exit status."""
    program = find_command("promtool")
    assert program is not None
    return subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


def backfill(directory: Path, history: Path) -> None:
    """Give a `Prometheus` that is not yet started in this directory a history: OpenMetrics with times."""
    data = directory / "prometheus" / "data"
    data.mkdir(parents=True)
    made = promtool("tsdb", "create-blocks-from", "openmetrics", str(history), str(data))
    assert made.returncode == 0, made.stdout + made.stderr


class Prometheus(ServerProcess):
    """Prometheus with this configuration on a free port of 127.0.0.1, ready when constructed.

    `config` is the document of prometheus.yml; scrape and evaluation intervals are one second unless it
    says otherwise. `flags` are added to the command line. All waits end with AssertionError.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], *flags: str) -> None:
        own = directory / "prometheus"
        own.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.config_path = own / "prometheus.yml"
        self._write(config)
        checked = promtool("check", "config", str(self.config_path))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        arguments = [
            f"--config.file={self.config_path}",
            f"--storage.tsdb.path={own / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
            *flags,
        ]
        super().__init__("prometheus", arguments, own, f"http://127.0.0.1:{self.port}")

    def reload(self, config: Mapping[str, Any]) -> None:
        """Put another configuration in force; AssertionError when Prometheus refuses it."""
        self._write(config)
        request = urllib.request.Request(f"{self.url}/-/reload", method="POST")
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"reload: {error.read().decode()}") from None

    def api(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer of the HTTP API, for example api("targets", state="active")."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(f"{path} {parameters}: {error.read().decode()}") from None

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The instant vector of a PromQL expression now, or at a Unix time."""
        parameters: dict[str, str | float] = {"query": expression}
        if at is not None:
            parameters["time"] = f"{at:.3f}"
        data = self.api("query", **parameters)
        assert data["resultType"] == "vector", f"{expression} is a {data['resultType']}"
        return [
            Sample(element["metric"], float(element["value"][1]), float(element["value"][0]))
            for element in data["result"]
        ]

    def history(self, selector: str, window: str = "10m") -> list[tuple[float, float]]:
        """(Unix time, value) of every stored sample of the one series that the selector names."""
        result = self.api("query", query=f"{selector}[{window}]")["result"]
        assert len(result) == 1, f"{selector}: {len(result)} series"
        return [(float(at), float(value)) for at, value in result[0]["values"]]

    def value(self, expression: str) -> float:
        """The value of an expression that has exactly one element."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression}: {found}"
        return found[0].value

    def wait_for(
        self,
        expression: str,
        accept: Callable[[list[Sample]], bool] = bool,
        seconds: float = 60.0,
    ) -> list[Sample]:
        """Query until the result is accepted (by default: is not empty); returns it."""
        found: list[list[Sample]] = [[]]

        def attempt() -> bool:
            found[0] = self.query(expression)
            return accept(found[0])

        try:
            eventually(expression, attempt, seconds, pause=0.2)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; result: {found[0][:10]}; targets: {self.target_errors()}"
            ) from None
        return found[0]

    def wait_for_scrapes(self, number: int, selector: str = "up", seconds: float = 60.0) -> None:
        """Wait until every series of `selector` that still goes on has this many samples from now on."""
        started = time.time()

        def attempt() -> bool:
            window = f"{max(1, int((time.time() - started) * 1000))}ms"
            counts = self.query(f"count_over_time({selector}[{window}]) and {selector}")
            return bool(counts) and min(sample.value for sample in counts) >= number

        eventually(f"{number} scrapes of {selector}", attempt, seconds, pause=0.2)

    def target_errors(self) -> dict[str, str]:
        """Why targets are not scraped, by scrape URL."""
        targets = self.api("targets", state="active")["activeTargets"]
        return {target["scrapeUrl"]: target["lastError"] for target in targets if target["lastError"]}

    def _write(self, config: Mapping[str, Any]) -> None:
        intervals = {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL}
        document = {**config, "global": {**intervals, **config.get("global", {})}}
        self.config_path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
