"""Programs that outlive the command that starts them; another ends them, by id and start time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from clio_client.config.errors import ConfigError
from clio_exporter.job.state import ProcessRecord
from clio_exporter.service_client import Service
from clio_web import processes

HOST: Final = "127.0.0.1"
MARK: Final = "CLIO_EXPORTER_JOB_PROCESS"
"""Environment variable by which a site's epilog tells what to end (contrib/slurm/epilog.sh)."""
_STEP: Final = 0.05


class EndedEarlyError(Exception):
    """A program ended while it was starting."""


def free_port() -> int:
    """A port of loopback that nobody listens on now; another may take it before it is bound."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


class HeldError(Exception):
    """Another program is at it."""


class Detached:
    """A program in a session of its own, which is not ended with us.

    Args:
        name: what messages call it.
        command: the program and its arguments.
        log: where its output goes, added at the end.
        port: on which it is to listen on loopback.
        ready: path that answers when it serves.
        mark: value of `MARK` in its environment (default: `name`).
        env: its environment, without the mark (default: ours).
        alone: only one program at a time may have this log.

    Raises:
        HeldError: with `alone`, another has it and runs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        port: int,
        *,
        ready: str = "/-/ready",
        mark: str | None = None,
        env: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self.port = port
        self._ready = ready
        with log.open("ab") as output:
            if alone:
                _hold(output.fileno())
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env={**(os.environ if env is None else env), MARK: mark or name},
            )  # fmt: skip
        self.record = ProcessRecord(self._popen.pid, psutil.Process(self._popen.pid).create_time(), port)

    def wait_ready(self, deadline: float) -> None:
        """Wait until it serves, up to a time of `time.monotonic`.

        Raises:
            EndedEarlyError: it ended.
            ConfigError: the time is over.
        """
        service = Service(f"http://{HOST}:{self.port}", 2.0)
        while True:
            if self._popen.poll() is not None:
                raise EndedEarlyError(
                    f"{self.name} ended with status {self._popen.returncode}: {last_lines(self.log)}"
                )
            # Its own listener, not one of a stranger's that was quicker to take the port.
            if self._listens() and service.get(self._ready).ok:
                return
            if time.monotonic() >= deadline:
                raise ConfigError(
                    self.name, f"does not serve in time, see {self.log}", "Give more time with --timeout"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STEP)

    def end(self, seconds: float) -> None:
        """SIGTERM; SIGKILL when it still runs `seconds` later; reap."""
        end(self.record, seconds)
        self._popen.wait(10)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, up to `seconds`; its status, None when it still runs."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _listens(self) -> bool:
        try:
            found = psutil.Process(self.record.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == self.port for c in found if c.laddr)


def _hold(log: int) -> None:
    """Lock a log; the program inherits the lock with its output, and has it until it ends, also after us."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError from None
    except OSError:  # a file system without locks
        return


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Have handlers of signals run after this, not within: they may raise, and what was started be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda came_now, _: came.append(came_now))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


def running(record: ProcessRecord) -> psutil.Process | None:
    """The process written down, None when it has ended (or another has its number now)."""
    return processes.find(record.pid, record.started)


def end(record: ProcessRecord, seconds: float) -> bool:
    """SIGTERM; SIGKILL when it still runs `seconds` later. Whether it ended by itself, or had before."""
    process = running(record)
    return process is None or processes.end(process, seconds)


def last_lines(log: Path, lines: int = 3) -> str:
    """The end of a log, in one line."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 8192))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return " | ".join(line.strip()[:300] for line in text.splitlines()[-lines:])
