"""Which nodes a cluster has: from its settings, its hostfile, or by asking the runtime."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.background import BackgroundRead
from exporter.config.hostfile import HostEntry, hostfile_warnings, read_hostfile_text
from exporter.config.membership_source import (
    DiscoveredNodes,
    ExplicitNodes,
    HostfileWatcher,
    MembershipSource,
    resolve_membership_source,
)
from exporter.config.settings import ClusterSettings, RuntimeSettings
from exporter.exposition import label_text
from exporter.logs import get_logger
from exporter.runtime.codec import Generation, decode_document
from exporter.runtime.errors import RuntimeClientError
from exporter.runtime.records import HostInfo, read_host_info
from exporter.runtime.transport import NodeAddress, Transport

DISCOVERY_QUERY: Final = "pool_stats://1.0:broadcast:get_host_info"
"""Asked this way, a broadcast leaves no error line in the runtime's log (section 2)."""

DISCOVERY_INTERVAL_S: Final = 60.0
DISCOVERY_RETRY_LIMIT_S: Final = 600.0
"""A broadcast over a dead node is never answered and leaves a task behind, so retries thin out."""

HOSTFILE_SECONDS: Final = 1.0
"""How long a scrape waits for the hostfile to be looked at; it may lie on a network file system."""

_UNSPECIFIED: Final = "0.0.0.0"  # noqa: S104 - what a runtime without hostfile calls itself

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a cluster.

    Attributes:
        cluster: the cluster's name; empty when it has none.
        node_id: position in the membership, which is how runtimes number their hostfile.
        hostname: the membership's text for the host.
        address: where and how the node is asked.
        labels: ready label text of every series of this node.
    """

    cluster: str
    node_id: int
    hostname: str
    address: NodeAddress
    labels: str

    @property
    def target(self) -> str:
        """``host:port`` as `/sd` gives it and `/probe` takes it."""
        return str(self.address)


class ClusterMembership:
    """The members of one cluster, kept current. Thread-safe; `refresh` runs on the client's loop."""

    def __init__(
        self,
        settings: ClusterSettings,
        runtime: RuntimeSettings,
        env: Mapping[str, str],
        home: Path,
        *,
        with_cluster_label: bool,
    ) -> None:
        """Find out where the members come from, and read them where that is a file.

        Raises:
            ConfigError: the source cannot be used.
        """
        self.settings = settings
        self.source: MembershipSource = resolve_membership_source(settings, env, home)
        self.error: str | None = None
        self._runtime = runtime
        self._with_cluster_label = with_cluster_label
        self._lock = threading.Lock()
        self._entries: tuple[HostEntry, ...] | None = None
        self._members: tuple[Member, ...] = ()
        self._next_discovery = 0.0
        self._discovery_pause = DISCOVERY_INTERVAL_S
        self._seed: NodeAddress | None = None
        self._watcher: HostfileWatcher | None = None
        self._file: BackgroundRead[list[HostEntry]] | None = None
        if isinstance(self.source, ExplicitNodes):
            self._set(self.source.entries)
        elif isinstance(self.source, DiscoveredNodes):
            # Until it has been asked: the node that will be.
            self._set((HostEntry(self.source.host, self.source.port, 0),))
        else:
            self._watcher = HostfileWatcher(self.source.path, self.source.default_port)
            self._file = BackgroundRead(self._watcher.entries)
            self._set(self._watcher.entries())
            if settings.hostfile is None:
                # Found where the runtime looks for its own, so the runtime reads this file too.
                for warning in hostfile_warnings(*read_hostfile_text(self.source.path)):
                    _log.warning("hostfile", cluster=settings.name, warning=warning)

    @property
    def name(self) -> str:
        """The cluster's name; empty when it has none."""
        return self.settings.name

    @property
    def labels(self) -> str:
        """Ready label text of series about the cluster."""
        return label_text({"cluster": self.name}) if self._with_cluster_label else ""

    def members(self) -> tuple[Member, ...]:
        """The members as of the last `refresh`."""
        with self._lock:
            return self._members

    async def refresh(self, transport: Transport, deadline: float) -> tuple[Member, ...]:
        """Bring the members up to date: read a changed hostfile, or ask the runtime when the time has come.

        What cannot be read or asked leaves them as they were, and `error` says why.
        """
        loop = asyncio.get_running_loop()
        if self._file is not None:
            try:
                self._set(await self._file.result(min(deadline - loop.time(), HOSTFILE_SECONDS)))
                broken = self._watcher.last_error if self._watcher else None
                self._report(None if broken is None else str(broken))
            except TimeoutError:
                self._report(f"{self.source.origin}: reading it takes more than {HOSTFILE_SECONDS:g} s")
        elif isinstance(self.source, DiscoveredNodes) and loop.time() >= self._next_discovery:
            # Set first, so that concurrent scrapes do not ask too.
            self._next_discovery = loop.time() + self._discovery_pause
            await self._discover(transport, deadline, self.source)
            self._next_discovery = loop.time() + self._discovery_pause
        return self.members()

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
            answer = (await transport.monitor(seed, DISCOVERY_QUERY, deadline)).raise_for_code()
            hosts = [read_host_info(document) for document in answer.decode().values()]
            own = await self._number_of(seed, transport, deadline)
        except RuntimeClientError as error:
            self._discovery_pause = min(
                max(self._discovery_pause, DISCOVERY_INTERVAL_S) * 2, DISCOVERY_RETRY_LIMIT_S
            )
            self._report(f"{source.origin}: {error} (is a node down? With a hostfile nobody need be asked)")
            return
        self._discovery_pause = DISCOVERY_INTERVAL_S
        entries = _entries_of(hosts, source)
        if entries:
            self._set(entries)
            # From now on the seed is asked as the member that it is: one runtime, one connection.
            self._seed = next((m.address for m in self.members() if m.node_id == own), None)
        self._report(None)

    async def _number_of(self, seed: NodeAddress, transport: Transport, deadline: float) -> int | None:
        answer = (await transport.monitor(seed, "get_host_info", deadline)).raise_for_code()
        document = answer.sole_document()
        return None if document is None else read_host_info(decode_document(document)).node_id

    def _set(self, entries: Sequence[HostEntry]) -> None:
        with self._lock:
            if self._entries == tuple(entries):
                return
            self._entries = tuple(entries)
            self._members = tuple(self._member(entry, index) for index, entry in enumerate(entries))

    def _member(self, entry: HostEntry, index: int) -> Member:
        labels = {"node_id": str(index), "hostname": entry.host}
        if self._with_cluster_label:
            labels = {"cluster": self.name, **labels}
        return Member(self.name, index, entry.host, self._address(entry, index), label_text(labels))

    def _address(self, entry: HostEntry, index: int) -> NodeAddress:
        port = self.source.default_port if entry.port is None else entry.port
        override = self.settings.override_for(entry.host, port)
        generation = self.settings.generation_for(entry.host, port)
        return NodeAddress(
            host=entry.host,
            port=port,
            index=index,
            generation=None if generation is None else Generation(generation),
            reply_address=override.reply_address or self._runtime.reply_address,
        )

    def _report(self, error: str | None) -> None:
        if error == self.error:
            return
        self.error = error
        if error is None:
            _log.info("membership is readable again", cluster=self.name)
        else:
            _log.warning(
                "membership could not be read; keeping the nodes known before", cluster=self.name, error=error
            )


class ForeignTargets:
    """Targets `/probe` was asked for that are no members, where any may be; the last used are remembered."""

    def __init__(self, runtime: RuntimeSettings, limit: int) -> None:
        self._runtime = runtime
        self._limit = limit
        self._lock = threading.Lock()
        self._members: OrderedDict[tuple[str, int], Member] = OrderedDict()

    def find(self, host: str, port: int) -> Member:
        """The member that stands for this target; it has no number."""
        with self._lock:
            member = self._members.get((host, port))
            if member is None:
                address = NodeAddress(host, port, reply_address=self._runtime.reply_address)
                member = Member("", 0, host, address, label_text({"node_id": "", "hostname": host}))
                self._members[host, port] = member
            self._members.move_to_end((host, port))
            if len(self._members) > self._limit:
                self._members.popitem(last=False)
            return member

    def members(self) -> frozenset[Member]:
        """The targets remembered."""
        with self._lock:
            return frozenset(self._members.values())


def _entries_of(hosts: list[HostInfo], source: DiscoveredNodes) -> tuple[HostEntry, ...]:
    """Members by node id. A node that does not know its address is the one that was asked."""
    found = sorted((h for h in hosts if h.node_id is not None), key=lambda h: h.node_id or 0)
    names = [h.hostname or h.ip_address or _UNSPECIFIED for h in found]
    return tuple(HostEntry(source.host if n == _UNSPECIFIED else n, source.port, 0) for n in names)
