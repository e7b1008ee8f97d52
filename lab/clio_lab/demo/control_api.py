"""The control API as a part of the demo.

Where sshd is installed, one of the demo's own is started on a free loopback port, for the user who runs the
demo and with a key made for it, so that shutdown and restart work as on a real cluster.
"""

from __future__ import annotations

import getpass
import os
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from clio_lab.child import ChildProcess
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.errors import DemoError
from clio_lab.demo.node import timer_slack
from clio_lab.demo.ports import is_free, require_free
from clio_lab.demo.stack import START_TIMEOUT, clean_environment, exporter_settings, no_answer
from clio_lab.demo.state import State
from clio_lab.sshd import Sshd, find_command, make_key

PORT: Final = 5000
REPLY_PORT: Final = 9788


class ControlApiComponent:
    """The control API, with an sshd for its actions, as processes of their own."""

    name = "control API"

    def __init__(
        self, cluster: LocalCluster, state: State, interrupt: threading.Event, port: int = PORT
    ) -> None:
        self._cluster = cluster
        self._state = state
        self._interrupt = interrupt
        self._directory = cluster.root / "control-api"
        self._children: list[ChildProcess] = []
        self.port = port
        self.log_path = self._directory / "control-api.log"

    @property
    def where(self) -> str:
        """The topology."""
        return f"control API {self._url}"

    @property
    def command(self) -> str:
        """The topology for people, asked for as actions are: with the operator's token."""
        return f'curl -H "Authorization: Bearer $(cat {shlex.quote(self._token_path)})" {self._url}'

    @property
    def _token_path(self) -> str:
        """The file with the token that the control API makes at its first start, from here if it is below."""
        path = self._directory / "token"
        here = Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/topology"

    def start(self, progress: Callable[[str], None]) -> None:
        """Start both and wait until the API answers.

        Raises:
            DemoError: its port is in use (whoever answers there would be taken for it), or it does not start.
        """
        require_free(self.port, "the control API", "--control-api-port", "127.0.0.1")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        progress(f"starting the control API on 127.0.0.1:{self.port}")
        ssh_port = self._start_sshd(progress)
        settings = self._directory / "control-api.yaml"
        settings.write_text(yaml.safe_dump(self._settings(ssh_port), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "clio_control_api", f"--config={settings}", f"--port={self.port}"]
        child = ChildProcess(
            self.name,
            command,
            log_path=self.log_path,
            environment=clean_environment(os.environ),
            state=self._state,
        )
        self._children.append(child)
        child.wait_ready(
            lambda: no_answer("127.0.0.1", self.port, "/-/healthy"), START_TIMEOUT, self._interrupt
        )
        progress(f"the token for the control API's actions, and for its pages, is in {self._token_path}")

    def stop(self) -> None:
        """End both."""
        while self._children:
            self._children.pop().end(15)

    def health(self) -> str | None:
        """Say when one of them ended."""
        ended = (f"{child.name} {child.how_it_ended()}" for child in self._children if not child.is_running)
        return next(ended, None)

    # --- parts ------------------------------------------------------------------------------------

    def _settings(self, ssh_port: int | None) -> dict[str, Any]:
        cluster = self._cluster
        exporter = self._directory / "exporter.yaml"
        exporter.write_text(exporter_settings(cluster), encoding="utf-8")
        ssh: dict[str, Any] = {
            "host": "127.0.0.1",
            "program": str(cluster.install.program),
            "agent": False,
            "key_file": str(self._directory / "id"),
        }
        if ssh_port is not None:
            ssh["port"] = ssh_port
        nodes = {
            str(node.index): {"environment": dict(node.environment), "directory": str(node.directory)}
            for node in cluster.nodes
        }
        return {
            "exporter_config": str(exporter),
            "reply_port": REPLY_PORT,
            "state_dir": str(self._directory),
            "ssh": ssh,
            "clusters": {"demo": {"nodes": nodes}},
        }

    def _start_sshd(self, progress: Callable[[str], None]) -> int | None:
        if find_command("sshd") is None or find_command("ssh-keygen") is None:
            progress("no sshd here (package openssh-server): the control API can read but not act")
            return None
        port = next((p for p in range(5022, 5122) if is_free(p, "127.0.0.1")), None)
        if port is None:
            raise DemoError("ports 5022 to 5121 are all in use: stop what uses one of them")
        keys = [make_key(self._directory / "id")]
        options = [f"AllowUsers {getpass.getuser()}"]
        # A node that is restarted over it polls no more than it did before.
        with timer_slack(self._cluster.timer_slack_us):
            sshd = Sshd(self._directory, keys, port, options=options, state=self._state)
        self._children.append(sshd)
        sshd.wait_ready(sshd.missing, START_TIMEOUT, self._interrupt)
        return port
