"""The demo's parts, started in order and stopped in reverse.

Another part is one more object with the methods of `Component`, appended to the list in `session`.
"""

from __future__ import annotations

import http.client
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import yaml

from clio_client.address import join_host_port
from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster, Progress
from clio_lab.demo.errors import DemoError
from clio_lab.demo.state import State

START_TIMEOUT = 30.0


class Component(Protocol):
    """One part of the demo."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def where(self) -> str | None:
        """Where a user finds it (`metrics http://...`), None when there is nothing to look at."""

    @property
    def command(self) -> str | None:
        """A line for the shell that asks it, None when there is nothing to ask."""

    def start(self, progress: Progress) -> None:
        """Start, and return when it is ready; raises DemoError. `stop` is called in any case."""

    def stop(self) -> None:
        """End everything it started; must be fine when it never started, and when called again."""

    def health(self) -> str | None:
        """Return what is wrong now, None when nothing is."""


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

    def commands(self) -> list[str]:
        """Return what to paste into a shell, in order."""
        return [line for component in self._components if (line := component.command) is not None]


class ClusterComponent:
    """The runtimes."""

    name = "cluster"
    where: str | None = None
    command: str | None = None

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
        self._child: ChildProcess | None = None
        self.settings_path = cluster.root / "exporter.yaml"
        self.log_path = cluster.root / "exporter.log"

    @property
    def address(self) -> str:
        """`host:port` that it is reached at from here."""
        return join_host_port(self._reachable_host, self._port)

    @property
    def where(self) -> str:
        """The metrics page."""
        return f"metrics http://{self.address}/metrics"

    @property
    def command(self) -> str:
        """A scrape for people, of the demo's nodes and not of what else runs here."""
        program = Path(sys.executable).with_name("clio-exporter")
        start = [str(program)] if program.exists() else [sys.executable, "-m", "clio_exporter"]
        return shlex.join([*start, "scrape", f"--config.file={self.settings_path}", "--format=table"])

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child is not None and self._child.is_running else None

    def start(self, progress: Progress) -> None:
        """Start it and wait until it says that it is ready."""
        progress(f"starting the exporter on {join_host_port(self._host, self._port)}")
        self.settings_path.write_text(exporter_settings(self._cluster), encoding="utf-8")
        command = [sys.executable, "-m", "clio_exporter", f"--config.file={self.settings_path}"]
        command.append(f"--web.listen-address={join_host_port(self._host, self._port)}")
        self._child = ChildProcess(
            self.name,
            command,
            log_path=self.log_path,
            environment=clean_environment(os.environ),
            state=self._state,
        )
        self._child.wait_ready(
            lambda: no_answer(self._reachable_host, self._port, "/-/ready"), START_TIMEOUT, self._interrupt
        )

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def health(self) -> str | None:
        """Say when it ended."""
        return None if self._child is None or self._child.is_running else self._child.how_it_ended()

    @property
    def _reachable_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared


def no_answer(host: str, port: int, path: str) -> str | None:
    """Say what is missing until `path` is answered with 200 over HTTP; None when it is."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
        return None if status == http.client.OK else f"{path} answers {status}"
    except (OSError, http.client.HTTPException) as error:
        return f"{path} is not answered: {error}"
    finally:
        connection.close()


def exporter_settings(cluster: LocalCluster) -> str:
    """Return the exporter's settings file for a demo cluster, as YAML."""
    entry = {"name": "demo", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
    if cluster.hostfile is not None:
        entry["hostfile"] = str(cluster.hostfile)
    return yaml.safe_dump({"clusters": [entry]}, sort_keys=False)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without what would lead the exporter to another cluster's files."""
    misleading = ("CLIO_", "CHI_", "WRP_", "CONTAINER_HOSTFILE")
    return {name: value for name, value in environment.items() if not name.startswith(misleading)}
