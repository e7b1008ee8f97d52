"""One node's connection: pre-check, connect, find the generation, ready; and again after a loss.

Which generation a node speaks is found in the order that no runtime is harmed by (versions notes,
"safe detection"):

1. a C probe; an answer means C;
2. the same over sockets of its own, to see whether the runtime dials back without answering: B;
3. an A probe; an answer means A;
4. nobody answers: unsupported, asked again after a minute.

Our identity towards an endpoint is fixed (`identity`): the runtime keeps one dial-back for each identity
and port it ever saw. Two live connections with one identity abort it, so a node that hung is given a moment
to notice that the old connection ended before it sees a new one.

Then the runtime is asked who it is, and two connections that met the same one settle which of them stays
(`duplicates`): a member under its right number, else the lowest. The other one is told so at once as long as
that connection lives, and tried again when it has ended.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import zmq

from clio_client.errors import (
    ConnectionLostError,
    HungError,
    MalformedAnswerError,
    NotARuntimeError,
    QueryFailedError,
    RuntimeClientError,
    TransportUnavailableError,
    UnreachableError,
    UnsupportedGenerationError,
)
from clio_client.protocol import codec
from clio_client.protocol.codec import Answer, Generation, RequestIds, RuntimeIdentity
from clio_client.protocol.records import HostInfo
from clio_client.transport.duplicates import Rank, duplicate_error, rank
from clio_client.transport.greeting import Greeting, resolve
from clio_client.transport.identity import routing_identity
from clio_client.transport.interface import Asked, MonitorAnswer, NodeAddress, NodeSession, host_info
from clio_client.transport.requests import InFlight, RequestCounter, Wave
from clio_client.transport.sockets import HANDSHAKE_SECONDS, Receiver, ReplySocket, harden

_T = TypeVar("_T")

GREETING_SECONDS: Final = 300.0
"""How long one pre-check connection waits for a node before it is opened anew.

Each stays in the queue of a stopped process (100 places), and when that is full the node looks unreachable;
that its host has died meanwhile is only found out by a new one.
"""

DETECTION_SECONDS: Final = 1.5
"""How long each detection step waits; a living runtime takes a millisecond."""

SETTLE_SECONDS: Final = 1.0
"""Pause between a hung node's first greeting and our new connection with the old identity."""

SLOW_GREETING_SECONDS: Final = 0.5

UNSUPPORTED_PAUSE_S: Final = 60.0

RETRY_PAUSE_S: Final = 0.2
"""A failed attempt answers every caller for this long, so that one scrape makes one attempt."""

PATIENCE: Final = 3
"""C probes a runtime known as C may leave unanswered before other generations are tried."""


HOST_INFO_SECONDS: Final = 1.0
"""How long a runtime may take to say which node it is."""

COURTESY_SECONDS: Final = 1.0
"""How long a connection under a wrong number waits for those that may have met the same runtime."""

CLAIM_SECONDS: Final = 60.0
"""How long a member that takes a runtime over keeps the other one away until it is connected."""

DUPLICATE_PAUSE_S: Final = 300.0
"""A name may lead elsewhere one day, so what was the same runtime is looked at again."""


class Hub(Protocol):
    """What a connection needs of the transport it belongs to.

    Attributes:
        role, host: see `identity.routing_identity`.
        registry: whose every request in flight is, by id.
        connections: all connections, by node.
        met: connections that know which runtime they lead to, by its identity.
    """

    loop: asyncio.AbstractEventLoop
    context: zmq.Context[zmq.Socket[bytes]]
    role: str
    host: str
    ids: RequestCounter
    max_in_flight: int
    registry: dict[int, InFlight]
    reply: ReplySocket
    met: defaultdict[RuntimeIdentity, set[NodeConnection]]

    @property
    def connections(self) -> Mapping[NodeAddress, NodeConnection]: ...  # noqa: D102

    def connected_to(self, endpoint: str) -> NodeConnection | None:
        """Whose connection leads to this endpoint."""
        ...

    def connect(self, connection: NodeConnection, endpoint: str, identity: bytes) -> bytes:
        """Open a connection, the only one to this endpoint; returns the routing id of requests."""
        ...

    def disconnect(self, connection: NodeConnection) -> None:
        """Close the connection to the endpoint of ``connection``, if it has one."""
        ...

    def send(self, routing_id: bytes, frame: bytes) -> None:
        """Send a request."""
        ...


class NodeConnection:
    """The connection to one client port, made when first needed and whenever it was lost.

    Attributes:
        session: the runtime currently connected to; None while there is none.
    """

    def __init__(self, hub: Hub, node: NodeAddress) -> None:
        self.node = node
        self.session: NodeSession | None = None
        self._hub = hub
        self._loop = hub.loop
        self._in_flight = InFlight(self._loop, hub.max_in_flight, hub.registry, self._transmit)
        self._attempt: asyncio.Task[None] | None = None
        self._failure: tuple[float, RuntimeClientError] | None = None
        self._met: NodeSession | None = None
        self._introduced: asyncio.Future[None] | None = None
        self._shown_by: NodeConnection | None = None
        self._claims_until = -math.inf
        self._stage = "connect"
        self._greeting: Greeting | None = None
        self._endpoint: str | None = None
        self._routing_id: bytes | None = None
        self._reply_port = 0
        self._descriptor: int | None = None
        self._handshake: asyncio.Future[None] | None = None
        self._settle = False
        self._last_generation: Generation | None = None
        self._silent_probes = 0

    # --- what callers use -------------------------------------------------------------------------

    async def ready(self, deadline: float) -> NodeSession:
        """Connect when not connected.

        Raises:
            RuntimeClientError: the kind says what is wrong with the node.
        """
        if self.session is not None:
            return self.session
        if self._failure is not None and self._loop.time() < self._failure[0] and not self._is_released():
            raise self._failure[1].with_traceback(None)
        if self._attempt is None:
            self._shown_by = None
            self._introduced = self._loop.create_future()
            self._attempt = self._loop.create_task(self._run_attempt(), name=f"connect {self.node}")
        attempt = self._attempt
        await asyncio.wait((attempt,), timeout=max(0.0, deadline - self._loop.time()))
        if not attempt.done():
            raise self._timeout_error()
        return self._outcome()

    def _outcome(self) -> NodeSession:
        """Result of the attempt that just ended."""
        if self.session is not None:
            return self.session
        if self._failure is not None:
            raise self._failure[1].with_traceback(None)
        raise ConnectionLostError(f"{self.node}: connection lost")

    async def monitor(self, query: str, deadline: float) -> MonitorAnswer:
        """Ask one query; see `Transport.monitor`."""
        session = await self.ready(deadline)
        assert session.generation is not None  # noqa: S101 - always known on this transport
        return await self._query(session.generation, query, deadline)

    async def monitor_all(self, asked: Sequence[Asked], deadline: float, head_start: float) -> None:
        """Ask several queries; see `Transport.monitor_all`."""
        wave = Wave(self._loop, deadline)
        try:
            if head_start and len(asked) > 1:
                await self._send_all(asked[:1], wave)
                await wave.wait(head_start)
                asked = asked[1:]
            await self._send_all(asked, wave)
            await wave.wait()
        finally:
            wave.close()

    async def _send_all(self, asked: Sequence[Asked], wave: Wave) -> None:
        """Connect when needed, which a loss since the last question makes necessary, and send."""
        try:
            session = await self.ready(wave.deadline)
        except RuntimeClientError as error:
            for _, answered in asked:
                answered(error)
            return
        assert session.generation is not None  # noqa: S101 - always known on this transport
        for query, answered in asked:
            self._send(session.generation, query, answered, wave)

    def _send(
        self,
        generation: Generation,
        query: str,
        answered: Callable[[MonitorAnswer | Exception], None],
        wave: Wave,
    ) -> None:
        try:
            ids, frame = self._request(generation, query)
        except UnsupportedGenerationError as error:
            answered(error)
            return

        def ended(outcome: bytes | Exception) -> None:
            try:
                raw = self._frame(outcome, query)
                answer = self._read(generation, ids.request_id, raw, query)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this question's
                answered(error)
            else:
                answered(answer)

        self._in_flight.send(ids.request_id, frame, wave, ended)

    async def _query(self, generation: Generation, query: str, deadline: float) -> MonitorAnswer:
        ids, frame = self._request(generation, query)
        raw = await self._ask(frame, ids.request_id, deadline, query)
        return self._read(generation, ids.request_id, raw, query)

    def _request(self, generation: Generation, query: str) -> tuple[RequestIds, bytes]:
        ids = self._hub.ids.next()
        try:
            return ids, codec.encode_monitor(generation, ids, self._reply_port, query)
        except ValueError as error:
            raise UnsupportedGenerationError(f"{self.node}: {error}") from error

    def _read(self, generation: Generation, request_id: int, raw: bytes, query: str) -> MonitorAnswer:
        answer = self._answer(generation, request_id, raw)
        if answer.method not in (codec.METHOD_MONITOR, codec.METHOD_WORKER_STATS_Z):
            raise MalformedAnswerError(f"{self.node}: {query} was answered by method {answer.method}")
        result = codec.decode_monitor(generation, answer.body)
        return MonitorAnswer(query, result.return_code, result.documents)

    def close(self, error: RuntimeClientError) -> asyncio.Task[None] | None:
        """End the connection and everything that waits for it; returns an attempt still winding up."""
        attempt = self._attempt
        if attempt is not None:
            attempt.cancel()
        self._failure = (math.inf, error)
        self._shown_by = None
        self._claims_until = -math.inf
        self._drop(error)
        return attempt

    # --- events from the sockets ------------------------------------------------------------------

    def on_event(self, event: zmq.Event, value: int) -> None:
        """A connection event of our endpoint. Events of earlier connections are told by descriptor."""
        if event == zmq.Event.CONNECTED:
            self._descriptor = value
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            if self._handshake is not None and not self._handshake.done():
                self._handshake.set_result(None)
        elif event in (zmq.Event.DISCONNECTED, zmq.Event.CLOSED):
            if event == zmq.Event.DISCONNECTED and value != self._descriptor:
                return
            self._lost(self._ended())
        else:
            self._lost(NotARuntimeError(f"{self.node}: ZeroMQ handshake failed ({event.name})"))

    def _ended(self) -> RuntimeClientError:
        """Why the connection ended: heartbeats end that of a hung node too, and it is hung still."""
        if self._in_flight.silent:
            return HungError(f"{self.node}: the connection ended with requests unanswered")
        return ConnectionLostError(f"{self.node}: the runtime closed the connection")

    def _lost(self, error: RuntimeClientError) -> None:
        if self._handshake is not None and not self._handshake.done():
            self._handshake.set_exception(error)
        self._drop(error)

    def _drop(self, error: RuntimeClientError) -> None:
        if self._in_flight.silent:
            self._settle = True
        self._in_flight.fail(error)
        if self._endpoint is not None:
            self._hub.disconnect(self)
        self._forget_runtime()
        self.session = None
        self._routing_id = None
        self._endpoint = None
        self._descriptor = None

    # --- connecting -------------------------------------------------------------------------------

    async def _run_attempt(self) -> None:
        try:
            await self._connect()
            self._failure = None
        except (OSError, zmq.ZMQError) as problem:
            error = TransportUnavailableError(f"{self.node}: this host cannot open a connection: {problem}")
            self._drop(error)
            self._failure = (self._loop.time() + RETRY_PAUSE_S, error)
        except RuntimeClientError as error:
            self._drop(error)
            pause = UNSUPPORTED_PAUSE_S if isinstance(error, UnsupportedGenerationError) else RETRY_PAUSE_S
            if self._shown_by is not None:
                pause = DUPLICATE_PAUSE_S
            self._failure = (self._loop.time() + pause, error)
        finally:
            self._attempt = None
            self._introduce(None)

    async def _connect(self) -> None:
        node = self.node
        self._stage = "resolve"
        address = await resolve(node.host)
        self._stage = "greeting"
        self._greeting = Greeting(address, node.client_port)
        started = self._loop.time()
        try:
            local = await asyncio.wait_for(self._greeting.wait(), GREETING_SECONDS)
        except (asyncio.TimeoutError, TimeoutError):
            self._settle = True
            raise self._greeting.timeout_error() from None
        if self._loop.time() - started > SLOW_GREETING_SECONDS:
            self._settle = True
        self._stage = "settle"
        if self._settle:
            await asyncio.sleep(SETTLE_SECONDS)
            self._settle = False
        self._stage = "handshake"
        hub = self._hub
        endpoint = f"tcp://{address}:{node.client_port}"
        while (other := hub.connected_to(endpoint)) is not None:
            await self._contend(other)
        reply_host = node.reply_address or local
        self._reply_port = hub.reply.port_for(reply_host)
        identity = routing_identity(
            reply_host, self._reply_port, hub.role, host=hub.host, local=local, endpoint=endpoint
        )
        self._handshake = self._loop.create_future()
        self._endpoint = endpoint
        self._routing_id = hub.connect(self, endpoint, identity)
        await self._within(self._handshake, HANDSHAKE_SECONDS + 1, "does not finish the ZeroMQ handshake")
        self._stage = "detect"
        generation, runtime = await self._detect(local)
        self._last_generation, self._silent_probes = generation, 0
        self._stage = "introduction"
        said = await self._host_info(generation)
        met = NodeSession(generation, runtime, said.node_id, said.hostname)
        self._introduce(met)
        await self._settle_duplicates(met)
        self._claims_until = -math.inf
        self.session = met

    async def _host_info(self, generation: Generation) -> HostInfo:
        """What the runtime says of itself; nothing when it does not.

        Which of two members shows it is then decided by their numbers alone, and nothing else depends on it:
        no reason to call a node down that answers ClientConnect.
        """
        if generation is Generation.Z:
            return HostInfo(None, None, None)
        try:
            return host_info(
                await self._query(generation, "get_host_info", self._loop.time() + HOST_INFO_SECONDS)
            )
        except (HungError, MalformedAnswerError, QueryFailedError):
            return HostInfo(None, None, None)

    # --- the same runtime under two members -------------------------------------------------------

    def _is_released(self) -> bool:
        """Whether the member that showed our runtime no longer does, and is not about to."""
        other = self._shown_by
        return other is not None and other._met is None and self._loop.time() >= other._claims_until

    def _introduce(self, met: NodeSession | None) -> None:
        """The runtime we lead to is known now, or will not be by this attempt."""
        if met is not None and met.identity is not None:
            self._met = met
            self._hub.met[met.identity].add(self)
        if self._introduced is not None and not self._introduced.done():
            self._introduced.set_result(None)

    def _forget_runtime(self) -> None:
        if self._met is not None and self._met.identity is not None:
            others = self._hub.met[self._met.identity]
            others.discard(self)
            if not others:
                del self._hub.met[self._met.identity]
        self._met = None

    async def _settle_duplicates(self, met: NodeSession) -> None:
        """Return when this connection is the one that shows the runtime.

        Raises:
            DuplicateNodeError: another one is.
            ConnectionLostError: ours ended meanwhile.
        """
        own = rank(self.node, met.node_id)
        if self.node.index != met.node_id:
            await self._wait_for_better(own, met.node_id)
        if self._met is not met:
            raise ConnectionLostError(f"{self.node}: connection lost")
        assert met.identity is not None  # noqa: S101 - always known on this transport
        others = [c for c in self._hub.met[met.identity] if c is not self and c._is_same(met)]
        for other in others:
            if rank(other.node, met.node_id) <= own:
                self._shown_by = other
                raise duplicate_error(self.node, other.node, met.node_id)
        for other in others:
            self._take_over(other, met)

    def _is_same(self, met: NodeSession) -> bool:
        """Whether we met this runtime; its process id and start time have been compared already."""
        return self._met is not None and (
            None in (self._met.node_id, met.node_id) or self._met.node_id == met.node_id
        )

    async def _wait_for_better(self, own: Rank, node_id: int | None) -> None:
        """Let connections with a better claim find out whether they lead to our runtime too."""
        better = [
            other._introduced
            for other in self._hub.connections.values()
            if other._attempt is not None
            and other._introduced is not None
            and not other._introduced.done()
            and rank(other.node, node_id) < own
        ]
        if better:
            await asyncio.wait(better, timeout=COURTESY_SECONDS)

    async def _contend(self, other: NodeConnection) -> None:
        """Another member is connected to our endpoint; returns when that may have changed.

        Raises:
            DuplicateNodeError: it stays so.
        """
        met = other._met
        if met is None:
            assert other._introduced is not None  # noqa: S101 - who has an endpoint, has begun
            await asyncio.wait((other._introduced,))
            return
        if rank(other.node, met.node_id) <= rank(self.node, met.node_id):
            self._shown_by = other
            raise duplicate_error(self.node, other.node, met.node_id)
        self._settle = True  # for the identity is the same
        self._take_over(other, met)
        await asyncio.sleep(SETTLE_SECONDS)
        self._settle = False

    def _take_over(self, other: NodeConnection, met: NodeSession) -> None:
        """End another member's connection to our runtime.

        Raises:
            DuplicateNodeError: its answers may be part of the scrape we are asked for. The next one is ours.
        """
        shown = other.session is not None and other.node.index >= 0
        error = duplicate_error(other.node, self.node, met.node_id)
        if other._attempt is not None:
            other._attempt.cancel()
        other._failure = (self._loop.time() + DUPLICATE_PAUSE_S, error)
        other._shown_by = self
        other._drop(error)
        self._claims_until = self._loop.time() + CLAIM_SECONDS
        if shown:
            raise duplicate_error(self.node, other.node, met.node_id)

    async def _detect(self, local: str) -> tuple[Generation, RuntimeIdentity]:
        fixed = self.node.generation
        if fixed is not None:
            found = await self._connect_request(fixed, probe=False)
            if found is None:
                raise HungError(
                    f"{self.node} does not answer as generation {fixed.value}: hung, or another generation"
                )
            return fixed, found
        found = await self._connect_request(Generation.C, probe=True)
        if found is not None:
            return Generation.C, found
        if self._last_generation is Generation.C and self._silent_probes < PATIENCE:
            self._silent_probes += 1
            self._settle = True
            raise HungError(f"{self.node} does not answer ClientConnect: hung, or cannot dial back to us")
        if await self._dials_back(local):
            found = await self._connect_request(Generation.B, probe=False)
            if found is not None:
                return Generation.B, found
            raise HungError(f"{self.node} dials back but does not answer as generation B")
        found = await self._connect_request(Generation.A, probe=True)
        if found is not None:
            return Generation.A, found
        raise UnsupportedGenerationError(
            f"{self.node} speaks ZeroMQ but answers none of the generations A, B, C: it hangs, cannot dial "
            "back to our reply port, or is older than 1.5 (then set its generation to Z)"
        )

    async def _connect_request(self, generation: Generation, *, probe: bool) -> RuntimeIdentity | None:
        """ClientConnect in one generation's layout; None when it is not answered."""
        ids = self._hub.ids.next()
        encode = codec.encode_probe if probe else codec.encode_connect
        frame = encode(generation, ids, self._reply_port)
        deadline = self._loop.time() + DETECTION_SECONDS
        try:
            raw = await self._ask(frame, ids.request_id, deadline, "ClientConnect")
        except HungError:
            # A frame of another generation is never answered; it must not hold a place.
            self._in_flight.discard(ids.request_id)
            return None
        return codec.decode_connect(generation, self._answer(generation, ids.request_id, raw).body)

    async def _dials_back(self, local: str) -> bool:
        """Whether the runtime connects to a reply port that only this probe has named."""
        hub = self._hub
        assert self._endpoint is not None  # noqa: S101 - set before detection starts
        accepted: asyncio.Future[None] = self._loop.create_future()

        def on_event(_: list[bytes]) -> None:
            if not accepted.done():
                accepted.set_result(None)

        reply = hub.context.socket(zmq.DEALER)
        request = hub.context.socket(zmq.DEALER)
        monitor = reply.get_monitor_socket(zmq.EVENT_ACCEPTED)
        receiver = Receiver(self._loop, monitor, on_event)
        try:
            harden(reply)
            harden(request)
            host = self.node.reply_address or local
            bind_host = "0.0.0.0" if self.node.reply_address else local  # noqa: S104 - may be a NAT's address
            port = reply.bind_to_random_port(f"tcp://{bind_host}")
            request.setsockopt(zmq.ROUTING_ID, f"{host}:{port}:{secrets.token_hex(4)}".encode())
            request.connect(self._endpoint)
            request.send_multipart((b"", codec.encode_probe(Generation.C, hub.ids.next(), port)))
            await asyncio.wait((accepted,), timeout=DETECTION_SECONDS)
            return accepted.done()
        finally:
            receiver.close()
            reply.disable_monitor()
            monitor.close(0)
            reply.close(0)
            request.close(0)
            accepted.cancel()

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(self, frame: bytes, request_id: int, deadline: float, what: str) -> bytes:
        outcomes: list[bytes | Exception] = []
        wave = Wave(self._loop, deadline)
        try:
            self._in_flight.send(request_id, frame, wave, outcomes.append)
            await wave.wait()
        finally:
            wave.close()
        return self._frame(outcomes[0], what)

    def _transmit(self, frame: bytes) -> None:
        if self._routing_id is None:
            self._in_flight.fail(ConnectionLostError(f"{self.node}: connection lost"))
            return
        try:
            self._hub.send(self._routing_id, frame)
        except ConnectionLostError as error:
            self._drop(error)

    def _frame(self, outcome: bytes | Exception, what: str) -> bytes:
        """The answer frame, where a request ended with one."""
        if isinstance(outcome, TimeoutError):
            raise HungError(f"{self.node} did not answer {what} in time")
        if isinstance(outcome, Exception):
            raise outcome.with_traceback(None)
        return outcome

    def _answer(self, generation: Generation, request_id: int, raw: bytes) -> Answer:
        answer = codec.decode_answer(generation, raw)
        if answer.request_id != request_id:
            raise MalformedAnswerError(f"{self.node}: answer to another request")
        return answer

    async def _within(self, awaitable: Awaitable[_T], seconds: float, problem: str) -> _T:
        try:
            return await asyncio.wait_for(awaitable, seconds)
        except (asyncio.TimeoutError, TimeoutError):
            self._settle = True
            raise HungError(f"{self.node} {problem}") from None

    def _timeout_error(self) -> RuntimeClientError:
        if self._stage == "greeting" and self._greeting is not None:
            return self._greeting.timeout_error()
        if self._stage == "resolve":
            return UnreachableError(f"{self.node}: the name service did not answer in time")
        return HungError(f"{self.node} did not finish connecting in time (stage: {self._stage})")
