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

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from clio_client.address import DEFAULT_PORT, PORT_OFFSETS
from clio_lab.demo import addresses as loopback
from clio_lab.demo.errors import DemoError
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import DATA_DIRECTORIES, START_TIMEOUT, STOP_TIMEOUT, LocalNode
from clio_lab.demo.ports import PortReservation, cluster_ports, require_free
from clio_lab.demo.runtime_config import Capacities, NodeSettings, render
from clio_lab.demo.state import State

Progress = Callable[[str], None]

TIMER_SLACK_US = 5000


class LocalCluster:
    """`nodes` runtimes of one installed version, ports from `base_port` on.

    Versions before 2.3 cannot share a host: they run as a cluster of one, without a hostfile.
    Setting `interrupt` (from a signal handler, another thread) ends a `start` or `wait_ready` early.
    `timer_slack_us` coarsens the timed waits of the runtimes (PR_SET_TIMERSLACK): an idle 2.3.2
    polls every 25 and 100 microseconds, which costs 21 % of a core per node with the kernel's
    default of 50, 4 % with 1000 and 2 % with 5000; None leaves the default.
    `start` and `stop` may be called again in turn. Not thread-safe, apart from `stop`.
    """

    def __init__(
        self,
        root: Path,
        nodes: int,
        *,
        install: RuntimeInstall,
        base_port: int = DEFAULT_PORT,
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
            self._state.forget(addresses=self._added, directories=map(str, self._made))
            self._added = ()
            self._made = []
            self._reservation.release()
            self._reservation = None

    def _prepare(self, say: Progress) -> None:
        self._reservation = PortReservation(self.base_port)
        for port in cluster_ports(self.base_port, self.size, self.port_step):
            require_free(port, "the cluster", "base port")
        self.root.mkdir(parents=True, exist_ok=True)
        self._made = [self.runtime_dir]
        for index in range(self.size):
            self._made += [self.root / f"n{index}" / name for name in DATA_DIRECTORIES]
        self._state.remember(directories=map(str, self._made))
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
        # The base port is ours, so whoever added them for it before is dead.
        left_behind = loopback.added_by_us().intersection(hosts)
        missing = [host for host in hosts if host in left_behind or host not in loopback.configured()]
        self._state.remember(addresses=missing)
        try:
            loopback.remove(left_behind)
            self._added = loopback.add(missing)
        except PermissionError:
            self._state.forget(addresses=missing)
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
            environment={
                **node_environment(settings, directory, self.user, self._state),
                **self._extra_environment,
            },
            state=self._state,
            timer_slack_us=self.timer_slack_us,
            interrupt=self._interrupt,
        )
        node.config_path.write_text(render(settings, self.install.release), encoding="utf-8")
        node.log_path.unlink(missing_ok=True)
        return node


def node_environment(settings: NodeSettings, directory: Path, user: str, state: State) -> dict[str, str]:
    """What a process of a node sees: nothing of ours but PATH, so that nothing leaks in.

    `directory` is the node's; `user` names what its runtime puts elsewhere.
    """
    config = str(directory / "clio.yaml")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory / "home"),
        "USER": user,
        "CLIO_SERVER_CONF": config,
        "CHI_SERVER_CONF": config,
        "CLIO_STORAGE_ROOT": str(settings.store),
        "CLIO_PORT": str(settings.port),
        "CLIO_IPC_NAMESPACE": settings.namespace,
        **state.mark,
    }


def _silent(_line: str) -> None:
    return
