"""The demo's parts, started in order and stopped in reverse.

Another part (a control API, Prometheus) is one more object with the methods of `Component`,
appended to the list in `exporter.demo.command`.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

import yaml

from exporter.demo.cluster import LocalCluster, Progress
from exporter.demo.errors import DemoError, InterruptedStartError
from exporter.demo.state import State

EXPORTER_TIMEOUT = 30.0


class Component(Protocol):
    """One part of the demo."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def where(self) -> str | None:
        """Where a user finds it (`metrics http://...`), None when there is nothing to look at."""

    def start(self, progress: Progress) -> None:
        """Start, and return when it is ready; raises DemoError. `stop` is called in any case."""

    def stop(self) -> None:
        """End everything it started; must be fine when it never started, and when called again."""

    def health(self) -> str | None:
        """Return what is wrong now, None when nothing is."""


PLUG: Final = "clio_exporter.demo_components"
"""Entry point group of parts that other packages add; each is called as `MakeComponent`."""

MakeComponent = Callable[[LocalCluster, State, threading.Event], Component]
"""Makes a part for this cluster; what it starts goes into the state, and the event interrupts its start."""


def plugged_components() -> list[MakeComponent]:
    """Return what installed packages add to the demo, by name; raises DemoError for one that is broken."""
    found = []
    for entry in sorted(entry_points(group=PLUG), key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except (ImportError, AttributeError) as error:
            raise DemoError(f"the demo's part {entry.name} cannot be loaded: {error}") from None
    return found


class Stack:
    """Components in order."""

    def __init__(self, components: Sequence[Component]) -> None:
        self._components = list(components)
        self._begun: list[Component] = []

    def start(self, progress: Progress) -> None:
        """Start one after the other; when one fails, stop all that have begun and raise its error."""
        try:
            for component in self._components:
                self._begun.append(component)
                component.start(progress)
        except BaseException:
            self.stop(progress)
            raise

    def stop(self, progress: Progress) -> None:
        """Stop in reverse; one that fails to stop does not keep the others, its error comes last."""
        errors: list[Exception] = []
        while self._begun:
            component = self._begun.pop()
            progress(f"stopping {component.name}")
            try:
                component.stop()
            except (OSError, DemoError, subprocess.SubprocessError) as error:
                errors.append(error)
                progress(f"stopping {component.name} failed: {error}")
        if errors:
            raise DemoError(f"not everything could be stopped: {errors[0]}") from errors[0]

    def health(self) -> list[str]:
        """Return the problems of all components, in order."""
        problems = ((component.name, component.health()) for component in self._begun)
        return [f"{name}: {problem}" for name, problem in problems if problem is not None]

    def where(self) -> list[str]:
        """Return where to look, in order."""
        return [place for component in self._components if (place := component.where) is not None]


class ClusterComponent:
    """The runtimes."""

    name = "cluster"
    where: str | None = None

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def start(self, progress: Progress) -> None:
        """Start all nodes and wait until they answer."""
        install = self._cluster.install
        progress(f"starting {self._cluster.size} runtimes, iowarp-core {install.version}")
        self._cluster.start(progress)

    def stop(self) -> None:
        """End all nodes and remove what they left."""
        self._cluster.stop()

    def health(self) -> str | None:
        """Name the nodes that do not run."""
        down = [str(node.index) for node in self._cluster.nodes if not node.is_running]
        return f"node {', '.join(down)} ended" if down else None


class ExporterComponent:
    """The exporter, as a process of its own, told about the cluster by a settings file."""

    name = "exporter"

    def __init__(
        self, cluster: LocalCluster, state: State, host: str, port: int, interrupt: threading.Event
    ) -> None:
        self._cluster = cluster
        self._state = state
        self._host = host
        self._port = port
        self._interrupt = interrupt
        self._process: subprocess.Popen[bytes] | None = None
        self.settings_path = cluster.root / "exporter.yaml"
        self.log_path = cluster.root / "exporter.log"

    @property
    def where(self) -> str:
        """The metrics page."""
        return f"metrics http://{join_address(self._reachable_host, self._port)}/metrics"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, progress: Progress) -> None:
        """Start it and wait until it says that it is ready."""
        progress(f"starting the exporter on {join_address(self._host, self._port)}")
        self.settings_path.write_text(exporter_settings(self._cluster), encoding="utf-8")
        command = [sys.executable, "-m", "exporter", f"--config.file={self.settings_path}"]
        command.append(f"--web.listen-address={join_address(self._host, self._port)}")
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**clean_environment(os.environ), **self._state.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._state.add_process(self._process.pid, self.name)
        self._wait_ready(self._process)

    def stop(self) -> None:
        """SIGTERM, 5 s, SIGKILL."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        self._process = None
        self._state.remove_process(process.pid)

    def health(self) -> str | None:
        """Say when it ended."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        return f"ended with exit code {process.returncode}, see {self.log_path}"

    @property
    def _reachable_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + EXPORTER_TIMEOUT
        while not self._is_ready():
            if process.poll() is not None:
                raise DemoError(
                    f"the exporter ended with exit code {process.returncode}; see {self.log_path}, "
                    f"last lines:\n{tail(self.log_path)}"
                )
            if self._interrupt.is_set():
                raise InterruptedStartError("stopped while the exporter was starting")
            if time.monotonic() >= deadline:
                raise DemoError(
                    f"the exporter is not ready after {EXPORTER_TIMEOUT:.0f} s; see {self.log_path}, "
                    f"last lines:\n{tail(self.log_path)}"
                )
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self._reachable_host, self._port, timeout=2)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def exporter_settings(cluster: LocalCluster) -> str:
    """Return the exporter's settings file for a demo cluster, as YAML."""
    entry = {"name": "demo", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
    if cluster.hostfile is not None:
        entry["hostfile"] = str(cluster.hostfile)
    return yaml.safe_dump({"clusters": [entry]}, sort_keys=False)


def clean_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return `environment` without what would lead the exporter to another cluster's files."""
    misleading = ("CLIO_", "CHI_", "WRP_", "CONTAINER_HOSTFILE")
    return {name: value for name, value in environment.items() if not name.startswith(misleading)}


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, `[v6]:port` or `:port` (all addresses); raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not host:port with a port of 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address as [address]:port")
    return host or "0.0.0.0", int(port)  # noqa: S104 - what ":9777" says


def tail(path: Path, lines: int = 5) -> str:
    """Return the last lines of a log file, empty when there is none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
