"""`clio-exporter demo` as a user runs it: a process, signals, and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from clio_lab.demo.ports import find_base_port
from tests.integration.leftovers import leftovers
from tests.ports import free_port

pytestmark = pytest.mark.integration

PROGRAM = (sys.executable, "-m", "clio_exporter")
READY = re.compile(r"^ready: metrics (http://\S+/metrics)[ ,]")


class Demo:
    """A running `demo` command and the lines it printed."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        nodes: int = 2,
        program: Sequence[str] = PROGRAM,
        grafana: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes = nodes
        self.base_port = find_base_port(nodes)
        self.user = f"clio-exporter-{os.getuid()}-{self.base_port}"
        self.listen = f"127.0.0.1:{free_port()}"
        self.lines: list[str] = []
        command = [*program, "demo", "--dir", str(directory), f"--nodes={nodes}"]
        command += [f"--base-port={self.base_port}", f"--listen={self.listen}"]
        servers = ("control-api", "prometheus", "alertmanager", "grafana")
        command += [f"--{server}-port={free_port()}" for server in servers]
        command += [*([] if grafana else ["--no-grafana"]), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_line(self, pattern: str | re.Pattern[str], timeout: float = 90) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in list(self.lines))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or not self._reader.is_alive(), timeout)
        match = found()
        assert match is not None, "\n".join(self.lines)
        return match

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(40)
        self.close()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def hosts(self) -> list[str]:
        """Addresses of the nodes."""
        found = (re.match(r"node \d+ is up: (\S+),", line) for line in self.lines)
        return [match[1] for match in found if match is not None]

    def left(self) -> list[str]:
        return leftovers(self.user, self.base_port, self.nodes)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos in one directory; ends those that a failing test left."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, nodes: int = 2) -> Demo:
            started = Demo(tmp_path / "demo", *arguments, nodes=nodes)
            stack.callback(ensure_ended, started)
            return started

        yield begin


def ensure_ended(started: Demo) -> None:
    try:
        if started.process.poll() is None:
            started.end(signal.SIGTERM)
    finally:
        started.close()


def metric(url: str, name: str) -> dict[str, float]:
    """The samples of one metric at `url`, by their labels."""
    with urllib.request.urlopen(url, timeout=20) as response:
        text = response.read().decode()
    samples = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in samples}


def test_metrics_of_all_nodes_with_traffic_then_ctrl_c(demo: Callable[..., Demo]) -> None:
    running = demo()
    url = running.wait_line(READY)[1]
    assert list(metric(url, "clio_node_up").values()) == [1.0, 1.0]
    for command in (r"\S*clio-exporter.* scrape .*", r"curl .*"):
        line = running.wait_line(rf"^ +({command})$", 5)[1]
        shown = subprocess.run(
            line, shell=True, env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        for host in running.hosts():
            assert host in shown, line
    deadline = time.monotonic() + 90
    written: dict[str, float] = {}
    while time.monotonic() < deadline:
        written = metric(url, "clio_bdev_written_bytes_total")
        if sum(any(f'node_id="{node}"' in key and written[key] for key in written) for node in (0, 1)) == 2:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(1)
    else:
        pytest.fail(f"no bytes written on some node: {written}")
    assert running.end(signal.SIGINT) == 0
    assert running.lines[-1] == "stopped"
    assert sum(line.startswith("ready:") for line in running.lines) == 1
    assert running.left() == []


def test_a_second_run_after_a_killed_one_cleans_up_and_works(demo: Callable[..., Demo]) -> None:
    first = demo()
    first.wait_line(READY)
    first.process.kill()
    first.process.wait(10)
    first.close()
    assert len(first.left()) > 2
    second = demo()
    second.wait_line(READY)
    assert first.left() == []
    assert any("of an earlier run" in line for line in second.lines)
    assert second.end(signal.SIGTERM) == 0
    assert second.left() == []


def test_one_demo_a_directory(demo: Callable[..., Demo]) -> None:
    first = demo("--no-traffic", nodes=1)
    first.wait_line(READY)
    second = demo("--no-traffic", nodes=1)
    assert second.process.wait(30) == 1
    assert second.wait_line("a demo already runs in").string.count(str(first.process.pid)) == 1
    assert first.process.poll() is None
    assert first.end() == 0


def test_stopped_while_starting(demo: Callable[..., Demo]) -> None:
    running = demo()
    running.wait_line("^starting 2 runtimes")
    assert running.end(signal.SIGTERM) == 0
    assert running.left() == []


def test_an_exporter_that_cannot_start_stops_the_cluster(demo: Callable[..., Demo], tmp_path: Path) -> None:
    # A directory where the settings file should be written: fails after the cluster is up.
    (tmp_path / "demo" / "exporter.yaml").mkdir(parents=True)
    running = demo(nodes=1)
    assert running.process.wait(60) == 1
    running.wait_line("exporter.yaml")
    assert running.left() == []


def test_a_node_that_ends_is_reported_once(demo: Callable[..., Demo]) -> None:
    running = demo("--no-traffic")
    running.wait_line(READY)
    pid = int(running.wait_line(r"node 1 is up: .* pid (\d+)$")[1])
    os.kill(pid, signal.SIGKILL)
    running.wait_line("cluster: node 1 ended", 15)
    assert running.end() == 0
    assert running.lines.count("cluster: node 1 ended") == 1
    assert running.left() == []
