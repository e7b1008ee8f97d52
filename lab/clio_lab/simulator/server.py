"""The simulation: all nodes of a cluster in one process, and the channel that controls it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq

from clio_client.address import CLIENT_PORT_OFFSET, DEFAULT_PORT
from clio_lab.simulator import model
from clio_lab.simulator.answers import Answers, NodeState
from clio_lab.simulator.dialback import DialBacks
from clio_lab.simulator.faults import Fault, parse_fault
from clio_lab.simulator.model import RING
from clio_lab.simulator.node import Common, SimulatedNode
from clio_lab.simulator.recorded import load

SAME_ADDRESS_STEP = 10
"""Distance of base ports with ``same_address``."""

_FIRST_PID = 100_000
_DESCRIPTORS_PER_NODE = 4
"""A node that one client talks to: socket, listener, the client's connection, the connection back."""
_DESCRIPTORS_SPARE = 256


@dataclass
class SimulatorConfig:
    """What is simulated. ``age`` is how many seconds the nodes have been up at the start."""

    nodes: int = 4
    generation: str = "C"
    generations: dict[int, str] = field(default_factory=dict)
    workers: int = 8
    bdevs: int = 3
    arrays: int = 0
    rate: float = 1.0
    age: float = 0.0
    ring: int = RING
    address: str = "127.96.0.1"
    base_port: int = DEFAULT_PORT
    same_address: bool = False
    hostname_format: str = "{address}"
    hostfile: Path | None = None
    seed: int = 0
    heartbeat: float = 5.0
    io_threads: int = 1
    control: bool = False
    faults: list[tuple[range, Fault]] = field(default_factory=list)


class SimulatorError(RuntimeError):
    """The simulation cannot run; the message says what to change."""


def node_address(config: SimulatorConfig, index: int) -> tuple[str, int]:
    """``(address, base port)`` of a node."""
    if config.same_address:
        return config.address, config.base_port + SAME_ADDRESS_STEP * index
    return str(ipaddress.IPv4Address(config.address) + index), config.base_port


def raise_limits(nodes: int) -> None:
    """Raise the soft (as root also the hard) limit of open files to what ``nodes`` nodes need."""
    needed = nodes * _DESCRIPTORS_PER_NODE + _DESCRIPTORS_SPARE
    wanted = 2 * needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    for limits in ((wanted, wanted), (wanted, hard), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
        except (ValueError, OSError):
            continue  # above the hard limit without the right to raise it
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise SimulatorError(
            f"{nodes} nodes need {needed} open files, the limit is {hard}: "
            f"raise it (ulimit -Hn {needed}) or simulate fewer nodes"
        )


class Simulator:
    """N nodes on one event loop: ``start``, ``command``, ``stop``, or all by :func:`run_simulator`."""

    def __init__(self, config: SimulatorConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._started = time.monotonic()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=config.io_threads)
        self.nodes: list[SimulatedNode] = []
        self._common: Common | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind all ports, apply the faults of the start, write the hostfile.

        Raises :class:`SimulatorError` naming the address that cannot be bound or the limit that is too low.
        """
        config = self._config
        raise_limits(config.nodes)
        # Twice: a restarted node opens its socket while the old one is still being closed.
        self._context.set(zmq.MAX_SOCKETS, max(1024, 2 * config.nodes + 64))
        if config.age * 1e9 >= model.HEAD_START_NS:
            limit = model.HEAD_START_NS / 1e9
            raise SimulatorError(f"--age {config.age:g}: a simulated node cannot be older than {limit:.0f} s")
        started_ns = model.clock_ns() - int(config.age * 1e9)
        states = [self._state(index, started_ns) for index in range(config.nodes)]
        wall_offset_ns = time.time_ns() - model.clock_ns()
        generations = {config.generation, *config.generations.values()}
        recordings = {generation: load(generation) for generation in generations}
        answers = {
            generation: Answers(
                recording, states, config.bdevs, config.rate, config.ring, wall_offset_ns, config.arrays
            )
            for generation, recording in recordings.items()
        }
        self._common = Common(
            context=self._context,
            loop=self._loop,
            dial_backs=DialBacks(self._context, config.nodes),
            recordings=recordings,
            answers=answers,
            nodes=config.nodes,
            heartbeat_ms=int(config.heartbeat * 1000),
        )
        for state in states:
            port = node_address(config, state.index)[1] + CLIENT_PORT_OFFSET
            generation = config.generations.get(state.index, config.generation)
            node = SimulatedNode(self._common, state, generation, port, config.seed * 1_000_003 + state.index)
            self.nodes.append(node)
            try:
                node.open()
            except zmq.ZMQError as error:
                raise SimulatorError(
                    f"node {state.index}: cannot listen on {state.address}:{port}: {error}; "
                    "choose another --address or --base-port"
                ) from error
        for chosen, fault in config.faults:
            if fault.kind == "restarting":
                for index in chosen:
                    self._in_background(self.nodes[index].set_fault(fault))
            else:
                await asyncio.gather(*(self.nodes[index].set_fault(fault) for index in chosen))
        if config.hostfile is not None:
            config.hostfile.write_text("".join(f"{host}:{port}\n" for host, port in self.addresses()))

    def _state(self, index: int, started_ns: int) -> NodeState:
        address, _ = node_address(self._config, index)
        return NodeState(
            index=index,
            hostname=self._config.hostname_format.format(index=index, address=address),
            address=address,
            pid=_FIRST_PID + index,
            # Not two runtimes of a cluster start in the same nanosecond.
            started_ns=started_ns + index,
            workers=self._config.workers,
        )

    def addresses(self) -> list[tuple[str, int]]:
        """``(address, base port)`` of all nodes, the lines of a hostfile."""
        return [node_address(self._config, index) for index in range(self._config.nodes)]

    async def stop(self) -> None:
        """Close all sockets and forget what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self.nodes:
            await node.stop()
        if self._common is not None:
            self._common.dial_backs.close()
        self._context.destroy(linger=0)

    def _in_background(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stats(self) -> dict[str, Any]:
        """Requests, answers, violations and cost of the whole simulation."""
        violations: Counter[str] = Counter()
        offenders: dict[str, list[int]] = {}
        for node in self.nodes:
            violations.update(node.violations)
            for name in node.violations:
                offenders.setdefault(name, []).append(node.state.index)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        requests = self._common.requests if self._common else Counter()
        return {
            "nodes": len(self.nodes),
            "requests": sum(node.requests for node in self.nodes),
            "answers": sum(node.answers for node in self.nodes),
            "probes": sum(node.probes for node in self.nodes),
            "by_query": {name.decode("latin-1"): count for name, count in requests.items()},
            "violations": dict(violations),
            "violated_nodes": {name: indexes[:20] for name, indexes in offenders.items()},
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "rss_bytes": psutil.Process().memory_info().rss,
            "uptime_seconds": time.monotonic() - self._started,
        }

    async def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order of the control channel and return what it answers (without ``id``).

        ``do`` is ``set_fault`` (``node`` or ``nodes``, ``fault``), ``clear`` and ``describe`` (nodes, default
        all), ``restart`` (nodes, ``seconds``), ``stats`` or ``reset_stats``. Raises :class:`ValueError`.
        """
        what = order.get("do")
        if what == "stats":
            return self.stats()
        if what == "reset_stats":
            return self._reset_stats()
        chosen = self._chosen(order, everything=what in ("clear", "describe"))
        if what == "describe":
            return {"nodes": [node.describe() for node in chosen]}
        if what == "set_fault":
            fault = parse_fault(str(order.get("fault")))
            await asyncio.gather(*(node.set_fault(fault) for node in chosen))
        elif what == "clear":
            await asyncio.gather(*(node.clear() for node in chosen))
        elif what == "restart":
            seconds = float(order.get("seconds", 0.0))
            await asyncio.gather(*(node.restart(seconds) for node in chosen))
        else:
            raise ValueError(f"unknown order {what!r}")
        return {}

    def _chosen(self, order: dict[str, Any], everything: bool) -> Sequence[SimulatedNode]:
        indexes: Iterable[int]
        if "node" in order:
            indexes = [int(order["node"])]
        elif "nodes" in order:
            indexes = [int(index) for index in order["nodes"]]
        elif everything:
            return self.nodes
        else:
            raise ValueError("the order names no node")
        if any(not 0 <= index < len(self.nodes) for index in indexes):
            raise ValueError(f"there are nodes 0 to {len(self.nodes) - 1}")
        return [self.nodes[index] for index in indexes]

    def _reset_stats(self) -> dict[str, Any]:
        for node in self.nodes:
            node.violations.clear()
            node.requests = node.answers = node.probes = 0
        if self._common is not None:
            self._common.requests.clear()
        return {}


async def _control(simulator: Simulator, stopped: asyncio.Event, tasks: set[asyncio.Task[None]]) -> None:
    """Read orders, one JSON object a line, from standard input; its end stops the simulation."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        task = loop.create_task(_obey(simulator, line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    stopped.set()


async def _obey(simulator: Simulator, line: bytes) -> None:
    identifier: Any = None
    try:
        order = json.loads(line)
        if not isinstance(order, dict):
            raise ValueError("an order is a JSON object")
        identifier = order.get("id")
        reply = await simulator.command(order)
    except (ValueError, TypeError, OSError, zmq.ZMQError) as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    _say({"id": identifier, **reply})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def run_simulator(config: SimulatorConfig) -> None:
    """Run until SIGTERM, SIGINT or (with ``control``) the end of standard input.

    Prints one JSON line when all ports are bound, and one answer for each order.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    began = time.monotonic()
    simulator = Simulator(config, loop)
    orders: set[asyncio.Task[None]] = set()
    control: asyncio.Task[None] | None = None
    try:
        await simulator.start()
        # What lives as long as the process is not worth the collector's time, which is measured elsewhere.
        gc.freeze()
        if config.control:
            control = loop.create_task(_control(simulator, stopped, orders))
        first, port = node_address(config, 0)
        last, last_port = node_address(config, config.nodes - 1)
        _say(
            {
                "ready": True,
                "nodes": config.nodes,
                "generation": config.generation,
                "first": f"{first}:{port}",
                "last": f"{last}:{last_port}",
                "hostfile": str(config.hostfile) if config.hostfile else None,
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        await stopped.wait()
    finally:
        for task in (*orders, *((control,) if control else ())):
            task.cancel()
        await simulator.stop()
