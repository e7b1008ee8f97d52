#!/usr/bin/env python3
"""A gentle, endless load: blobs written and read back on every node in turn, at little CPU.

The wheel's own `clio_cte_bench` is the client, one long-lived process per node, because a runtime
keeps a connection for every client process it ever had (up to 512). Left alone it runs flat out,
so it is held stopped (SIGSTOP) and let run for a short burst now and then, node after node: the
cost is that of one burst per interval, whatever the number of nodes. Blobs are overwritten in
place once there are `BLOBS_PER_NODE` of them, so storage does not fill up.

Bytes that land on a RAM tier go through shared memory: the runtime shows them in the tier's free
space, not in its read and write counters. The file tier counts.

As a program it loads the nodes of a hostfile over TCP until SIGTERM. Environment: CLIO_HOSTFILE
(/etc/clio/hostfile), CLIO_BURST_SECONDS (0.1), CLIO_INTERVAL_SECONDS (1), CLIO_TRAFFIC_DIR for the
clients' logs (/tmp/clio-traffic). It is one file that needs
the standard library only: the image of a cluster node has nothing else of this project.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

BURST_SECONDS = 0.1
INTERVAL_SECONDS = 1.0
BLOBS_PER_NODE = 400
BLOB_SIZE = "64k"

_READY_LINE = b"CTE Core Benchmark"
_READY_SECONDS = 30.0
_RETRY_SECONDS = 10.0
_PORT = 9413
_CLIENT_PORT_OFFSET = 3


@dataclass(frozen=True)
class Target:
    """A node to load.

    Attributes:
        name: names the blobs too. Nodes that put blobs of one name at the same time wait for each other
            for ever, in one start of twelve.
        environment: what leads a client to the node.
        directory: where the client runs; its log is `traffic-NAME.log` there.
        life: which life of the node this is (a new client for each), None while it is down.
        is_ready: whether a living node answers now; it is passed over while it does not.
    """

    name: str
    environment: Mapping[str, str]
    directory: Path
    life: Callable[[], Hashable | None]
    is_ready: Callable[[], bool] = lambda: True

    @property
    def log_path(self) -> Path:
        """Output of the client."""
        return self.directory / f"traffic-{self.name}.log"


class Client:
    """One benchmark process, for one life of one node."""

    def __init__(self, target: Target, program: str, life: Hashable) -> None:
        self.life = life
        self._log_path = target.log_path
        command = [program, "--op", "PutGet", "--threads", "1", "--depth", "1"]
        # The operation count is out of reach (months), not the largest number: from 2e9 on it does nothing.
        command += ["--io-size", BLOB_SIZE, "--io-count", "100000000"]
        command += ["--max-total-blobs", str(BLOBS_PER_NODE), "--query-type", "local"]
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**target.environment, "CLIO_WAIT_SERVER": "10", "NODE_ID": target.name},
                cwd=target.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def connected(self) -> bool:
        """Whether it has connected to its runtime and begun."""
        return _READY_LINE in self._log_path.read_bytes()

    def hold(self) -> None:
        """Let it wait."""
        self.process.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let it run."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(10)


class LoadGenerator:
    """Load on every target that is up, while `run` runs.

    Nodes that are paused, killed or restarted meanwhile are left out and taken up again.
    `new_client` is for what else belongs to a client's start; `say` gets a line for each event.
    """

    def __init__(
        self,
        *,
        burst: float = BURST_SECONDS,
        interval: float = INTERVAL_SECONDS,
        new_client: Callable[[Target, str, Hashable], Client] = Client,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        if not 0 < burst <= interval:
            raise ValueError(f"a burst of {burst} s does not fit an interval of {interval} s")
        self._burst = burst
        self._interval = interval
        self._new_client = new_client
        self._say = say
        self._clients: dict[str, Client] = {}
        self._retry_at: dict[str, float] = {}
        self.failure: str | None = None
        """Why some node gets no traffic, None while all is well."""

    @property
    def client_pids(self) -> list[int]:
        """Process ids of the clients that run now, for measuring their cost."""
        return [client.process.pid for client in list(self._clients.values())]

    def run(self, targets: Sequence[Target], program: str, stop: threading.Event) -> None:
        """Load the targets with `program` in turn until `stop` is set; leaves no client behind."""
        try:
            while not stop.is_set():
                began = time.monotonic()
                for target in targets:
                    if not stop.is_set():
                        self._turn(target, program, stop)
                if time.monotonic() - began < self._interval:  # no node took its turn
                    stop.wait(self._interval)
        finally:
            for name in list(self._clients):
                self._drop(name)

    def _turn(self, target: Target, program: str, stop: threading.Event) -> None:
        """One burst on `target`, or a step towards having a client there."""
        life = target.life()
        client = self._clients.get(target.name)
        # A client that lost its node retries for ever: it is of no more use.
        if client is not None and (client.ended or client.life != life):
            self._say(f"node {target.name} is gone or has been restarted")
            self._drop(target.name)
            client = None
        if life is None or not target.is_ready():
            return
        if client is None:
            self._connect(target, program, life, stop)
            return
        client.release()
        stop.wait(self._burst)
        client.hold()
        stop.wait(self._interval - self._burst)

    def _connect(self, target: Target, program: str, life: Hashable, stop: threading.Event) -> None:
        """Start a client and hold it once it has connected; end it when that takes too long."""
        now = time.monotonic()
        if now < self._retry_at.get(target.name, 0.0):
            return
        # A client that failed is remembered by the runtime: not too many of them.
        self._retry_at[target.name] = now + _RETRY_SECONDS
        client = self._clients[target.name] = self._new_client(target, program, life)
        while not stop.wait(0.1):
            if client.ended or time.monotonic() - now > _READY_SECONDS:
                self.failure = f"node {target.name} gets no traffic: see {target.log_path}"
                self._say(self.failure)
                self._drop(target.name)
                return
            if client.connected():
                client.hold()
                self.failure = None
                self._say(f"node {target.name} is connected")
                return

    def _drop(self, name: str) -> None:
        self._clients.pop(name).close()


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 1.0):
            return True
    except OSError:
        return False


def _targets(hostfile: Path, directory: Path) -> list[Target]:
    """The nodes of a hostfile of `host` and `host:port` lines, asked over TCP."""
    found = []
    for line in hostfile.read_text(encoding="utf-8").split():
        host, _, text = line.partition(":")
        port = int(text or _PORT)

        # Without its process, a node's life is as long as its port listens.
        def life(host: str = host, port: int = port) -> bool | None:
            return _listens(host, port + _CLIENT_PORT_OFFSET) or None

        environment = {"CLIO_IPC_MODE": "TCP", "CLIO_SERVER_ADDR": host, "CLIO_PORT": str(port)}
        found.append(Target(f"{host}-{port}", {**os.environ, **environment}, directory, life))
    return found


def _say(line: str) -> None:
    print(f"clio-traffic: {line}", flush=True)


def main() -> int:
    """Load the nodes of the hostfile until SIGTERM."""
    stop = threading.Event()
    came: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _: came.put(which))

    def watch() -> None:
        # Not in the handler: it may interrupt `stop.wait()` while that has the lock that `stop.set()` needs.
        came.get()
        stop.set()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    directory = Path(os.environ.get("CLIO_TRAFFIC_DIR") or "/tmp/clio-traffic")  # noqa: S108 - a container's own
    directory.mkdir(exist_ok=True)
    targets = _targets(Path(os.environ.get("CLIO_HOSTFILE") or "/etc/clio/hostfile"), directory)
    burst = float(os.environ.get("CLIO_BURST_SECONDS") or BURST_SECONDS)
    interval = max(burst, float(os.environ.get("CLIO_INTERVAL_SECONDS") or INTERVAL_SECONDS))
    _say(f"{BLOB_SIZE} blobs on {len(targets)} nodes in turn, {burst} s of every {interval} s")
    LoadGenerator(burst=burst, interval=interval, say=_say).run(targets, "clio_cte_bench", stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
