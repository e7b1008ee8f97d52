"""One runtime of a local cluster, whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from clio_client.address import CLIENT_PORT_OFFSET, PORT_OFFSETS
from clio_client.errors import RuntimeClientError
from clio_client.transport.greeting import Greeting
from clio_lab.child import ChildProcess
from clio_lab.demo.errors import DemoError, ProcessFailedError
from clio_lab.demo.ports import require_free
from clio_lab.demo.state import State
from clio_web import processes

START_TIMEOUT = 60.0
STOP_TIMEOUT = 3.0
DATA_DIRECTORIES = ("home", "store", "conf")

_COMPOSED = re.compile(rb"Compose: All \d+ pools created")
_CONFIG_VARIABLE = "CLIO_SERVER_CONF"
_START_WORDS = frozenset({"start", "restart"})
_PR_SET_TIMERSLACK = 29
_PR_GET_TIMERSLACK = 30


class LocalNode:
    """One runtime of a `LocalCluster`. Methods are for one thread at a time; `pid` is for any.

    It is the child that `start` starts; once that has ended, it is the runtime that somebody else has
    started with this node's configuration (the control API does, over SSH).
    """

    def __init__(
        self,
        *,
        index: int,
        host: str,
        port: int,
        directory: Path,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        state: State,
        timer_slack_us: int | None,
        interrupt: threading.Event,
    ) -> None:
        self.index = index
        self.host = host
        self.port = port
        self.client_port = port + CLIENT_PORT_OFFSET
        self.directory = directory
        self.config_path = directory / "clio.yaml"
        self.log_path = directory / "runtime.log"
        self.store = directory / "store"
        self.environment = dict(environment)
        self._command = command
        self._state = state
        self._timer_slack_us = timer_slack_us
        self._interrupt = interrupt
        self._child: ChildProcess | None = None
        self._outsider: psutil.Process | None = None

    def __repr__(self) -> str:
        return f"LocalNode({self.index}, {self.host}:{self.port}, pid={self.pid})"

    @property
    def pid(self) -> int | None:
        """Process id while the runtime runs (also paused), else None."""
        process = self._process()
        return None if process is None else process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process() is not None

    @property
    def is_paused(self) -> bool:
        """Whether the process is stopped by a signal."""
        process = self._process()
        with contextlib.suppress(psutil.NoSuchProcess):
            return process is not None and process.status() == psutil.STATUS_STOPPED
        return False

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it to answer. No effect on a running node."""
        if self.is_running:
            return
        if self._child is not None:
            self._child.end()
        for offset in PORT_OFFSETS:
            require_free(self.port + offset, f"node {self.index}", "base port")
        for name in DATA_DIRECTORIES:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        with timer_slack(self._timer_slack_us):
            self._child = ChildProcess(
                f"runtime node {self.index}",
                self._command,
                log_path=self.log_path,
                append=True,
                environment=self.environment,
                directory=self.directory,
                state=self._state,
            )

    def wait_ready(self, timeout: float = START_TIMEOUT, *, composed: bool = True) -> None:
        """Wait until the runtime answers on its client port and has composed its modules.

        Composing takes a second, but about 73 s while a peer is dead or paused (the replication
        module asks every peer); until then the runtime answers and lists only some of its pools.
        `composed=False` does not wait for that; nor is it known of a runtime that somebody else has
        started, with a log of its own. Raises ProcessFailedError when the runtime ends first, or after
        `timeout` seconds, InterruptedStartError when the cluster's `interrupt` is set.
        """
        child = self._child
        if child is not None and (child.is_running or not self.is_running):
            child.wait_ready(lambda: self._missing(child if composed else None), timeout, self._interrupt)
        elif not self.is_running:
            raise ProcessFailedError(f"node {self.index} is not started")
        elif not processes.wait_for(lambda: self._missing(None) is None, timeout):
            raise ProcessFailedError(f"node {self.index} is not ready after {timeout:.0f} s")

    def pause(self) -> None:
        """SIGSTOP: the sockets stay open, nothing is answered. Returns once the process has stopped."""
        self._signal(signal.SIGSTOP, paused=True)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT, paused=False)

    def kill(self) -> None:
        """SIGKILL and reap. No effect on a node that does not run."""
        for process in self._all():
            processes.kill(process)
        self._reap()

    def terminate(self, timeout: float = STOP_TIMEOUT) -> None:
        """SIGTERM; SIGKILL what still runs `timeout` seconds later. Resumes a paused node first."""
        self.request_stop()
        self.await_stop(time.monotonic() + timeout)

    def request_stop(self) -> None:
        """The first half of `terminate`: ask, do not wait."""
        for process in self._all():
            processes.ask_to_end(process)

    def await_stop(self, deadline: float) -> None:
        """The second half: wait until `deadline` (time.monotonic), then SIGKILL; reap."""
        for process in self._all():
            if not processes.await_end(process, deadline - time.monotonic()):
                processes.kill(process)
        self._reap()

    def restart(self, timeout: float = START_TIMEOUT, *, composed: bool = True) -> None:
        """Stop the node if it runs, start it and wait until it is ready (see `wait_ready`)."""
        self.terminate()
        self.start()
        self.wait_ready(timeout, composed=composed)

    def _process(self) -> psutil.Process | None:
        """The runtime as it runs now."""
        child, outsider = self._child, self._outsider
        if child is not None and child.is_running:
            return child.process
        if outsider is None or not processes.is_alive(outsider):
            program = Path(self._command[0]).name
            outsider = next((found for found in self._started() if _executable(found) == program), None)
            self._outsider = outsider
        return outsider

    def _started(self) -> list[psutil.Process]:
        """Processes, whoever started them, that are this node's runtime or are about to start it.

        Its clients have the same environment, but not the word `start` on their command line.
        """
        found = []
        for process in processes.with_environment(_CONFIG_VARIABLE, self.environment[_CONFIG_VARIABLE]):
            with contextlib.suppress(psutil.Error):
                if not _START_WORDS.isdisjoint(process.cmdline()):
                    found.append(process)
        return found

    def _all(self) -> list[psutil.Process]:
        child = self._child
        own = [] if child is None or not child.is_running else [child.process]
        return [*own, *(process for process in self._started() if process not in own)]

    def _missing(self, composing: ChildProcess | None) -> str | None:
        """What the node lacks to be ready, None when it lacks nothing."""
        if not greets("127.0.0.1", self.client_port):
            return f"no ZMTP greeting on client port {self.client_port}"
        if composing is not None and _COMPOSED.search(composing.log()) is None:
            return "its modules are still being composed (are all its peers up?)"
        return None

    def _signal(self, number: signal.Signals, *, paused: bool) -> None:
        process = self._process()
        if process is None:
            raise DemoError(f"node {self.index} does not run: start it first")
        processes.send(process, number)
        settled = processes.wait_for(
            lambda: self.is_paused == paused or not processes.is_alive(process), seconds=5
        )
        if not processes.is_alive(process):
            raise ProcessFailedError(f"node {self.index} ended")
        if not settled:
            raise ProcessFailedError(f"node {self.index} did not {'stop' if paused else 'continue'} in 5 s")

    def _reap(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


def _executable(process: psutil.Process) -> str:
    """Name of the program that a process runs; empty when it has ended."""
    try:
        return Path(process.exe()).name
    except psutil.Error:
        return ""


def greets(host: str, port: int, timeout: float = 0.25) -> bool:
    """Whether a ZeroMQ peer greets on `host`:`port`, an IPv4 address, within `timeout` seconds.

    The greeting comes from the library's I/O thread, so this proves a listening, running process.
    """
    try:
        asyncio.run(asyncio.wait_for(Greeting(host, port).wait(), timeout))
    except (RuntimeClientError, asyncio.TimeoutError):
        return False
    return True


@contextmanager
def timer_slack(microseconds: int | None) -> Iterator[None]:
    """Let processes started inside inherit this timer slack (prctl(2), of the calling thread)."""
    if microseconds is None:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    libc.prctl(_PR_SET_TIMERSLACK, microseconds * 1000, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_TIMERSLACK, before, 0, 0, 0)
