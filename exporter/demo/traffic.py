"""A gentle, endless load: blobs written and read back on every node, at little CPU.

The wheel's own `clio_cte_bench` is the client, one long-lived process per node, because a runtime
keeps a connection for every client process it ever had (up to 512). Left alone it runs flat out,
so it is held stopped (SIGSTOP) and let run for a short burst now and then, node after node: the
cost is that of one burst per interval, whatever the number of nodes. Blobs are overwritten in
place once `blobs` of them exist, so storage does not fill up.

Bytes that land on a RAM tier go through shared memory: the runtime shows them in the tier's free
space, not in its read and write counters. The file tier counts.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

from exporter.demo.cluster import LocalCluster, LocalNode, Progress, timer_slack
from exporter.demo.errors import DemoError
from exporter.demo.state import State

BURST_SECONDS = 0.1
INTERVAL_SECONDS = 1.0
BLOBS_PER_NODE = 400
BLOB_SIZE = "64k"

_READY_LINE = b"CTE Core Benchmark"
_READY_TIMEOUT = 20.0
_RETRY_SECONDS = 10.0


class _Client:
    """One benchmark process, for one life of one node."""

    def __init__(self, node: LocalNode, program: Path, state: State, slack_us: int | None) -> None:
        self.node_pid = node.pid
        self.log_path = node.directory / "traffic.log"
        command = [str(program), "--op", "PutGet", "--threads", "1", "--depth", "1"]
        # The operation count is out of reach (months), not the largest number: from 2e9 on it does nothing.
        command += ["--io-size", BLOB_SIZE, "--io-count", "100000000"]
        command += ["--max-total-blobs", str(BLOBS_PER_NODE), "--query-type", "local"]
        with self.log_path.open("wb") as log, timer_slack(slack_us):
            self.process = subprocess.Popen(
                command,
                # It names the tag, by default after the host: nodes that put blobs of one name at the same
                # time wait for each other for ever, in one start of twelve.
                env={**node.environment, "CLIO_WAIT_SERVER": "10", "NODE_ID": str(node.index)},
                cwd=node.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._state = state
        state.add_process(self.process.pid, f"traffic on node {node.index}")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def connected(self) -> bool:
        """Whether it has connected to its runtime and begun."""
        return _READY_LINE in self.log_path.read_bytes()

    def hold(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._state.remove_process(self.process.pid)


class Traffic:
    """Load on every running node of a cluster, from `start` to `stop`.

    Nodes that are paused, killed or restarted meanwhile are left out and taken up again.
    """

    name = "traffic"
    where: str | None = None

    def __init__(
        self,
        cluster: LocalCluster,
        state: State,
        *,
        burst: float = BURST_SECONDS,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        if not 0 < burst <= interval:
            raise ValueError(f"a burst of {burst} s does not fit an interval of {interval} s")
        self._cluster = cluster
        self._state = state
        self._burst = burst
        self._interval = interval
        self._clients: dict[int, _Client] = {}
        self._retry_at: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def start(self, progress: Progress) -> None:
        """Check the program and begin; clients connect one after the other, in the background.

        Raises DemoError when the wheel has no benchmark program.
        """
        program = self._cluster.install.bench
        if not program.is_file():
            raise DemoError(f"{program} is missing: reinstall iowarp-core, or run without traffic")
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="demo-traffic", daemon=True)
        self._thread.start()
        progress(f"traffic: {BLOB_SIZE} blobs written and read on each node in turn")

    def stop(self) -> None:
        """End the thread and every client process; may be called more than once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None
        for index in list(self._clients):
            self._drop(index)

    def health(self) -> str | None:
        """Return what is wrong, None when all is well."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            return "the traffic generator ended"
        return self._failure

    @property
    def client_pids(self) -> list[int]:
        """Process ids of the clients that run now, for measuring their cost."""
        return [client.process.pid for client in list(self._clients.values())]

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            for node in self._cluster.nodes:
                if self._stop.is_set():
                    return
                self._turn(node)
            if time.monotonic() - began < self._interval:  # no node took its turn
                self._stop.wait(self._interval)

    def _turn(self, node: LocalNode) -> None:
        """One burst on `node`, or a step towards having a client there."""
        client = self._clients.get(node.index)
        if client is not None and (client.ended or client.node_pid != node.pid):
            self._drop(node.index)
            client = None
        if not node.is_running or node.is_paused:
            return
        if client is None:
            self._connect(node)
            return
        client.release()
        self._stop.wait(self._burst)
        client.hold()
        self._stop.wait(self._interval - self._burst)

    def _connect(self, node: LocalNode) -> None:
        now = time.monotonic()
        if now < self._retry_at.get(node.index, 0.0):
            return
        self._retry_at[node.index] = now + _RETRY_SECONDS
        client = _Client(node, self._cluster.install.bench, self._state, self._cluster.timer_slack_us)
        self._clients[node.index] = client
        while not self._stop.wait(0.1):
            if client.ended or time.monotonic() - now > _READY_TIMEOUT:
                self._failure = f"node {node.index} gets no traffic: see {client.log_path}"
                self._drop(node.index)
                return
            if client.connected():
                client.hold()
                self._failure = None
                return

    def _drop(self, index: int) -> None:
        self._clients.pop(index).close()
