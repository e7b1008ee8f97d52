"""The simulator as a child process, for tests and measurements."""

from __future__ import annotations

import json
import queue
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from clio_lab.child import ChildProcess

_STOP_SECONDS = 10.0


class SimulatorProcess:
    """A running simulator with a control channel. Use it as a context manager.

    ``options`` are those of ``clio-exporter simulate`` (``"--nodes", "8"`` ...). All waits end after
    ``timeout`` seconds with :class:`TimeoutError`; a simulator that has died raises :class:`RuntimeError`
    with what it wrote to standard error.
    """

    def __init__(self, *options: str, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._next_id = 0
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._errors = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by stop()
        self._child = ChildProcess(
            "simulator",
            [sys.executable, "-m", "clio_lab.simulator", "--control", *options],
            log_path=Path(self._errors.name),
            pipes=True,
        )
        self._reader = threading.Thread(target=self._read, name="simulator-stdout", daemon=True)
        self._reader.start()
        self.returncode: int | None = None
        """Exit code, once stopped."""
        try:
            self.ready: dict[str, Any] = self._receive()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id of the simulator."""
        return self._child.pid

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def set_fault(self, nodes: int | Iterable[int], fault: str) -> None:
        """Give nodes a fault, in the form of the command line (``"slow:1.5"``); returns when it works."""
        self.order("set_fault", **_nodes(nodes), fault=fault)

    def clear(self, nodes: int | Iterable[int] | None = None) -> None:
        """Take back all faults of nodes (of all nodes by default)."""
        self.order("clear", **_nodes(nodes))

    def restart_node(self, nodes: int | Iterable[int], seconds: float = 0.0) -> None:
        """Restart nodes: away for ``seconds``, then another pid and start time, counters from 0."""
        self.order("restart", **_nodes(nodes), seconds=seconds)

    def describe(self, node: int) -> dict[str, Any]:
        """What a node is and has seen: pid, start time, pools, faults, requests, violations ..."""
        described: dict[str, Any] = self.order("describe", node=node)["nodes"][0]
        return described

    def stats(self) -> dict[str, Any]:
        """Requests, answers, ``violations`` by name, CPU seconds and RSS of the whole simulation."""
        return self.order("stats")

    def reset_stats(self) -> None:
        """Set the counts of requests, answers and violations to 0."""
        self.order("reset_stats")

    def order(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send one order and wait for its answer; :class:`ValueError` when the simulator refuses it."""
        self._next_id += 1
        if not self._child.is_running:
            raise RuntimeError(self._epitaph())
        try:
            self._child.stdin.write(json.dumps({"id": self._next_id, "do": do, **fields}).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise RuntimeError(self._epitaph()) from error
        while True:
            answer = self._receive()
            if answer.get("id") == self._next_id:
                break
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def stop(self) -> None:
        """End the simulator (SIGTERM, after 10 s SIGKILL) and wait for it. Safe to call twice."""
        self.returncode = self._child.end(_STOP_SECONDS)
        self._reader.join(_STOP_SECONDS)
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            stream.close()

    def _read(self) -> None:
        for line in self._child.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"the simulator said nothing for {self._timeout} s") from None
        if line is None:
            self._child.wait(_STOP_SECONDS)
            raise RuntimeError(self._epitaph())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _epitaph(self) -> str:
        return f"the simulator ended with code {self._child.returncode}: {self._child.log_tail(20)}"


def _nodes(nodes: int | Iterable[int] | None) -> dict[str, Any]:
    if nodes is None:
        return {}
    if isinstance(nodes, int):
        return {"node": nodes}
    return {"nodes": list(nodes)}
