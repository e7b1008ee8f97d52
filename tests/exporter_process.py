"""The exporter as a child process, for tests that need the whole of it.

with ExporterProcess(tmp_path, "--nodes", "127.0.0.1:9413") as exporter:
    assert exporter.scrape().value("clio_node_up", node_id="0") == 1
"""

from __future__ import annotations

import base64
import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from clio_lab.child import ChildProcess
from tests.ports import free_port

_T = TypeVar("_T")

COMMAND = (sys.executable, "-m", "clio_exporter")
START_SECONDS = 120.0
STOP_SECONDS = 20.0
_KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV")


def eventually(what: str, attempt: Callable[[], _T], seconds: float = 30.0, *, pause: float = 0.05) -> _T:
    """The first true result of `attempt`, which may fail with AssertionError or OSError before."""
    deadline = time.monotonic() + seconds
    problem: object = None
    while True:
        try:
            result = attempt()
            if result:
                return result
            problem = result
        except (AssertionError, OSError, http.client.HTTPException) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last: {problem!r}")
        time.sleep(pause)


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer; `seconds` is the time until its last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()


class Scrape:
    """The samples of one exposition, by family name."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        self.text = text
        self.seconds = seconds
        self._samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = self._samples.setdefault(sample.name, {})
                key = frozenset(sample.labels.items())
                assert key not in series, f"{sample.name}{sample.labels} is there twice"
                series[key] = sample.value

    @property
    def names(self) -> set[str]:
        """Names of all samples."""
        return set(self._samples)

    def series(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every sample of this name that has these labels."""
        wanted = set(labels.items())
        return [(dict(key), value) for key, value in self._samples.get(name, {}).items() if wanted <= key]

    def value(self, name: str, **labels: str) -> float:
        """The value of the only sample that fits."""
        found = self.series(name, **labels)
        assert len(found) == 1, f"{name}{labels}: {found}"
        return found[0][1]

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Values by one label."""
        return {found[label]: value for found, value in self.series(name, **labels)}

    def names_of(self, **labels: str) -> set[str]:
        """Names of all samples with these labels."""
        return {name for name in self._samples if self.series(name, **labels)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)


class ExporterProcess:
    """`clio-exporter` with these arguments, ready when the constructor returns.

    It listens on a free port of 127.0.0.1, has a free reply port, an empty home below `directory` and
    none of this process's environment but PATH and the like. `wait=False` does not wait until it serves.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        port: int | None = None,
        reply_port: int | None = None,
        environment: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self.port = free_port() if port is None else port
        self.reply_port = free_port() if reply_port is None else reply_port
        self.address = f"127.0.0.1:{self.port}"
        self.log_path = directory / f"exporter-{self.port}.log"
        self._tls = tls
        self._user = user
        home = directory / "home"
        home.mkdir(exist_ok=True)
        listen = [f"--web.listen-address={self.address}", f"--runtime.reply-port={self.reply_port}"]
        self._child = ChildProcess(
            "exporter",
            [*COMMAND, *listen, *arguments],
            log_path=self.log_path,
            append=True,
            environment=clean_environment(home, environment),
            directory=directory,
        )
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def __enter__(self) -> ExporterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, None while it runs."""
        return self._child.returncode

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it serves; AssertionError with its log when it ends or takes longer."""

        def ready() -> bool:
            if self.returncode is not None:
                raise RuntimeError(f"the exporter ended with {self.returncode}:\n{self.log}")
            return self.get("/-/ready", timeout=5).status == 200

        eventually(f"the exporter serves; log: {self.log_path}", ready, seconds)

    def get(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> HttpAnswer:
        """Ask over HTTP (or HTTPS, with the password, as constructed)."""
        if self._tls is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        sent = dict(headers or {})
        if self._user is not None:
            sent["Authorization"] = "Basic " + base64.b64encode(":".join(self._user).encode()).decode()
        started = time.monotonic()
        try:
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            body = answer.read()
            return HttpAnswer(answer.status, dict(answer.headers), body, time.monotonic() - started)
        finally:
            connection.close()

    def scrape(self, path: str = "/metrics", timeout: float | None = None) -> Scrape:
        """One scrape, with `timeout` as Prometheus would send it; AssertionError unless the answer is 200."""
        headers = {} if timeout is None else {"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
        answer = self.get(path, headers=headers)
        assert answer.status == 200, f"{path}: {answer.status} {answer.text[:500]}"
        return Scrape(answer.text, answer.seconds)

    def scrape_until(self, what: str, accept: Callable[[Scrape], bool], seconds: float = 40.0) -> Scrape:
        """Scrape until `accept` says so; returns that scrape."""
        found: list[Scrape] = []

        def attempt() -> bool:
            found[:] = [self.scrape()]
            return accept(found[0])

        eventually(what, attempt, seconds, pause=0.1)
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and return the exit status."""
        status = self._child.wait(seconds)
        assert status is not None, f"it still runs after {seconds} s"
        return status

    def stop(self) -> None:
        """SIGTERM, SIGKILL when that does not help; waits."""
        self._child.end(STOP_SECONDS)


def clean_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment that names no runtime, with this home directory."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), **(more or {})}


def run_exporter(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Run `clio-exporter` to its end."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean_environment(home, environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
