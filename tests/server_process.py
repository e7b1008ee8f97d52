"""A server that is not ours (Prometheus, Alertmanager) as a child process."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from clio_lab.child import ChildProcess
from tests.system import find_command

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
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
        self._child = ChildProcess(
            program, [found, *arguments], log_path=self.log_path, append=True, directory=directory
        )
        try:
            self._child.wait_ready(self._missing, _START_SECONDS)
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
        self._child.end(_STOP_SECONDS)

    def _missing(self) -> str | None:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return None if answer.status == 200 else f"it answers {answer.status}"
        except urllib.error.HTTPError as error:
            # 503 until it is ready; the answer holds a socket.
            error.close()
            return f"it answers {error.code}"
        except OSError as error:
            return str(error)
