"""One simulated runtime: its sockets, its faults and the violations it has seen."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from clio_lab.simulator import model
from clio_lab.simulator.answers import Answers, NodeState, Unanswered
from clio_lab.simulator.dialback import DialBack, DialBacks
from clio_lab.simulator.faults import CONDITIONS, PORT_FAULTS, Fault, spoil
from clio_lab.simulator.frames import (
    CLIENT_CONNECT,
    LAYOUTS,
    Rejected,
    Request,
    answer,
    connect_body,
    monitor_answer,
    parse,
)
from clio_lab.simulator.portfaults import FaultyPort
from clio_lab.simulator.recorded import Recording

MAX_DIAL_BACKS = 512
"""Dial-back connections that a real runtime keeps before it drops the least recently used."""

MAX_IN_FLIGHT = 32
"""Unanswered requests of one client above which it is counted as a bad guest."""

FORGET_SECONDS = 5.0
"""Age at which a request that is never answered no longer counts as in flight."""

BIND_SECONDS = 30.0
"""How long a port that its last owner has not let go of is waited for."""

_BATCH = 256
_TCP_ESTABLISHED = 1
_LOCAL_ROUTING = frozenset({0, 6, 7})
_SRCFD = int(getattr(zmq, "SRCFD", 2))


@dataclass
class Common:
    """What all nodes of a simulation share. ``recordings`` and ``answers`` are by generation."""

    context: zmq.Context[zmq.Socket[bytes]]
    loop: asyncio.AbstractEventLoop
    dial_backs: DialBacks
    recordings: dict[str, Recording]
    answers: dict[str, Answers]
    nodes: int
    heartbeat_ms: int
    machine: str = field(default_factory=socket.gethostname)
    requests: Counter[bytes] = field(default_factory=Counter)


def _peer_of(descriptor: int) -> tuple[str, int] | None:
    """Remote address of an established TCP connection of this process, None for anything else."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED:
                return None
            host, port = connection.getpeername()[:2]
            return host, port
    except OSError:
        return None


def _hang_up(descriptor: int) -> None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed by libzmq in the meantime: what we wanted


class SimulatedNode:
    """A runtime that answers on one address. All methods run on the simulation's event loop."""

    def __init__(self, common: Common, state: NodeState, generation: str, port: int, seed: int) -> None:
        self.state = state
        self.generation = generation
        self.port = port
        self.faults: dict[str, Fault] = {}
        self.violations: Counter[str] = Counter()
        self.requests = 0
        self.answers = 0
        self.probes = 0
        self.restarts = 0
        self._common = common
        self._layout = LAYOUTS[generation]
        self._recording = common.recordings[generation]
        self._answers = common.answers[generation]
        self._first_pid = state.pid
        self._default_workers = state.workers
        self._noise = random.Random(seed)  # noqa: S311 - reproducible noise, not a secret
        self._router: zmq.Socket[bytes] | None = None
        self._descriptor = -1
        self._dial_backs: OrderedDict[tuple[bytes, int], DialBack] = OrderedDict()
        self._connections: dict[bytes, tuple[int, tuple[str, int] | None]] = {}
        self._unanswered: dict[bytes, deque[float]] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._faulty_port: FaultyPort | None = None
        self._changing = asyncio.Lock()

    # -- life ------------------------------------------------------------

    def open(self) -> None:
        """Bind the client port; :class:`zmq.ZMQError` when it is taken."""
        router = self._common.context.socket(zmq.ROUTER)
        try:
            router.setsockopt(zmq.LINGER, 0)
            # As the runtime does: of two connections with one identity the newer one wins.
            router.setsockopt(zmq.ROUTER_HANDOVER, 1)
            if self._common.heartbeat_ms:
                router.setsockopt(zmq.HEARTBEAT_IVL, self._common.heartbeat_ms)
                router.setsockopt(zmq.HEARTBEAT_TTL, 6 * self._common.heartbeat_ms)
                router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6 * self._common.heartbeat_ms)
            router.bind(f"tcp://{self.state.address}:{self.port}")
        except BaseException:
            router.close()
            raise
        self._router = router
        self._descriptor = router.FD
        self._common.loop.add_reader(self._descriptor, self._on_readable)
        self.state.answering = "silent" not in self.faults

    def close(self) -> None:
        """Close all ZeroMQ sockets and forget what was under way, as the end of the process would."""
        self.state.answering = False
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._router is not None:
            self._common.loop.remove_reader(self._descriptor)
            self._router.close()
            self._router = None
        for link in self._dial_backs.values():
            self._common.dial_backs.close_link(link)
        self._dial_backs.clear()
        self._connections.clear()
        self._unanswered.clear()

    async def stop(self) -> None:
        """Close everything, also a faulty port."""
        self.close()
        if self._faulty_port is not None:
            await self._faulty_port.close()
            self._faulty_port = None

    async def restart(self, seconds: float) -> None:
        """Go away for ``seconds`` and come back as another process: counters and ids from 0, port open."""
        async with self._changing:
            await self.stop()
            await asyncio.sleep(seconds)
            self.restarts += 1
            self.state.pid = self._first_pid + self.restarts * self._common.nodes
            self.state.started_ns = model.clock_ns()
            self.state.retired.clear()
            for ended in ("retired-pool", *PORT_FAULTS):
                self.faults.pop(ended, None)
            await _when_free(self.open)

    async def set_fault(self, fault: Fault) -> None:
        """Add a fault to those the node has (one of each kind; only one that takes the port)."""
        if fault.kind == "restarting":
            await self.restart(fault.number)
            return
        async with self._changing:
            self.faults[fault.kind] = fault
            if fault.kind == "retired-pool":
                self.state.retired.add(fault.text)
            elif fault.kind == "workers":
                self.state.workers = int(fault.number)
            elif fault.kind in CONDITIONS:
                self.state.set_condition(fault.kind, fault.number if fault.text else 0.0)
            elif fault.kind in ("silent", *PORT_FAULTS):
                self.state.answering = False
            if fault.kind in PORT_FAULTS:
                for other in PORT_FAULTS - {fault.kind}:
                    self.faults.pop(other, None)
                await self.stop()
                if fault.kind != "refused":
                    port = FaultyPort(fault.kind)
                    await _when_free(lambda: port.open(self.state.address, self.port))
                    self._faulty_port = port

    async def clear(self) -> None:
        """Take all faults back; a port that was given up is opened again by the same process."""
        async with self._changing:
            self.faults.clear()
            self.state.clear_conditions()
            self.state.retired.clear()
            self.state.workers = self._default_workers
            if self._faulty_port is not None:
                await self._faulty_port.close()
                self._faulty_port = None
            if self._router is None:
                await _when_free(self.open)
            self.state.answering = True

    def describe(self) -> dict[str, object]:
        """What the node is and has seen, for the control channel."""
        state = self.state
        return {
            "node": state.index,
            "address": state.address,
            "port": self.port,
            "hostname": state.hostname,
            "pid": state.pid,
            "generation": self.generation,
            "server_generation": state.started_ns,
            "workers": state.workers,
            "pools": [pool for pool in self._answers.pool_ids if pool not in state.retired],
            "faults": [f"{fault.kind}:{fault.text}".rstrip(":") for fault in self.faults.values()],
            "restarts": self.restarts,
            "requests": self.requests,
            "answers": self.answers,
            "probes": self.probes,
            "dial_backs": len(self._dial_backs),
            "violations": dict(self.violations),
        }

    # -- requests ------------------------------------------------------------

    def _on_readable(self) -> None:
        # The descriptor signals edges: read until there is nothing. Sending on the same socket (generation A)
        # may swallow an edge, so that reading must be tried once more after it.
        while self._router is not None:
            batch, drained = self._read_batch(self._router)
            if batch:
                self._handle_batch(batch)
            if drained and (self._layout.dials_back or not batch):
                return

    def _read_batch(self, router: zmq.Socket[bytes]) -> tuple[list[tuple[bytes, bytes | None]], bool]:
        batch: list[tuple[bytes, bytes | None]] = []
        known = self._connections
        try:
            while len(batch) < _BATCH:
                first = router.recv(zmq.NOBLOCK, copy=False)
                identity = first.bytes
                descriptor = first.get(_SRCFD)
                connection = known.get(identity)
                if connection is None or connection[0] != descriptor:
                    self._new_connection(identity, connection, int(descriptor))
                delimiter = router.recv()
                frame: bytes | None = None
                if delimiter == b"" and router.getsockopt(zmq.RCVMORE):
                    frame = router.recv()
                while router.getsockopt(zmq.RCVMORE):
                    frame = None
                    router.recv()
                batch.append((identity, frame))
        except zmq.Again:
            return batch, True
        return batch, False

    def _new_connection(
        self, identity: bytes, known: tuple[int, tuple[str, int] | None] | None, descriptor: int
    ) -> None:
        peer = _peer_of(descriptor)
        if known is not None and known[1] is not None and known[1] != peer and _peer_of(known[0]) == known[1]:
            self.violations["duplicate_identity"] += 1
            # A real runtime aborts when the older socket sends again and closes; libzmq would abort us too.
            _hang_up(known[0])
        self._connections[identity] = (descriptor, peer)

    def _handle_batch(self, batch: list[tuple[bytes, bytes | None]]) -> None:
        self.requests += len(batch)
        if len(batch) > MAX_IN_FLIGHT or self._unanswered:
            self._count_in_flight(batch)
        now_ns = model.clock_ns()
        for identity, frame in batch:
            parsed = Rejected("announced_lengths") if frame is None else parse(self._layout, frame)
            if isinstance(parsed, Request):
                self._answer(identity, parsed, now_ns)
            else:
                self._reject(identity, parsed)

    def _count_in_flight(self, batch: list[tuple[bytes, bytes | None]]) -> None:
        oldest = time.monotonic() - FORGET_SECONDS
        arrived = Counter(identity for identity, _ in batch)
        for identity, waiting in list(self._unanswered.items()):
            while waiting and waiting[0] < oldest:
                waiting.popleft()
            if not waiting:
                del self._unanswered[identity]
        for identity, count in arrived.items():
            if count + len(self._unanswered.get(identity, ())) > MAX_IN_FLIGHT:
                self.violations["in_flight"] += 1

    def _reject(self, identity: bytes, rejected: Rejected) -> None:
        if rejected.violation is None:
            self.probes += 1
        elif rejected.violation != "risky_probe" or (self._dial_backs and "silent" not in self.faults):
            # A probe with the old layout is the client's last resort where the node cannot dial back.
            self.violations[rejected.violation] += 1
        if rejected.dial_back and "silent" not in self.faults:
            self._dial_back(identity, rejected.reply_port)

    def _answer(self, identity: bytes, request: Request, now_ns: int) -> None:
        common = self._common
        query = request.query
        if query is None:
            common.requests[b"ClientConnect"] += 1
            if request.records != 1:
                self.probes += 1
        else:
            common.requests[query.partition(b":")[0][:40]] += 1
            if query.endswith(b"bdev_stats"):
                self.violations["bdev_stats"] += 1
        if request.routing != 0:
            self.violations["routing"] += 1
        if "silent" in self.faults:
            self._note_unanswered(identity)
            return
        try:
            frame = self._frame(request, now_ns)
        except Unanswered:
            self._note_unanswered(identity)
            return
        if not self.faults:
            self._send(identity, request.reply_port, frame)
            return
        frame = spoil(frame, self._layout.body_at, self.faults, self._noise)
        send: Callable[[], None] = lambda: self._send(identity, request.reply_port, frame)  # noqa: E731
        if "slow" in self.faults:
            self._note_unanswered(identity)
            self._later(self.faults["slow"].number, identity, send)
            return
        send()
        if "duplicated" in self.faults:
            send()

    def _frame(self, request: Request, now_ns: int) -> bytes:
        state, recording = self.state, self._recording
        fault = self.faults.get("error-rc")
        if request.method == CLIENT_CONNECT:
            return answer(recording, request.echo, connect_body(recording, state.pid, state.started_ns))
        query = request.query or b""
        if request.routing in _LOCAL_ROUTING:
            rc, results = self._answers.monitor(state, request.pool, query, now_ns)
        else:
            rc, results = 0, []
            for one in self._answers.routed(state, request.routing, request.targets):
                rc, more = self._answers.monitor(one, request.pool, query, now_ns)
                results += more
        if fault is not None:
            rc, results = int(fault.number), []
        return monitor_answer(recording, request.echo, rc, state.index, results)

    def _later(self, seconds: float, identity: bytes, send: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            waiting = self._unanswered.get(identity)
            if waiting:
                waiting.popleft()
            send()
            if "duplicated" in self.faults:
                send()
            if not self._layout.dials_back:
                self._on_readable()

        timer = self._common.loop.call_later(seconds, fire)
        self._timers.add(timer)

    def _note_unanswered(self, identity: bytes) -> None:
        self._unanswered.setdefault(identity, deque(maxlen=10_000)).append(time.monotonic())

    # -- answers ------------------------------------------------------------

    def _send(self, identity: bytes, reply_port: int, frame: bytes) -> None:
        if self._layout.dials_back:
            link = self._dial_backs.get((identity, reply_port)) or self._dial_back(identity, reply_port)
            if link is None:
                return
            self._common.dial_backs.send(link, frame)
        elif self._router is not None:
            self._router.send(identity, zmq.NOBLOCK | zmq.SNDMORE)
            self._router.send(b"", zmq.NOBLOCK | zmq.SNDMORE)
            self._router.send(frame, zmq.NOBLOCK)
        self.answers += 1

    def _dial_back(self, identity: bytes, reply_port: int) -> DialBack | None:
        key = (identity, reply_port)
        known = self._dial_backs.get(key)
        if known is not None:
            return known
        host, colon, _ = identity.decode("latin-1").partition(":")
        if not colon or not host or not 0 < reply_port < 65536:
            self.violations["unreachable"] += 1
            return None
        state, dial_backs = self.state, self._common.dial_backs
        if host in (state.hostname, self._common.machine):
            host = "127.0.0.1"
        try:
            link = dial_backs.open(state.address, f"{state.hostname}:{state.pid}:0", host, reply_port)
        except zmq.ZMQError:
            self.violations["unreachable"] += 1
            return None
        self._dial_backs[key] = link
        if len(self._dial_backs) > MAX_DIAL_BACKS:
            dial_backs.close_link(self._dial_backs.popitem(last=False)[1])
        return link


async def _when_free(bind: Callable[[], object]) -> None:
    """Call ``bind`` until the port's last owner has let go of it, at most ``BIND_SECONDS``."""
    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            result = bind()
            if asyncio.iscoroutine(result):
                await result
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)
