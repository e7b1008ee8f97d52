"""Traffic on the demo's cluster."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from clio_lab.demo.cluster import LocalCluster, Progress
from clio_lab.demo.errors import DemoError
from clio_lab.demo.node import LocalNode, timer_slack
from clio_lab.demo.state import State
from clio_lab.traffic import BLOB_SIZE, BURST_SECONDS, INTERVAL_SECONDS, Client, LoadGenerator, Target


class Traffic:
    """Load on every running node of a cluster, from `start` to `stop`."""

    name = "traffic"
    where: str | None = None
    command: str | None = None

    def __init__(
        self,
        cluster: LocalCluster,
        state: State,
        *,
        burst: float = BURST_SECONDS,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._state = state
        self._generator = LoadGenerator(burst=burst, interval=interval, new_client=self._new_client)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, progress: Progress) -> None:
        """Check the program and begin; clients connect one after the other, in the background.

        Raises DemoError when the wheel has no benchmark program.
        """
        program = self._cluster.install.bench
        if not program.is_file():
            raise DemoError(f"{program} is missing: reinstall iowarp-core, or run without traffic")
        self._stop.clear()
        targets = [_target(node) for node in self._cluster.nodes]
        self._thread = threading.Thread(
            target=self._generator.run, args=(targets, str(program), self._stop), name="traffic", daemon=True
        )
        self._thread.start()
        progress(f"traffic: {BLOB_SIZE} blobs written and read on each node in turn")

    def stop(self) -> None:
        """End the thread and every client process; may be called more than once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def health(self) -> str | None:
        """Return what is wrong, None when all is well."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            return "the traffic generator ended"
        return self._generator.failure

    @property
    def client_pids(self) -> list[int]:
        """Process ids of the clients that run now, for measuring their cost."""
        return self._generator.client_pids

    def _new_client(self, target: Target, program: str, life: Hashable) -> Client:
        with timer_slack(self._cluster.timer_slack_us):
            return _RecordedClient(target, program, life, self._state)


class _RecordedClient(Client):
    """A client that is written down while it runs."""

    def __init__(self, target: Target, program: str, life: Hashable, state: State) -> None:
        super().__init__(target, program, life)
        self._state = state
        state.add_process(self.process.pid, f"traffic on node {target.name}")

    def close(self) -> None:
        super().close()
        self._state.remove_process(self.process.pid)


def _target(node: LocalNode) -> Target:
    return Target(
        name=str(node.index),
        environment=node.environment,
        directory=node.directory,
        life=lambda: node.pid,
        is_ready=lambda: not node.is_paused,
    )
