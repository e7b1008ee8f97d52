"""Which nodes a cluster has: from its settings, its hostfile, or by asking the runtime."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clio_client import questions
from clio_client.background import BackgroundRead, result_within
from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import HostEntry, hostfile_warnings, read_hostfile_text
from clio_client.config.membership_source import (
    DiscoveredNodes,
    ExplicitNodes,
    MembershipSource,
    resolve_membership_source,
    watched_hostfile,
)
from clio_client.config.settings import ClusterSettings, RuntimeSettings
from clio_client.config.watched_file import WatchedFile
from clio_client.discovery import discovered_hosts, incomplete
from clio_client.errors import RuntimeClientError
from clio_client.logs import get_logger
from clio_client.protocol.codec import Generation
from clio_client.single_flight import SingleFlight
from clio_client.transport.interface import NodeAddress, Transport

DISCOVERY_INTERVAL_S: Final = 60.0
DISCOVERY_RETRY_LIMIT_S: Final = 600.0
"""A broadcast over a dead node is never answered and leaves a task behind, so retries thin out."""

HOSTFILE_SECONDS: Final = 1.0
"""How long a scrape waits for the hostfile to be looked at; it may lie on a network file system."""

DISCOVERY_SECONDS: Final = 3.0
"""What the runtime has to tell the nodes; who asks may wait less."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a cluster.

    Attributes:
        cluster: the cluster's name; empty when it has none.
        node_id: the runtime's own for a discovered node; else the position in the hostfile or the settings,
            which is how runtimes number their hostfile.
        hostname: the membership's text for the host, or what a discovered node calls it.
        address: where and how the node is asked.
    """

    cluster: str
    node_id: int
    hostname: str
    address: NodeAddress

    @property
    def target(self) -> str:
        """``host:port`` as `/sd` gives it and `/probe` takes it."""
        return str(self.address)


class MembershipError(Exception):
    """Who is in the cluster cannot be told now; the text says why, and what to do."""


class ClusterMembership:
    """The members of one cluster, kept current. Thread-safe; the coroutines run on the client's loop."""

    def __init__(
        self,
        settings: ClusterSettings,
        runtime: RuntimeSettings,
        env: Mapping[str, str],
        home: Path,
    ) -> None:
        """Find out where the members come from, and read them where that is a file.

        Raises:
            ConfigError: the source cannot be used.
        """
        self.settings = settings
        self.source: MembershipSource = resolve_membership_source(settings, env, home)
        self.error: str | None = None
        self._runtime = runtime
        self._lock = threading.Lock()
        self._entries: tuple[tuple[int, HostEntry], ...] | None = None
        self._members: tuple[Member, ...] = ()
        self._discoveries: SingleFlight[asyncio.Task[None]] = SingleFlight()
        self._discovered = False
        self._next_discovery = 0.0
        self._discovery_pause = DISCOVERY_INTERVAL_S
        self._seed: NodeAddress | None = None
        self._hostfile: WatchedFile[tuple[HostEntry, ...]] | None = None
        if isinstance(self.source, ExplicitNodes):
            self._set(enumerate(self.source.entries))
        elif isinstance(self.source, DiscoveredNodes):
            # Until it has been asked: the node that will be.
            self._set([(0, HostEntry(self.source.host, self.source.port, 0))])
        else:
            self._hostfile = watched_hostfile(self.source.path, self.source.default_port)
            self._changed_file = BackgroundRead(self._hostfile.value)
            self._whole_file = BackgroundRead(self._hostfile.reload)
            self._set(enumerate(self._hostfile.value()))
            if settings.hostfile is None:
                # Found where the runtime looks for its own, so the runtime reads this file too.
                for warning in hostfile_warnings(*read_hostfile_text(self.source.path)):
                    _log.warning("hostfile", cluster=settings.name, warning=warning)

    @property
    def name(self) -> str:
        """The cluster's name; empty when it has none."""
        return self.settings.name

    def members(self) -> tuple[Member, ...]:
        """The members as of the last `refresh`."""
        with self._lock:
            return self._members

    async def refresh(self, transport: Transport, deadline: float) -> tuple[Member, ...]:
        """Bring the members up to date: read a changed hostfile, or ask the runtime when the time has come.

        What cannot be read or asked leaves them as they were, and `error` says why.
        """
        loop = asyncio.get_running_loop()
        if self._hostfile is not None:
            with contextlib.suppress(MembershipError):
                await self._read(self._changed_file, deadline)
        elif isinstance(self.source, DiscoveredNodes) and loop.time() >= self._next_discovery:
            with contextlib.suppress(TimeoutError):
                await result_within(self._discovery(transport, self.source), deadline - loop.time())
        return self.members()

    async def confirmed(self, transport: Transport, deadline: float) -> tuple[Member, ...]:
        """The members for an action, which must not reach another node than the one that was meant.

        A hostfile is read whatever its date. Discovered members are as the runtimes number them, which only a
        restart changes: they stand while the runtime that told them cannot be asked.

        Raises:
            MembershipError: they cannot be brought up to date by ``deadline``.
        """
        loop = asyncio.get_running_loop()
        if self._hostfile is not None:
            await self._read(self._whole_file, deadline)
        elif isinstance(self.source, DiscoveredNodes):
            if not self._discovered or loop.time() >= self._next_discovery:
                with contextlib.suppress(TimeoutError):
                    await result_within(self._discovery(transport, self.source), deadline - loop.time())
            if not self._discovered:
                raise MembershipError(
                    f"{self.error or self.source.origin}: no runtime has told the nodes' numbers yet; "
                    "name the nodes in a hostfile to act on them without one"
                )
        return self.members()

    async def _read(self, read: BackgroundRead[tuple[HostEntry, ...]], deadline: float) -> None:
        """Take the members from the hostfile; keeps them, reports and raises when it cannot be read."""
        seconds = min(deadline - asyncio.get_running_loop().time(), HOSTFILE_SECONDS)
        try:
            self._set(enumerate(await read.result(seconds)))
            error = self._hostfile.error if self._hostfile else None
            problem = None if error is None else str(error)
        except ConfigError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"{self.source.origin}: reading it takes more than {HOSTFILE_SECONDS:g} s"
        self._report(problem)
        if problem is not None:
            raise MembershipError(problem)

    def _discovery(self, transport: Transport, source: DiscoveredNodes) -> asyncio.Task[None]:
        """The discovery under way, which outlasts a caller that cannot wait for it."""

        async def run() -> None:
            loop = asyncio.get_running_loop()
            await self._discover(transport, loop.time() + DISCOVERY_SECONDS, source)
            self._next_discovery = loop.time() + self._discovery_pause

        task, _ = self._discoveries.join(None, lambda: asyncio.get_running_loop().create_task(run()))
        return task

    async def _discover(self, transport: Transport, deadline: float, source: DiscoveredNodes) -> None:
        seed = self._seed or self._address(HostEntry(source.host, source.port, 0), 0)
        try:
            await transport.session(seed, deadline)
        except RuntimeClientError as error:
            # Not connected, nothing sent: may be tried at the next scrape.
            self._discovery_pause = 0.0
            self._report(f"{source.origin}: {error}")
            return
        try:
            hosts = await questions.every_host(transport, seed, deadline)
            own = (await questions.host_info(transport, seed, deadline)).node_id
        except RuntimeClientError as error:
            self._discovery_pause = min(
                max(self._discovery_pause, DISCOVERY_INTERVAL_S) * 2, DISCOVERY_RETRY_LIMIT_S
            )
            self._report(f"{source.origin}: {error} (is a node down? With a hostfile nobody need be asked)")
            return
        self._discovery_pause = DISCOVERY_INTERVAL_S
        found = discovered_hosts(hosts, source.host, own)
        if found.hosts:
            self._discovered = True
            self._set([(node_id, HostEntry(host, source.port, 0)) for node_id, host in found.hosts])
            # From now on the seed is asked as the member that it is: one runtime, one connection.
            self._seed = next((m.address for m in self.members() if m.node_id == own), None)
        self._report(incomplete(found.problems))

    def _set(self, entries: Iterable[tuple[int, HostEntry]]) -> None:
        """Take these entries, with their node ids, for the members."""
        with self._lock:
            if self._entries != (entries := tuple(entries)):
                self._entries = entries
                self._members = tuple(
                    Member(self.name, node_id, entry.host, self._address(entry, node_id))
                    for node_id, entry in entries
                )

    def _address(self, entry: HostEntry, node_id: int) -> NodeAddress:
        port = self.source.default_port if entry.port is None else entry.port
        override = self.settings.override_for(entry.host, port)
        generation = self.settings.generation_for(entry.host, port)
        return NodeAddress(
            host=entry.host,
            port=port,
            index=node_id,
            generation=None if generation is None else Generation(generation),
            reply_address=override.reply_address or self._runtime.reply_address,
        )

    def _report(self, error: str | None) -> None:
        if error == self.error:
            return
        self.error = error
        if error is None:
            _log.info("membership is complete and current again", cluster=self.name)
        else:
            _log.warning("membership is not complete or not current", cluster=self.name, error=error)
