"""A cluster of real runtimes on loopback, driven node by node.

    with LocalCluster(Path(".demo"), 4, install=RuntimeInstall.current()) as cluster:
        cluster.nodes[2].kill()
        cluster.nodes[2].restart()

Each node has its own directory (`n0`, `n1`, ...: home, configuration, store, log), its own ports
(`base_port + index * port_step`, the client port 3 above) and, where the system allows it, its own
loopback address. `stop` (or leaving the `with` block) ends everything and removes all that is
outside the directory, and the data files inside it; configuration and logs stay.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from exporter.demo import addresses as loopback
from exporter.demo.errors import DemoError, InterruptedStartError, NodeFailedError
from exporter.demo.install import RuntimeInstall
from exporter.demo.ports import (
    CLIENT_PORT_OFFSET,
    PORT_OFFSETS,
    PortReservation,
    busy_ports,
    holder,
    is_free,
)
from exporter.demo.runtime_config import Capacities, NodeSettings, render
from exporter.demo.state import State, stat_fields

Progress = Callable[[str], None]

START_TIMEOUT = 60.0
STOP_TIMEOUT = 3.0
TIMER_SLACK_US = 1000

_DATA_DIRECTORIES = ("home", "store", "conf")
_ANSI = re.compile(rb"\x1b\[[0-9;]*m")
_COMPOSED = re.compile(rb"Compose: All \d+ pools created")
_ZMTP_SIGNATURE_LENGTH = 10
_PR_SET_TIMERSLACK = 29
_PR_GET_TIMERSLACK = 30


class LocalNode:
    """One runtime of a `LocalCluster`. Methods are for one thread at a time."""

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
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __repr__(self) -> str:
        return f"LocalNode({self.index}, {self.host}:{self.port}, pid={self.pid})"

    @property
    def pid(self) -> int | None:
        """Process id while the runtime runs (also paused), else None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self.pid is not None

    @property
    def is_paused(self) -> bool:
        """Whether the process is stopped by a signal."""
        pid = self.pid
        fields = None if pid is None else stat_fields(pid)
        return fields is not None and fields[0] in ("T", "t")

    def start(self) -> None:
        """Start the process; `wait_ready` waits for it to answer. No effect on a running node."""
        if self.is_running:
            return
        self._check_ports()
        for name in _DATA_DIRECTORIES:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log, timer_slack(self._timer_slack_us):
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for us; we stop the nodes in order.
                start_new_session=True,
            )
        self._state.add_process(self._process.pid, f"runtime node {self.index}")

    def wait_ready(self, timeout: float = START_TIMEOUT, *, composed: bool = True) -> None:
        """Wait until the runtime answers on its client port and has composed its modules.

        Composing takes a second, but about 73 s while a peer is dead or paused (the replication
        module asks every peer); until then the runtime answers and lists only some of its pools.
        `composed=False` does not wait for that. Raises NodeFailedError when the runtime ends first,
        or after `timeout` seconds, InterruptedStartError when the cluster's `interrupt` is set.
        """
        process = self._process
        if process is None:
            raise NodeFailedError(f"node {self.index} is not started")
        deadline = time.monotonic() + timeout
        while True:
            if process.poll() is not None:
                raise NodeFailedError(self._ended(process.returncode))
            missing = self._missing(composed)
            if missing is None:
                return
            if self._interrupt.is_set():
                raise InterruptedStartError(f"stopped while node {self.index} was starting")
            if time.monotonic() >= deadline:
                raise NodeFailedError(
                    f"node {self.index} ({self.host}:{self.port}) is not ready after {timeout:.0f} s: "
                    f"{missing}; see {self.log_path}, last lines:\n{self.log_tail()}"
                )
            try:
                process.wait(0.05)  # its end is what ends the waiting early
            except subprocess.TimeoutExpired:
                continue

    def pause(self) -> None:
        """SIGSTOP: the sockets stay open, nothing is answered. Returns once the process has stopped."""
        self._signal(signal.SIGSTOP)
        self._await_state(paused=True)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)
        self._await_state(paused=False)

    def kill(self) -> None:
        """SIGKILL and reap. No effect on a node that does not run."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait(10)
        self._ended_for_good(process)

    def terminate(self, timeout: float = STOP_TIMEOUT) -> None:
        """SIGTERM; SIGKILL what still runs `timeout` seconds later. Resumes a paused node first."""
        self.request_stop()
        self.await_stop(time.monotonic() + timeout)

    def request_stop(self) -> None:
        """The first half of `terminate`: ask, do not wait."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()

    def await_stop(self, deadline: float) -> None:
        """The second half: wait until `deadline` (time.monotonic), then SIGKILL; reap."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        self._ended_for_good(process)

    def restart(self, timeout: float = START_TIMEOUT, *, composed: bool = True) -> None:
        """Stop the node if it runs, start it and wait until it is ready (see `wait_ready`)."""
        self.terminate()
        self.start()
        self.wait_ready(timeout, composed=composed)

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of this start's log, without colours."""
        text = self._log().decode("utf-8", "replace")
        return "\n".join(line[:300] for line in text.replace("\0", "").splitlines()[-lines:])

    def _check_ports(self) -> None:
        for offset in PORT_OFFSETS:
            if not is_free(self.port + offset):
                by = holder(self.port + offset)
                raise DemoError(
                    f"port {self.port + offset}, which node {self.index} needs, is in use"
                    f"{f' by {by}' if by else ''}: stop that, or choose another base port"
                )

    def _missing(self, composed: bool) -> str | None:
        """What the node lacks to be ready, None when it lacks nothing."""
        if not greets("127.0.0.1", self.client_port):
            return f"no ZMTP greeting on client port {self.client_port}"
        if composed and _COMPOSED.search(self._log()) is None:
            return "its modules are still being composed (are all its peers up?)"
        return None

    def _log(self) -> bytes:
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                return _ANSI.sub(b"", log.read(1 << 22))
        except FileNotFoundError:
            return b""

    def _ended(self, returncode: int) -> str:
        how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
        return (
            f"node {self.index} ({self.host}:{self.port}) ended while starting ({how}); "
            f"see {self.log_path}, last lines:\n{self.log_tail()}"
        )

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            raise DemoError(f"node {self.index} does not run: start it first")
        process.send_signal(number)

    def _await_state(self, *, paused: bool) -> None:
        deadline = time.monotonic() + 5
        while self.is_paused != paused:
            process = self._process
            if process is None or process.poll() is not None:
                raise NodeFailedError(f"node {self.index} ended")
            if time.monotonic() > deadline:
                raise NodeFailedError(f"node {self.index} did not {'stop' if paused else 'continue'} in 5 s")
            try:
                process.wait(0.005)
            except subprocess.TimeoutExpired:
                continue

    def _ended_for_good(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        self._state.remove_process(process.pid)


class LocalCluster:
    """`nodes` runtimes of one installed version, ports from `base_port` on.

    Versions before 2.3 cannot share a host: they run as a cluster of one, without a hostfile.
    Setting `interrupt` (from a signal handler, another thread) ends a `start` or `wait_ready` early.
    `timer_slack_us` coarsens the timed waits of the runtimes (PR_SET_TIMERSLACK): an idle 2.3.2
    polls every 25 and 100 microseconds, which costs 21 % of a core per node with the kernel's
    default of 50 and 3 % with 1000; None leaves the default.
    `start` and `stop` may be called again in turn. Not thread-safe, apart from `stop`.
    """

    def __init__(
        self,
        root: Path,
        nodes: int,
        *,
        install: RuntimeInstall,
        base_port: int = 9413,
        port_step: int = 10,
        num_threads: int = 2,
        neighborhood: int = 1,
        capacities: Capacities = Capacities(),  # noqa: B008 - frozen
        timer_slack_us: int | None = TIMER_SLACK_US,
        state: State | None = None,
        environment: Mapping[str, str] | None = None,
        interrupt: threading.Event | None = None,
    ) -> None:
        if nodes < 1:
            raise DemoError(f"a cluster has at least one node, not {nodes}")
        if nodes > 1 and not install.multi_node:
            raise DemoError(
                f"iowarp-core {install.version} cannot run {nodes} nodes on one host: "
                "use 2.3 or newer, or one node"
            )
        if port_step <= max(PORT_OFFSETS):
            raise DemoError(f"ports of neighbouring nodes overlap: port_step {port_step} must be over 3")
        self.root = root.absolute()
        self.size = nodes
        self.install = install
        self.base_port = base_port
        self.port_step = port_step
        self.num_threads = num_threads
        self.neighborhood = neighborhood
        self.capacities = capacities
        self.hostfile: Path | None = self.root / "hostfile" if install.multi_node else None
        self.nodes: list[LocalNode] = []
        # Names all that the runtimes put outside their directories (memfd links, pid files, sockets).
        self.user = f"clio-exporter-{os.getuid()}-{base_port}"
        family = "clio" if install.release >= (2, 2) else "chimaera"
        self.runtime_dir = Path("/tmp") / f"{family}_{self.user}"  # noqa: S108 - the runtime's own choice
        self.timer_slack_us = timer_slack_us
        self._interrupt = interrupt if interrupt is not None else threading.Event()
        self._extra_environment = dict(environment or {})
        self._state = state if state is not None else State(self.root / "state.json")
        self._reservation: PortReservation | None = None
        self._made: list[Path] = []
        self._added: tuple[str, ...] = ()
        self._stopping = threading.RLock()

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, progress: Progress | None = None, *, timeout: float = START_TIMEOUT) -> None:
        """Write the files, start all nodes at once and wait until each is ready.

        Raises DemoError (a port in use, a node that ends or is late), after stopping everything.
        """
        say = progress if progress is not None else _silent
        try:
            self._prepare(say)
            for node in self.nodes:
                node.start()
            deadline = time.monotonic() + timeout
            for node in self.nodes:
                node.wait_ready(max(1.0, deadline - time.monotonic()))
                say(f"node {node.index} is up: {node.host}, port {node.port}, pid {node.pid}")
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End every node and remove what the cluster made outside its directory, and its data files.

        Nodes get SIGTERM together and `timeout` seconds, then SIGKILL (a runtime whose peers are
        gone may take its grace period of 5 s). May be called at any time and again.
        """
        with self._stopping:
            for node in self.nodes:
                node.request_stop()
            deadline = time.monotonic() + timeout
            for node in self.nodes:
                node.await_stop(deadline)
            if self._reservation is None:
                return
            for path in self._made:
                shutil.rmtree(path, ignore_errors=True)
            if self._added:
                loopback.remove(self._added)
                self._state.addresses = [a for a in self._state.addresses if a not in self._added]
                self._added = ()
            made = {str(path) for path in self._made}
            self._state.directories = [path for path in self._state.directories if path not in made]
            self._state.save()
            self._made = []
            self._reservation.release()
            self._reservation = None

    def _prepare(self, say: Progress) -> None:
        self._reservation = PortReservation(self.base_port)
        busy = busy_ports(self.base_port, self.size, self.port_step)
        if busy:
            by = holder(busy[0])
            raise DemoError(
                f"port {busy[0]}, which the cluster needs, is in use{f' by {by}' if by else ''}: "
                "stop that, or choose another base port"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        self._made = [self.runtime_dir]
        for index in range(self.size):
            self._made += [self.root / f"n{index}" / name for name in _DATA_DIRECTORIES]
        self._state.directories += [str(path) for path in self._made]
        self._state.save()
        # Nothing of ours can be alive on free ports, so what is there is left from a killed run.
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True)
        hosts = self._hosts(say)
        self.nodes = [self._make_node(index, host) for index, host in enumerate(hosts)]
        if self.hostfile is not None:
            self.hostfile.write_text("".join(f"{node.host}:{node.port}\n" for node in self.nodes))

    def _hosts(self, say: Progress) -> list[str]:
        if self.hostfile is None:
            return [loopback.FALLBACK]
        hosts = [loopback.cluster_address(self.base_port, index) for index in range(self.size)]
        missing = [host for host in hosts if host not in loopback.configured()]
        # Written down before they exist: after a crash in between, removing one too many is harmless.
        self._state.addresses += missing
        self._state.save()
        try:
            self._added = loopback.add(missing)
        except PermissionError:
            self._state.addresses = [a for a in self._state.addresses if a not in missing]
            self._state.save()
            say(f"no privilege for loopback addresses per node: all use {loopback.FALLBACK}, ports differ")
            return [loopback.FALLBACK] * self.size
        return hosts

    def _make_node(self, index: int, host: str) -> LocalNode:
        directory = self.root / f"n{index}"
        directory.mkdir(parents=True, exist_ok=True)
        port = self.base_port + index * self.port_step
        settings = NodeSettings(
            port=port,
            store=directory / "store",
            conf_dir=directory / "conf",
            namespace=f"n{index}",
            hostfile=self.hostfile,
            num_threads=self.num_threads,
            neighborhood=self.neighborhood,
            capacities=self.capacities,
        )
        node = LocalNode(
            index=index,
            host=host,
            port=port,
            directory=directory,
            command=self.install.start_command,
            environment=self._environment(settings, directory),
            state=self._state,
            timer_slack_us=self.timer_slack_us,
            interrupt=self._interrupt,
        )
        node.config_path.write_text(render(settings, self.install.release), encoding="utf-8")
        node.log_path.unlink(missing_ok=True)
        return node

    def _environment(self, settings: NodeSettings, directory: Path) -> dict[str, str]:
        """What a process of this node sees: nothing of ours but PATH, so that nothing leaks in."""
        config = str(directory / "clio.yaml")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory / "home"),
            "USER": self.user,
            "CLIO_SERVER_CONF": config,
            "CHI_SERVER_CONF": config,
            "CLIO_STORAGE_ROOT": str(settings.store),
            "CLIO_PORT": str(settings.port),
            "CLIO_IPC_NAMESPACE": settings.namespace,
            **self._state.mark,
            **self._extra_environment,
        }


def greets(host: str, port: int, timeout: float = 0.25) -> bool:
    """Whether a ZeroMQ peer answers on `host`:`port`: it sends the ZMTP signature, ff ... 7f.

    The signature comes from the library's I/O thread, so this proves a listening, running process.
    """
    signature = b""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            while len(signature) < _ZMTP_SIGNATURE_LENGTH:
                part = connection.recv(_ZMTP_SIGNATURE_LENGTH - len(signature))
                if not part:
                    return False
                signature += part
    except OSError:
        return False
    return signature[0] == 0xFF and signature[9] == 0x7F


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


def _silent(_line: str) -> None:
    return
