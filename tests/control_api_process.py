"""The control API as a child process, with a tokens file and one operator in it.

with ControlApiProcess(tmp_path, hostfile, {"port": sshd.port}) as api:
    status, document = api.act(0, "restart")
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from clio_control_api.principals import Role
from clio_control_api.tokens import line_of, new_token
from clio_lab.child import ChildProcess
from tests.exporter_process import START_SECONDS, STOP_SECONDS, clean_environment

_LISTENING = re.compile(r"127\.0\.0\.1:(\d+)")
_ACTION_SECONDS = 180.0


class ControlApiProcess:
    """A control API for the nodes of a hostfile, ready when constructed.

    Everything it writes is in `directory`. `ssh` are its settings of that name: nothing of OpenSSH's own
    configuration or agent counts. Only actions need a token, so that it is scraped without one.

    Attributes:
        address: host:port that it listens on.
        tokens_file: read again by it when it changes.
    """

    def __init__(self, directory: Path, hostfile: Path, ssh: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._token = new_token()
        self.tokens_file = directory / "tokens"
        self.tokens_file.touch(0o600)
        self.mend_tokens()
        exporter = {"clusters": [{"hostfile": str(hostfile)}]}
        (directory / "exporter.yaml").write_text(yaml.safe_dump(exporter))
        own = {"agent": False, "config_file": str(directory / "no-config")}
        control: dict[str, Any] = {"exporter_config": "exporter.yaml", "reply_port": 0, "ssh": {**own, **ssh}}
        control["auth"] = "actions"
        (directory / "control.yaml").write_text(
            yaml.safe_dump({**control, "tokens_file": str(self.tokens_file)})
        )
        self._child = ChildProcess(
            "control API",
            [sys.executable, "-m", "clio_control_api", "--port", "0", "--config", "control.yaml"],
            log_path=directory / "control-api.log",
            environment=clean_environment(directory),
            directory=directory,
        )
        try:
            self._child.wait_ready(lambda: None if self._listening() else "it does not listen", START_SECONDS)
            self.address = self._listening()
        except BaseException:
            self._child.end(STOP_SECONDS)
            raise

    def __enter__(self) -> ControlApiProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end(STOP_SECONDS)

    def break_tokens(self) -> None:
        """Write what is no tokens file over it."""
        self.tokens_file.write_text("no line of a token\n")

    def mend_tokens(self) -> None:
        """Let the operator in again."""
        self.tokens_file.write_text(line_of("op", Role.OPERATOR, self._token) + "\n")

    def act(self, node: int, action: str) -> tuple[int, dict[str, Any]]:
        """Ask for a shutdown or restart with the operator's token; status and document of the answer."""
        request = urllib.request.Request(
            f"http://{self.address}/api/topology/node/{node}/{action}",
            method="POST",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ACTION_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def _listening(self) -> str:
        lines = self._child.log().decode("utf-8", "replace").splitlines()
        found = next(
            (found for line in lines if "listening" in line and (found := _LISTENING.search(line))), None
        )
        return found[0] if found else ""
