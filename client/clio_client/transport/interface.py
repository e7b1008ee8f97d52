"""The small interface both transports implement, and what they are asked about and answer with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from clio_client.address import CLIENT_PORT_OFFSET, DEFAULT_PORT, join_host_port
from clio_client.errors import QueryFailedError
from clio_client.protocol.codec import Generation, RuntimeIdentity, decode_document
from clio_client.protocol.records import HostInfo, read_host_info


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node is, and how to talk to it.

    Attributes:
        host: name or IPv4 address.
        port: base port; the client port is three above it.
        index: the node's number in its cluster, by which the binding transport routes; negative where it
            has none. Not compared: a runtime is the same one under whatever number, and must not be
            connected to twice.
        generation: protocol generation when the operator fixed it; None: detect.
        reply_address: IPv4 address or name this node shall dial back to; None: the local
            address of the route to the node.
    """

    host: str
    port: int = DEFAULT_PORT
    index: int = field(default=0, compare=False)
    generation: Generation | None = None
    reply_address: str | None = None

    @property
    def client_port(self) -> int:
        """TCP port the runtime's client socket listens on."""
        return self.port + CLIENT_PORT_OFFSET

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class MonitorAnswer:
    """Answer to one query: a return code and one undecoded msgpack document a container."""

    query: str
    return_code: int
    documents: Mapping[int, bytes] = field(default_factory=dict)

    def raise_for_code(self) -> MonitorAnswer:
        """Return self.

        Raises:
            QueryFailedError: the runtime's return code is not 0.
        """
        if self.return_code:
            raise QueryFailedError(
                f"{self.query}: the runtime answered with return code {self.return_code}", self.return_code
            )
        return self

    def sole(self) -> bytes | None:
        """The only document of an answer routed to one node; None when there is none."""
        return next(iter(self.documents.values()), None)


Asked = tuple[str, Callable[[MonitorAnswer | Exception], None]]
"""A query, and what is called with its answer, or with why there is none, as soon as that is known."""


@dataclass(frozen=True, slots=True)
class NodeSession:
    """What is known of the runtime a node currently runs.

    Attributes:
        generation: its protocol generation; None over the binding, which hides it.
        identity: changes whenever the runtime is started anew; None over the binding.
        node_id: number the runtime itself has in its cluster; None when it did not say (Z cannot).
        hostname: what the runtime calls its host: its hostfile's text, "0.0.0.0" without one; None when
            it did not say.
    """

    generation: Generation | None
    identity: RuntimeIdentity | None
    node_id: int | None = None
    hostname: str | None = None


def host_info(answer: MonitorAnswer) -> HostInfo:
    """What a runtime says of itself in its answer to ``get_host_info``.

    Raises:
        QueryFailedError: it refused.
        MalformedAnswerError: it said something else.
    """
    document = answer.raise_for_code().sole()
    if document is None:
        return HostInfo(None, None, None)
    return read_host_info(decode_document(document))


class Transport(Protocol):
    """Asks nodes. Every coroutine runs on the client's event loop and is bounded by ``deadline``.

    ``deadline`` is in the loop's own time (``loop.time()``). Errors are subclasses of
    `clio_client.errors.RuntimeClientError`.
    """

    async def session(self, node: NodeAddress, deadline: float) -> NodeSession:
        """Connect when needed and tell which runtime answers there."""
        ...

    async def monitor(self, node: NodeAddress, query: str, deadline: float) -> MonitorAnswer:
        """Ask one query of one node."""
        ...

    async def monitor_all(
        self, node: NodeAddress, asked: Sequence[Asked], deadline: float, *, head_start: float = 0.0
    ) -> None:
        """Ask several queries of one node together; return when all have been answered or have failed.

        The first is the only one until it has ended, for ``head_start`` seconds at most. Raises no error of
        the node's: each query's callable is told. Once this was cancelled, none is called any more.
        """
        ...

    def retain(self, nodes: frozenset[NodeAddress]) -> None:
        """Drop connections to every node but these (membership changed)."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Running totals for the exporter's own metrics. May be called from any thread."""
        ...

    async def close(self) -> None:
        """Release sockets and threads; pending calls fail with `ClientClosedError`."""
        ...
