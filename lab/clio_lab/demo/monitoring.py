"""Prometheus and Alertmanager as parts of the demo, on loopback and with the kit's rules."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import Progress
from clio_lab.demo.errors import DemoError
from clio_lab.demo.kit import Kit
from clio_lab.demo.stack import START_TIMEOUT, clean_environment, no_answer
from clio_lab.demo.state import State
from clio_lab.sshd import find_command

HOST: Final = "127.0.0.1"
SCRAPE_INTERVAL: Final = "5s"
PROMETHEUS_PORT: Final = 9090
ALERTMANAGER_PORT: Final = 9093

_STOP_SECONDS = 15.0


class Server:
    """A server whose data go with it; ready when `/-/ready` answers 200.

    Args:
        name: what people call it.
        programs: names of its executable; the first that is found is run.
        package: Debian's package of it.
        directory: for its data and its log.
        port: on loopback.
        arguments: its command line, given the directory of its data; may raise DemoError.
        state: the record of what is to be removed.
        interrupt: gives its start up.
    """

    command: str | None = None

    def __init__(
        self,
        name: str,
        programs: Sequence[str],
        package: str,
        *,
        directory: Path,
        port: int,
        arguments: Callable[[Path], list[str]],
        state: State,
        interrupt: threading.Event,
    ) -> None:
        self.name = name
        self._programs = programs
        self._package = package
        self._data = directory / "data"
        self._log_path = directory / f"{name.lower()}.log"
        self._port = port
        self._arguments = arguments
        self._state = state
        self._interrupt = interrupt
        self._child: ChildProcess | None = None

    @property
    def where(self) -> str:
        """Its page."""
        return f"{self.name} http://{HOST}:{self._port}"

    def start(self, progress: Progress) -> None:
        """Start it and wait until it is ready. Raises DemoError, also when it is not installed."""
        program = next(filter(None, map(find_command, self._programs)), None)
        if program is None:
            raise DemoError(f"not installed: {how_to_install(self._package)}")
        progress(f"starting {self.name} on {HOST}:{self._port}")
        self._state.remember(directories=[str(self._data)])
        self._data.mkdir(parents=True, exist_ok=True)
        self._child = ChildProcess(
            self.name,
            [program, *self._arguments(self._data)],
            log_path=self._log_path,
            environment=clean_environment(os.environ),
            directory=self._data,
            state=self._state,
        )
        self._child.wait_ready(
            lambda: no_answer(HOST, self._port, "/-/ready"), START_TIMEOUT, self._interrupt
        )

    def stop(self) -> None:
        """End it and remove its data."""
        if self._child is not None:
            self._child.end(_STOP_SECONDS)
            self._child = None
        self._state.remove_directory(self._data)

    def health(self) -> str | None:
        """Say when it ended."""
        return None if self._child is None or self._child.is_running else self._child.how_it_ended()


def prometheus(directory: Path, port: int, kit: Kit, state: State, interrupt: threading.Event) -> Server:
    """Prometheus with the configuration and the rules of the kit."""

    def arguments(data: Path) -> list[str]:
        return [
            f"--config.file={kit.directory() / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={HOST}:{port}",
            f"--web.external-url=http://{HOST}:{port}/",
        ]

    return Server(
        "Prometheus", ["prometheus"], "prometheus",
        directory=directory, port=port, arguments=arguments, state=state, interrupt=interrupt,
    )  # fmt: skip


def alertmanager(directory: Path, port: int, kit: Kit, state: State, interrupt: threading.Event) -> Server:
    """Alertmanager with the configuration of the kit: it tells nobody."""

    def arguments(data: Path) -> list[str]:
        return [
            f"--config.file={kit.directory() / 'alertmanager.yml'}",
            f"--storage.path={data}",
            "--cluster.listen-address=",
            f"--web.listen-address={HOST}:{port}",
            f"--web.external-url=http://{HOST}:{port}/",
        ]

    return Server(
        "Alertmanager", ["prometheus-alertmanager", "alertmanager"], "prometheus-alertmanager",
        directory=directory, port=port, arguments=arguments, state=state, interrupt=interrupt,
    )  # fmt: skip


def how_to_install(package: str) -> str:
    """A line for the shell that installs a system package without starting its service."""
    script = Path(__file__).parents[3] / "scripts" / "bootstrap.sh"
    if script.is_file():
        return f"run `sudo sh {script} packages demo`, then start the demo again"
    get = f"`sudo apt-get install {package}` (or see https://prometheus.io/download/)"
    return f"run {get}, then start the demo again"
