"""A child process: its start, its output in a log file, the wait until it is ready, and its end."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, TypeVar

import psutil

from clio_lab.demo.errors import InterruptedStartError, ProcessFailedError
from clio_web import processes

if TYPE_CHECKING:
    from clio_lab.demo.state import State

STOP_SECONDS = 5.0

_STEP_SECONDS = 0.05
_LOG_BYTES = 1 << 22
_ANSI = re.compile(rb"\x1b\[[0-9;]*m")
_Child = TypeVar("_Child", bound="ChildProcess")


class ChildProcess:
    """A program that runs from the construction on. The end of its `with` block ends it, and `end` does.

    It has a session of its own: a Ctrl-C in the terminal is for us, who end our children in order.

    Args:
        name: what messages call it.
        command: the program and its arguments.
        log_path: where its standard output and error go.
        append: keep what the log file has from earlier runs.
        environment: all that it sees of an environment.
        directory: where it runs.
        state: the record that it is written down in while it runs, and whose mark it carries.
        pipes: its standard input and output are pipes (`stdin`, `stdout`), which the caller closes; only
            errors are logged.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        append: bool = False,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        state: State | None = None,
        pipes: bool = False,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._state = state
        if state is not None:
            environment = {**(environment or {}), **state.mark}
        with log_path.open("ab" if append else "wb") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                start_new_session=True,
            )
        # Nobody but us reaps it, so it is there at least as a zombie.
        self.process = psutil.Process(self._popen.pid)
        if state is not None:
            state.add_process(self._popen.pid, name)

    def __enter__(self: _Child) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Process id, also of one that has ended."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the number of the signal that ended it, None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        """Whether it runs (also paused)."""
        return self.returncode is None

    @property
    def stdin(self) -> IO[bytes]:
        """Its standard input; only with `pipes`."""
        assert self._popen.stdin is not None  # noqa: S101 - says what the caller has asked for
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output; only with `pipes`."""
        assert self._popen.stdout is not None  # noqa: S101 - as above
        return self._popen.stdout

    def log(self) -> bytes:
        """Return what this run has logged, up to 4 MiB, without colours."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return _ANSI.sub(b"", log.read(_LOG_BYTES))
        except FileNotFoundError:
            return b""

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines that this run has logged."""
        text = self.log().decode("utf-8", "replace").replace("\0", "")
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])

    def how_it_ended(self) -> str:
        """Describe its end for a message: exit code or signal, and the log file."""
        code = self.returncode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"ended with {how}, see {self.log_path}"

    def wait_ready(
        self, missing: Callable[[], str | None], seconds: float, interrupt: threading.Event | None = None
    ) -> None:
        """Wait until `missing` (what it lacks to be ready) returns None.

        Raises ProcessFailedError with the last lines of its log when it ends first or after `seconds`,
        InterruptedStartError when `interrupt` is set.
        """
        deadline = time.monotonic() + seconds
        while (lacks := missing()) is not None:
            if not self.is_running:
                raise self._failure(f"{self.how_it_ended()}, while starting")
            if interrupt is not None and interrupt.is_set():
                raise InterruptedStartError(f"stopped while the {self.name} was starting")
            if time.monotonic() >= deadline:
                raise self._failure(f"is not ready after {seconds:.0f} s: {lacks}; see {self.log_path}")
            self.wait(_STEP_SECONDS)  # its end is what ends the waiting early

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, up to `seconds`; return the exit code, None when it still runs."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; no effect after its end."""
        self._popen.send_signal(number)

    def end(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; SIGKILL when it still runs `seconds` later; reap. Returns the exit code, also later."""
        if self.is_running:
            processes.end(self.process, seconds)
        return self._reap()

    def kill(self) -> int:
        """SIGKILL and reap. Returns the exit code, also later."""
        self._popen.kill()
        return self._reap()

    def _reap(self) -> int:
        code = self._popen.wait(10)
        if self._state is not None:
            self._state.remove_process(self.pid)
            self._state = None
        return code

    def _failure(self, what: str) -> ProcessFailedError:
        return ProcessFailedError(f"{self.name} {what}, last lines:\n{self.log_tail()}")
