"""A server that is not ours (Prometheus, Alertmanager) as a child process."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.exporter_process import end, eventually
from tests.system import find_command

_START_SECONDS = 60.0
_Server = TypeVar("_Server", bound="ServerProcess")


class ServerProcess:
    """`program`, found on the path, with these arguments; ready when constructed.

    It is ready when `/-/ready` below `url` answers 200. It runs in `directory`, where its output goes to
    `PROGRAM.log`. The end of its `with` block ends it, and `stop` does.
    """

    def __init__(self, program: str, arguments: Sequence[str], directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.log_path = directory / f"{program}.log"
        found = find_command(program)
        assert found is not None, f"{program} is not installed"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [found, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
            )
        try:
            eventually(f"{program} is ready; log: {self.log_path}", self._ready, _START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def __enter__(self: _Server) -> _Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """SIGTERM, SIGKILL when that does not help; waits."""
        end(self._process)

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"ended with {self._process.returncode}:\n{self.log}")
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            # 503 until it is ready; the answer holds a socket.
            error.close()
            return False
