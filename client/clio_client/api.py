"""Clusters and nodes for Python programs: `Cluster`, and `AsyncCluster` for code on an event loop.

Both drive the same coroutines on an I/O thread that they own, so they behave alike and neither blocks the
caller's event loop. A call never takes longer than its timeout, whatever the nodes do; a question to the
whole cluster goes to all nodes at once and tells of each its answer or its error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar

from clio_client import questions
from clio_client.client import RuntimeClient
from clio_client.clusters import configured_clusters
from clio_client.config.hostfile import collect_entries, parse_entry
from clio_client.config.membership_source import MembershipSource
from clio_client.config.runtime_files import ConfigFile
from clio_client.config.settings import ClusterSettings, RuntimeSettings, Settings
from clio_client.errors import HungError, RuntimeClientError
from clio_client.membership import Member
from clio_client.protocol.records import Pool, SystemSample, WorkerStats
from clio_client.questions import RING_ENTRIES, NodeStatus
from clio_client.transport.interface import Transport
from clio_client.transport.zeromq import ZmqTransport

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_T = TypeVar("_T")

DEFAULT_TIMEOUT_S: Final = 6.0
"""Longer than the three steps in which a runtime of an old generation is found out, each 1.5 s."""

DEFAULT_REPLY_PORT: Final = 9798
"""First of ten ports for answers, beside those of the exporter (9778) and the control API (9788).

A runtime never closes its connection to a reply port and dials it for ever, so programs that come and go
should come back to the same ports (wire protocol, section 8).
"""

_GRACE_S: Final = 2.0

Question = Callable[[Transport, Member, float], Awaitable[_T]]
"""What is asked of a member before a deadline (the loop's time)."""


class Options(TypedDict, total=False):
    """Keyword arguments of every way to make a cluster; all may be left out.

    Keys:
        timeout: seconds a call may take when it is not given its own (6).
        port: base port of nodes that are listed without one (that of the runtime's configuration, else 9413).
        generation: protocol generation "A", "B", "C" or "Z" of all nodes; otherwise found out, harmlessly.
        reply_port: first of ten ports where answers arrive, the first free one is used (9798); 0: any port.
        reply_address: this host's address as the nodes reach it (that of the route to each node).
        runtime_config: the runtimes' configuration file, as seen from this host; {node_id} and {hostname} in
            it name one file a node (where the runtime looks for its own).
    """

    timeout: float
    port: int | None
    generation: str | None
    reply_port: int
    reply_address: str | None
    runtime_config: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class NodeResult(Generic[_T]):
    """What one node answered to a question to the whole cluster.

    Attributes:
        node: who was asked.
        value: the answer; None when there is none.
        error: why there is none, with a short stable word in ``error.reason``; None when there is one.
    """

    node: Member
    value: _T | None = None
    error: RuntimeClientError | None = None

    @property
    def ok(self) -> bool:
        """Whether the node answered."""
        return self.error is None

    def get(self) -> _T:
        """The answer.

        Raises:
            RuntimeClientError: `error`, when the node did not answer.
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # without an error there is one


class _Base:
    """How clusters are made, and what synchronous and asynchronous ones share."""

    def __init__(self, settings: ClusterSettings, **options: Unpack[Options]) -> None:
        """Use `from_hostfile`, `from_nodes`, `discover` or `from_environment` instead."""
        runtime = RuntimeSettings(
            timeout_seconds=options.get("timeout", DEFAULT_TIMEOUT_S),
            reply_port=options.get("reply_port", DEFAULT_REPLY_PORT),
            reply_address=options.get("reply_address"),
        )
        self._timeout = runtime.timeout_seconds
        (cluster,) = configured_clusters(
            Settings(clusters=(settings,), runtime=runtime), os.environ, Path.home()
        )
        self._membership, self._configs = cluster.membership, cluster.configs
        self._client = RuntimeClient(lambda: ZmqTransport(reply_port=runtime.reply_port))

    @classmethod
    def from_hostfile(cls, path: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """The cluster of a hostfile, a line `host` or `host:port` a node; read again whenever it changes.

        Raises:
            ConfigError: it cannot be read or is not a hostfile.
        """
        return cls(_settings(options, hostfile=Path(path), hostfile_origin="from_hostfile"), **options)

    @classmethod
    def from_nodes(cls, nodes: Iterable[str], **options: Unpack[Options]) -> Self:
        """The cluster of these nodes, each `host` or `host:port` with the runtime's base port.

        Raises:
            ConfigError: one of them is not that, or is there twice.
        """
        entries = tuple(collect_entries(enumerate(nodes, start=1), "from_nodes"))
        if not entries:
            raise ValueError("from_nodes needs at least one node, as host or host:port")
        return cls(_settings(options, nodes=entries, nodes_origin="from_nodes"), **options)

    @classmethod
    def discover(cls, seed: str, **options: Unpack[Options]) -> Self:
        """The cluster of the runtime at ``seed`` (`host` or `host:port`), which is asked for the other nodes.

        It tells names, not ports: all nodes are taken to have the seed's, and of several on one host only one
        is found. One dead node keeps it from answering. `membership_error` says what is missing; a hostfile
        is better wherever there is one.

        Raises:
            ConfigError: ``seed`` is not that.
        """
        entry = parse_entry(seed, "discover", 1)
        return cls(_settings(options, seed=entry, environment=False), **options)

    @classmethod
    def from_environment(cls, **options: Unpack[Options]) -> Self:
        """The cluster that the exporter would find on this host without any settings.

        In this order: CONTAINER_HOSTFILE, the hostfile named by the runtime's configuration (found by
        CLIO_SERVER_CONF and so on), discovery from the runtime on this host.

        Raises:
            ConfigError: a file that these name cannot be used.
        """
        return cls(_settings(options), **options)

    @property
    def source(self) -> MembershipSource:
        """Where the list of nodes comes from."""
        return self._membership.source

    @property
    def membership_error(self) -> str | None:
        """Why the list of nodes may be out of date; None when it is current, as of the last call."""
        return self._membership.error

    def _members(self, timeout: float | None) -> concurrent.futures.Future[tuple[Member, ...]]:
        return self._submit(self._refresh, timeout)

    def _one(
        self, member: Member, question: Question[_T], timeout: float | None
    ) -> concurrent.futures.Future[_T]:
        async def ask(transport: Transport, deadline: float) -> _T:
            return await question(transport, member, deadline)

        return self._submit(ask, timeout)

    def _all(
        self, question: Question[_T], timeout: float | None
    ) -> concurrent.futures.Future[list[NodeResult[_T]]]:
        async def ask(transport: Transport, deadline: float) -> list[NodeResult[_T]]:
            members = await self._refresh(transport, deadline)
            return list(await asyncio.gather(*(_result(question, transport, m, deadline) for m in members)))

        return self._submit(ask, timeout)

    def _config_files(self, timeout: float | None) -> concurrent.futures.Future[tuple[ConfigFile, ...]]:
        async def read(transport: Transport, deadline: float) -> tuple[ConfigFile, ...]:
            members = await self._refresh(transport, deadline)
            return await self._configs.refresh(members, deadline - asyncio.get_running_loop().time())

        return self._submit(read, timeout)

    async def _refresh(self, transport: Transport, deadline: float) -> tuple[Member, ...]:
        members = await self._membership.refresh(transport, deadline)
        transport.retain(frozenset(member.address for member in members))
        return members

    def _submit(
        self, work: Callable[[Transport, float], Coroutine[Any, Any, _T]], timeout: float | None
    ) -> concurrent.futures.Future[_T]:
        seconds = self._timeout if timeout is None else timeout

        async def bounded(transport: Transport) -> _T:
            deadline = asyncio.get_running_loop().time() + seconds
            try:
                return await asyncio.wait_for(work(transport, deadline), seconds + _GRACE_S)
            except (asyncio.TimeoutError, TimeoutError):
                raise HungError(f"no result within {seconds:g} s") from None

        return self._client.submit(bounded)


class Cluster(_Base):
    """A cluster of CLIO runtimes. Thread-safe; use it as a context manager, or `close` it.

    It owns one thread, the connections to the nodes and the reply socket, all made at the first question.
    ``timeout`` of every method is in seconds; None: that of the cluster. After `close`, and where this host
    cannot open a socket, methods raise `RuntimeClientError` of their kind. Not to be carried into another
    process by `fork`.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and end the thread. May be called more than once."""
        self._client.close()

    def nodes(self, timeout: float | None = None) -> tuple[Node, ...]:
        """The nodes, by id; `membership_error` says when they may be out of date."""
        return tuple(Node(self, member) for member in self._members(timeout).result())

    def node(self, which: int | str, timeout: float | None = None) -> Node:
        """The node with this id, name or `host:port`.

        Raises:
            LookupError: there is none.
        """
        return Node(self, _find(self._members(timeout).result(), which))

    def status(self, timeout: float | None = None) -> list[NodeResult[NodeStatus]]:
        """Of each node which runtime answers there, or why none does."""
        return self._all(_status, timeout).result()

    def workers(self, timeout: float | None = None) -> list[NodeResult[tuple[WorkerStats, ...]]]:
        """Of each node its worker threads."""
        return self._all(_workers, timeout).result()

    def samples(
        self, since: int | Mapping[int, int] = 0, last: int = RING_ENTRIES, timeout: float | None = None
    ) -> list[NodeResult[tuple[SystemSample, ...]]]:
        """Of each node what `Node.samples` tells; ``since`` may be a mapping by node id."""
        return self._all(_samples(since, last), timeout).result()

    def pools(self, timeout: float | None = None) -> list[NodeResult[tuple[Pool, ...]]]:
        """Of each node the pools with a container there, and what each reports."""
        return self._all(_pools, timeout).result()

    def devices(self, timeout: float | None = None) -> list[NodeResult[tuple[Pool, ...]]]:
        """Of each node its block devices: pools whose ``stats`` are `BdevStats` or `SafeBdevStats`."""
        return self._all(_devices, timeout).result()

    def config_files(self, timeout: float | None = None) -> tuple[ConfigFile, ...]:
        """The runtimes' configuration files that this host can see; () when none is known.

        ``entries`` have the values of known keys only, ``config.document`` is the whole file, secrets too.
        """
        return self._config_files(timeout).result()


class AsyncCluster(_Base):
    """`Cluster` for code on an event loop: the same methods as coroutines; use it with ``async with``.

    The work is done on the cluster's own thread, so any event loop will do. To cancel a call is harmless.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and end the thread. May be called more than once."""
        await asyncio.to_thread(self._client.close)

    async def nodes(self, timeout: float | None = None) -> tuple[AsyncNode, ...]:
        """The nodes, by id; `membership_error` says when they may be out of date."""
        return tuple(AsyncNode(self, member) for member in await _awaitable(self._members(timeout)))

    async def node(self, which: int | str, timeout: float | None = None) -> AsyncNode:
        """The node with this id, name or `host:port`."""
        return AsyncNode(self, _find(await _awaitable(self._members(timeout)), which))

    async def status(self, timeout: float | None = None) -> list[NodeResult[NodeStatus]]:
        """Of each node which runtime answers there, or why none does."""
        return await _awaitable(self._all(_status, timeout))

    async def workers(self, timeout: float | None = None) -> list[NodeResult[tuple[WorkerStats, ...]]]:
        """Of each node its worker threads."""
        return await _awaitable(self._all(_workers, timeout))

    async def samples(
        self, since: int | Mapping[int, int] = 0, last: int = RING_ENTRIES, timeout: float | None = None
    ) -> list[NodeResult[tuple[SystemSample, ...]]]:
        """Of each node what `Node.samples` tells; ``since`` may be a mapping by node id."""
        return await _awaitable(self._all(_samples(since, last), timeout))

    async def pools(self, timeout: float | None = None) -> list[NodeResult[tuple[Pool, ...]]]:
        """Of each node the pools with a container there, and what each reports."""
        return await _awaitable(self._all(_pools, timeout))

    async def devices(self, timeout: float | None = None) -> list[NodeResult[tuple[Pool, ...]]]:
        """Of each node its block devices: pools whose ``stats`` are `BdevStats` or `SafeBdevStats`."""
        return await _awaitable(self._all(_devices, timeout))

    async def config_files(self, timeout: float | None = None) -> tuple[ConfigFile, ...]:
        """The runtimes' configuration files that this host can see; () when none is known."""
        return await _awaitable(self._config_files(timeout))


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a `Cluster`; its methods raise `RuntimeClientError`, whose kind says what is wrong.

    ``timeout`` of every method is in seconds; None: that of the cluster.
    """

    _cluster: Cluster
    member: Member

    def status(self, timeout: float | None = None) -> NodeStatus:
        """Which runtime answers there."""
        return self._cluster._one(self.member, _status, timeout).result()

    def workers(self, timeout: float | None = None) -> tuple[WorkerStats, ...]:
        """The worker threads."""
        return self._cluster._one(self.member, _workers, timeout).result()

    def samples(
        self, since: int = 0, last: int = RING_ENTRIES, timeout: float | None = None
    ) -> tuple[SystemSample, ...]:
        """What the node's ring holds, one sample a second, from event id ``since`` on, ascending.

        At most the ``last`` ones. Pass the newest event id + 1 to get what is new only. A runtime that was
        started anew counts from 0 again and has nothing from there on: `status` tells one run from the next.
        """
        return self._cluster._one(self.member, _samples(since, last), timeout).result()

    def pools(self, timeout: float | None = None) -> tuple[Pool, ...]:
        """The pools with a container on the node, and what each reports."""
        return self._cluster._one(self.member, _pools, timeout).result()

    def devices(self, timeout: float | None = None) -> tuple[Pool, ...]:
        """The block devices: pools whose ``stats`` are `BdevStats` or `SafeBdevStats`."""
        return self._cluster._one(self.member, _devices, timeout).result()

    def config_file(self, timeout: float | None = None) -> ConfigFile | None:
        """The runtime's configuration file; None when this host knows of none. See `Cluster.config_files`."""
        return _config_of(self._cluster.config_files(timeout), self.member)


@dataclass(frozen=True, slots=True)
class AsyncNode:
    """One node of an `AsyncCluster`: the methods of `Node` as coroutines."""

    _cluster: AsyncCluster
    member: Member

    async def status(self, timeout: float | None = None) -> NodeStatus:
        """Which runtime answers there."""
        return await _awaitable(self._cluster._one(self.member, _status, timeout))

    async def workers(self, timeout: float | None = None) -> tuple[WorkerStats, ...]:
        """The worker threads."""
        return await _awaitable(self._cluster._one(self.member, _workers, timeout))

    async def samples(
        self, since: int = 0, last: int = RING_ENTRIES, timeout: float | None = None
    ) -> tuple[SystemSample, ...]:
        """What the node's ring holds, one sample a second, from event id ``since`` on, ascending."""
        return await _awaitable(self._cluster._one(self.member, _samples(since, last), timeout))

    async def pools(self, timeout: float | None = None) -> tuple[Pool, ...]:
        """The pools with a container on the node, and what each reports."""
        return await _awaitable(self._cluster._one(self.member, _pools, timeout))

    async def devices(self, timeout: float | None = None) -> tuple[Pool, ...]:
        """The block devices: pools whose ``stats`` are `BdevStats` or `SafeBdevStats`."""
        return await _awaitable(self._cluster._one(self.member, _devices, timeout))

    async def config_file(self, timeout: float | None = None) -> ConfigFile | None:
        """The runtime's configuration file; None when this host knows of none."""
        return _config_of(await self._cluster.config_files(timeout), self.member)


# --- the questions, as members are asked them ------------------------------------------------------------


async def _status(transport: Transport, member: Member, deadline: float) -> NodeStatus:
    return await questions.status(transport, member.address, deadline)


async def _workers(transport: Transport, member: Member, deadline: float) -> tuple[WorkerStats, ...]:
    return await questions.workers(transport, member.address, deadline)


def _samples(since: int | Mapping[int, int], last: int) -> Question[tuple[SystemSample, ...]]:
    async def ask(transport: Transport, member: Member, deadline: float) -> tuple[SystemSample, ...]:
        first = since if isinstance(since, int) else since.get(member.node_id, 0)
        return await questions.samples(transport, member.address, deadline, since=first, last=last)

    return ask


async def _pools(transport: Transport, member: Member, deadline: float) -> tuple[Pool, ...]:
    return await questions.pools(transport, member.address, deadline)


async def _devices(transport: Transport, member: Member, deadline: float) -> tuple[Pool, ...]:
    return await questions.pools(transport, member.address, deadline, devices_only=True)


async def _result(
    question: Question[_T], transport: Transport, member: Member, deadline: float
) -> NodeResult[_T]:
    try:
        return NodeResult(member, await question(transport, member, deadline))
    except RuntimeClientError as error:
        return NodeResult(member, error=error)
    except Exception as defect:  # noqa: BLE001 - ours, met by this node's answer: not the other nodes' trouble
        lost = RuntimeClientError(f"{member.address}: answer could not be handled: {defect!r}")
        lost.__cause__ = defect
        return NodeResult(member, error=lost)


# --- small helpers ---------------------------------------------------------------------------------------


def _settings(options: Options, **fields: Any) -> ClusterSettings:
    runtime_config = options.get("runtime_config")
    return ClusterSettings(
        port=options.get("port"),
        generation=options.get("generation"),
        runtime_config=None if runtime_config is None else os.fspath(runtime_config),
        **fields,
    )


def _find(members: tuple[Member, ...], which: int | str) -> Member:
    for member in members:
        names = (member.hostname.lower(), member.target.lower())
        if member.node_id == which if isinstance(which, int) else which.lower() in names:
            return member
    known = ", ".join(f"{member.node_id} ({member.target})" for member in members[:8])
    raise LookupError(f"there is no node {which!r}; of {len(members)} nodes the first are {known}")


def _config_of(files: Iterable[ConfigFile], member: Member) -> ConfigFile | None:
    return next((file for file in files if file.member in (None, member)), None)


async def _awaitable(future: concurrent.futures.Future[_T]) -> _T:
    return await asyncio.wrap_future(future)
