"""A real sshd for the user that runs the tests."""

from __future__ import annotations

import getpass
import time
from pathlib import Path

import psutil

from clio_lab import sshd
from clio_lab.demo.cluster import TIMER_SLACK_US
from clio_lab.demo.node import timer_slack
from clio_lab.sshd import make_key
from tests.ports import free_port

__all__ = ["Sshd", "free_port", "make_key"]


class Sshd:
    """One sshd; it runs in its `with` block."""

    def __init__(self, directory: Path, keys: list[Path], *, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.user = getpass.getuser()
        self.host_key = directory / "host_key"
        self._directory = directory
        self._keys = keys
        self._running: sshd.Sshd | None = None

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def __enter__(self) -> Sshd:
        options = ("AllowTcpForwarding yes", "MaxStartups 100", "PermitUserRC no")
        # Runtimes that are started over it inherit this, like those that a cluster starts.
        with timer_slack(TIMER_SLACK_US):
            self._running = sshd.Sshd(self._directory, self._keys, self.port, options=options)
        try:
            self._running.wait_ready(self._running.missing, 20)
        except BaseException:
            self._running.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.end(10)

    def sessions(self) -> list[psutil.Process]:
        """Processes below sshd: connections and what runs in them (not what was detached)."""
        return psutil.Process(self.pid).children(recursive=True)

    def await_no_sessions(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while self.sessions():
            assert time.monotonic() < deadline, [p.cmdline() for p in self.sessions()]
            time.sleep(0.02)
