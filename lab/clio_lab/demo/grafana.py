"""Grafana as a part of the demo: an installed one, else the pinned image where a Docker engine answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import Progress
from clio_lab.demo.errors import DemoError, InterruptedStartError
from clio_lab.demo.kit import Kit
from clio_lab.demo.monitoring import HOST
from clio_lab.demo.stack import clean_environment, no_answer
from clio_lab.demo.state import State
from clio_web.grafana_server import Program, configuration

PORT: Final = 3000
IMAGE: Final = "grafana/grafana:12.1.1"
"""As in docker-compose.yml."""
IN_CONTAINER: Final = "/etc/clio"
"""Where the container finds the directory with the kit."""

_MADE: Final = "Made by `clio-exporter demo`."
_START_SECONDS = 120.0
_PULL_SECONDS = 1800.0
_ENGINE_SECONDS = 10.0
_STOP_SECONDS = 20.0
_STEP_SECONDS = 0.5
_HOW_TO = (
    "install Grafana (https://grafana.com/docs/grafana/latest/setup-grafana/installation/), "
    "then start the demo again; --no-grafana leaves it out"
)


class Grafana:
    """Grafana on loopback with the kit's data sources and dashboards; Topology is its home.

    Args:
        kit: the dashboards, made for where Grafana finds them (`IN_CONTAINER` without a program).
        program: the installed one; None for the image.
        port: on loopback.
        state: the record of what is to be removed.
        interrupt: gives its start up.
    """

    name = "Grafana"
    command: str | None = None

    def __init__(
        self, kit: Kit, program: Program | None, port: int, state: State, interrupt: threading.Event
    ) -> None:
        self._kit = kit
        self._program = program
        self._port = port
        self._state = state
        self._interrupt = interrupt
        self._child: ChildProcess | None = None
        self._container = f"clio-exporter-demo-{os.getpid()}-{port}"
        self._data: Path | None = None

    @property
    def where(self) -> str:
        """Its home page."""
        return f"{self.name} http://{HOST}:{self._port}"

    def start(self, progress: Progress) -> None:
        """Start it and wait until it answers. Raises DemoError, also when it cannot be had here."""
        if self._program is None:
            command = self._docker(progress)
        else:
            progress(f"starting {self.name} ({self._program.command[0]}) on {HOST}:{self._port}")
            command = self._installed(self._program)
        directory = self._kit.directory()
        for name in ("plugins", "alerting"):  # Grafana complains about those that are not there
            (directory / "provisioning" / name).mkdir(exist_ok=True)
        self._child = ChildProcess(
            self.name,
            command,
            log_path=directory / "grafana.log",
            environment=grafana_environment(os.environ),
            state=self._state,
        )
        self._child.wait_ready(
            lambda: no_answer(HOST, self._port, "/api/health"), _START_SECONDS, self._interrupt
        )

    def stop(self) -> None:
        """End it and remove its data."""
        if self._child is not None:
            self._child.end(_STOP_SECONDS)
            self._child = None
        if self._data is not None:
            self._state.remove_directory(self._data)
        self._state.remove_container(self._container)

    def health(self) -> str | None:
        """Say when it ended."""
        return None if self._child is None or self._child.is_running else self._child.how_it_ended()

    # --- installed ---------------------------------------------------------------------------------

    def _installed(self, program: Program) -> list[str]:
        directory = self._kit.directory()
        self._data = directory / "data"
        self._state.remember(directories=[str(self._data)])
        (self._data / "plugins").mkdir(parents=True, exist_ok=True)
        settings = directory / "grafana.ini"
        settings.write_text(
            configuration(_MADE, str(directory), str(self._data), self._port), encoding="utf-8"
        )
        home = [f"--homepath={program.home}"] if program.home is not None else []
        return [*program.command, *home, f"--config={settings}"]

    # --- image -------------------------------------------------------------------------------------

    def _docker(self, progress: Progress) -> list[str]:
        docker = shutil.which("docker")
        if docker is None or not _answers(docker):
            raise DemoError(f"none is installed, and no Docker engine answers here: start one, or {_HOW_TO}")
        self._pull(docker, progress)
        progress(f"starting {self.name} ({IMAGE}) on {HOST}:{self._port}")
        directory = self._kit.directory()
        settings = directory / "grafana.ini"
        settings.write_text(configuration(_MADE, IN_CONTAINER, None, self._port), encoding="utf-8")
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # its user is another one
        self._state.remember(containers=[self._container])
        return [
            docker, "run", "--rm", "--init", "--pull=never", f"--name={self._container}",
            # Prometheus listens on the loopback address of this host, and Grafana is to do no other.
            "--network=host", "--cap-drop=ALL", "--security-opt=no-new-privileges",
            "--security-opt=label=disable", f"--volume={directory.absolute()}:{IN_CONTAINER}:ro",
            f"--env=GF_PATHS_CONFIG={IN_CONTAINER}/grafana.ini",
            f"--env=GF_PATHS_PROVISIONING={IN_CONTAINER}/provisioning", IMAGE,
        ]  # fmt: skip

    def _pull(self, docker: str, progress: Progress) -> None:
        """Have the image; says how far the pull is. Raises DemoError when it cannot be had."""
        if _run(docker, "image", "inspect", IMAGE) == 0:
            return
        progress(f"pulling {IMAGE}, some 200 MB; the rest of the demo does not wait for it")
        log_path = self._kit.directory() / "pull.log"
        shown = ""
        pull = ChildProcess(
            "docker pull",
            [docker, "pull", IMAGE],
            log_path=log_path,
            environment=dict(os.environ),
            state=self._state,
        )
        with pull:
            waited = 0.0
            while (code := pull.wait(_STEP_SECONDS)) is None:
                waited += _STEP_SECONDS
                if self._interrupt.is_set():
                    raise InterruptedStartError("stopped while the image was being pulled")
                if waited > _PULL_SECONDS:
                    raise DemoError(f"{IMAGE} was not pulled within {_PULL_SECONDS:.0f} s: {_HOW_TO}")
                if (now := pulled(pull.log().decode("utf-8", "replace"))) != shown:
                    shown = now
                    progress(f"pulling {IMAGE}: {now}")
            if code != 0:
                reason = pull.log_tail(1) or f"docker pull ended with exit code {code}"
                by_hand = f"run `docker pull {IMAGE}` where there is a network"
                raise DemoError(f"{IMAGE} cannot be pulled: {reason}: {by_hand}, or {_HOW_TO}")


def pulled(log: str) -> str:
    """How far a pull is, from the lines of `docker pull`; "" while nothing is known."""
    layers = set(re.findall(r"^([0-9a-f]{12}): ", log, re.MULTILINE))
    done = set(re.findall(r"^([0-9a-f]{12}): (?:Pull complete|Already exists)", log, re.MULTILINE))
    return f"{len(done)} of {len(layers)} layers" if layers else ""


def grafana_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what would lead Grafana to other settings than those of its file."""
    kept = clean_environment(environment)
    return {name: value for name, value in kept.items() if not name.startswith("GF_")}


def _answers(docker: str) -> bool:
    """Whether a Docker engine on this host answers: one elsewhere has neither our files nor our loopback."""
    endpoint = os.environ.get("DOCKER_HOST", "")
    if endpoint and not endpoint.startswith("unix://"):
        return False
    return _run(docker, "version", "--format={{.Server.Version}}") == 0


def _run(*command: str) -> int:
    """The exit code of a short command; 1 when it takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ENGINE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 1
    return done.returncode
