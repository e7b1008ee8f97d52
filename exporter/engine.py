"""The scrape engine: who is asked, what is remembered of them, and the samples of a scrape."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from exporter.collection import Cluster, Collection, FindRoster, Roster, SingleFlight
from exporter.collectors import COLLECTORS, Collector
from exporter.config.hostfile import DEFAULT_PORT
from exporter.config.membership_source import HostfileNodes, MembershipSource
from exporter.config.settings import RuntimeSettings, Settings
from exporter.config_files import ConfigFiles
from exporter.exposition import Family, Kind, Samples, Scope, label_text
from exporter.logs import DefectLog, StateLog, get_logger
from exporter.membership import ClusterMembership, ForeignTargets, Member
from exporter.poller import NodePoller, PollOptions
from exporter.runtime.binding_transport import BindingTransport, import_binding
from exporter.runtime.client import RuntimeClient
from exporter.runtime.transport import Transport
from exporter.runtime.zmq_transport import ZmqTransport
from exporter.snapshot import NOT_YET, ClusterSnapshot, NodeSnapshot
from exporter.telemetry import Telemetry
from exporter.web.service import ClusterSummary, UnknownTarget

MAX_FIRST_CONTACTS: Final = 16
"""Nodes that may send their whole ring (0.3 MB) at the same time."""

MAX_FOREIGN_TARGETS: Final = 4096
"""Targets outside the clusters that are remembered, where `/probe` may ask any."""

_MIN_BUDGET_S: Final = 0.05
_GRACE_S: Final = 2.0
_LANDING_S: Final = 10.0

COLLECTOR_SUCCESS = Family(
    "clio_collector_success",
    Kind.GAUGE,
    "1 if every node that is up answered what the collector asked and it could be read, else 0.",
    "exporter",
    ("collector",),
    Scope.EXPORTER,
)
COLLECTOR_DURATION = Family(
    "clio_collector_duration_seconds",
    Kind.GAUGE,
    "Time until the last node had answered what the collector asked, and to make its samples.",
    "exporter",
    ("collector",),
    Scope.EXPORTER,
)
NODES = Family("clio_cluster_nodes", Kind.GAUGE, "Members of the cluster.", "membership", (), Scope.CLUSTER)
MEMBERSHIP_SUCCESS = Family(
    "clio_cluster_membership_success",
    Kind.GAUGE,
    "1 if the membership (hostfile or discovery) could be read, 0 while the last good one is used.",
    "membership",
    (),
    Scope.CLUSTER,
)
FAMILIES: Final = (COLLECTOR_SUCCESS, COLLECTOR_DURATION, NODES, MEMBERSHIP_SUCCESS)

_log = get_logger(__name__)
_defects = DefectLog(_log)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Result:
    """Samples of one scrape, and what of the exporter itself goes with them.

    Attributes:
        clusters: what the samples were made from.
        telemetry: rendered after the samples; None for `/probe`.
        transport: `Transport.counters` for the telemetry.
    """

    samples: Samples
    clusters: tuple[ClusterSnapshot, ...]
    telemetry: Telemetry | None = None
    transport: Mapping[str, int] = field(default_factory=dict)

    def render(self, openmetrics: bool) -> Iterator[bytes]:
        """Exposition text in chunks."""
        yield from self.samples.render(openmetrics)
        if self.telemetry is not None:
            yield from self.telemetry.render(openmetrics, self.transport)
        if openmetrics:
            yield b"# EOF\n"

    @property
    def nodes(self) -> tuple[NodeSnapshot, ...]:
        """Every node of every cluster."""
        return tuple(node for cluster in self.clusters for node in cluster.nodes)


class _State:
    """What one set of settings leads to; replaced as a whole by a reload.

    ``pollers`` belongs to the event loop, the rest may be read anywhere.
    """

    def __init__(self, settings: Settings, env: Mapping[str, str], home: Path, client: RuntimeClient) -> None:
        self.settings = settings
        self.client = client
        self.clusters = _build_clusters(settings, env, home)
        self.foreign = ForeignTargets(settings.runtime, MAX_FOREIGN_TARGETS)
        self.pollers: dict[Member, NodePoller] = {}
        self._options = PollOptions(
            peak_window=settings.collectors.node_peak_window_seconds,
            container_interval=settings.collectors.pool_interval_seconds,
        )
        self._first_contacts = asyncio.Semaphore(MAX_FIRST_CONTACTS)

    def poller(self, member: Member) -> NodePoller:
        """The poller that remembers this member."""
        poller = self.pollers.get(member)
        if poller is None:
            poller = self.pollers[member] = NodePoller(member, self._options, self._first_contacts)
        return poller


class Engine:
    """Implements `exporter.web.service.MetricsService` over runtimes. All methods are thread-safe."""

    def __init__(
        self,
        load: Callable[[], Settings],
        env: Mapping[str, str],
        home: Path,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``load`` reads the settings, at start and at every reload.

        Raises:
            ConfigError: the settings, or a hostfile they name, cannot be used.
            TransportUnavailableError: the transport they ask for is not installed.
        """
        self._load = load
        self._env = env
        self._home = home
        self._clock = clock
        self.telemetry = telemetry or Telemetry()
        self._reload_lock = threading.Lock()
        self._flights = SingleFlight()
        self._node_states = StateLog(_log)
        self._up: dict[Member, bool] = {}
        self._render_seconds = 0.0
        self._closed = False
        self._state = self._read_state(None)
        self.telemetry.reloaded(True, clock())

    # --- MetricsService ---------------------------------------------------------------------------

    @property
    def collectors(self) -> tuple[str, ...]:
        """Names of the enabled collectors."""
        settings = self._state.settings.collectors
        return tuple(c.name for c in COLLECTORS if settings.is_enabled(c.name))

    def scrape(self, collectors: frozenset[str] | None, timeout: float) -> Result:
        """See `MetricsService.scrape`."""
        # What writing took last time is kept free, so that a large cluster's answer is out in time.
        budget = max(_MIN_BUDGET_S, timeout - self._render_seconds)
        state = self._state
        chosen = self._chosen(collectors)
        collection, shared = self._collect(
            state, ("all", collectors), chosen, budget, lambda *args: self._members(state, *args)
        )
        self.telemetry.collection(shared=shared)
        started = time.monotonic()
        result = _result(collection, chosen, self.telemetry, state.client.counters())
        self._render_seconds = time.monotonic() - started
        if any(collector.topics for collector in chosen):
            self._up = {node.member: node.up for node in result.nodes}
            self._report(result.nodes)
        return result

    def probe(self, target: str, collectors: frozenset[str] | None, timeout: float) -> Result:
        """See `MetricsService.probe`; members only, unless the settings allow any target."""
        state = self._state
        cluster, member = self._find(state, target)
        chosen = self._chosen(collectors)

        async def only(_transport: Transport, _deadline: float) -> Roster:
            return [(cluster, [member])]

        collection, _ = self._collect(state, (member, collectors), chosen, timeout, only)
        return _result(collection, chosen, None, {})

    def target_groups(self) -> list[dict[str, Any]]:
        """See `MetricsService.target_groups`: one group a node, labels for relabelling."""
        self._refresh(self._state)
        return [
            {
                "targets": [member.target],
                "labels": {
                    "__meta_clio_cluster": member.cluster,
                    "__meta_clio_node_id": str(member.node_id),
                    "__meta_clio_hostname": member.hostname,
                },
            }
            for membership in _memberships(self._state)
            for member in membership.members()
        ]

    def ready(self) -> bool:
        """See `MetricsService.ready`: settings are read; scrapes are served with or without runtimes."""
        return not self._closed

    def reload(self) -> None:
        """See `MetricsService.reload`; what is wrong leaves everything as it was."""
        with self._reload_lock:
            old = self._state
            try:
                self._state = self._read_state(old)
            except Exception:
                self.telemetry.reloaded(False, self._clock())
                raise
            if old.client is not self._state.client:
                # Scrapes that began with the old settings end with them.
                self._flights.land(_LANDING_S)
                old.client.close()
            self.telemetry.reloaded(True, self._clock())
            _log.info("settings reloaded", clusters=len(self._state.clusters))

    def summary(self) -> list[ClusterSummary]:
        """See `MetricsService.summary`."""
        up = self._up
        summaries = []
        for membership in _memberships(self._state):
            members = membership.members()
            known = [up[member] for member in members if member in up]
            summaries.append(
                ClusterSummary(
                    name=membership.name or "default",
                    nodes=len(members),
                    up=sum(known) if known else None,
                    source=_described(membership.source),
                )
            )
        return summaries

    def close(self) -> None:
        """Close connections and the I/O thread."""
        self._closed = True
        self._state.client.close()

    # --- inside -----------------------------------------------------------------------------------

    def _read_state(self, old: _State | None) -> _State:
        settings = self._load()
        runtime = settings.runtime
        if runtime.transport == "binding":
            import_binding()
        if old is not None and old.settings.runtime == runtime:
            client = old.client
        else:
            client = RuntimeClient(lambda: make_transport(runtime))
        return _State(settings, self._env, self._home, client)

    def _chosen(self, names: frozenset[str] | None) -> tuple[Collector, ...]:
        return tuple(c for c in COLLECTORS if c.name in (self.collectors if names is None else names))

    def _collect(
        self, state: _State, key: object, chosen: Sequence[Collector], budget: float, find_roster: FindRoster
    ) -> tuple[Collection, bool]:
        topics = frozenset(topic for collector in chosen for topic in collector.topics)
        node_seconds = state.settings.runtime.timeout_seconds
        collection, shared = self._flights.join(
            (id(state), key),
            lambda new: new.start(
                state.client,
                find_roster,
                state.poller,
                topics,
                budget,
                node_seconds,
                with_configs=any(collector.reads_config for collector in chosen),
            ),
        )
        collection.wait(budget)
        return collection, shared

    async def _members(self, state: _State, transport: Transport, deadline: float) -> Roster:
        memberships = _memberships(state)
        members = await asyncio.gather(*(m.refresh(transport, deadline) for m in memberships))
        kept = {member for cluster in members for member in cluster} | state.foreign.members()
        for gone in [member for member in state.pollers if member not in kept]:
            del state.pollers[gone]
            self._node_states.forget(gone)
        transport.retain(frozenset(member.address for member in kept))
        return list(zip(state.clusters, members, strict=True))

    def _refresh(self, state: _State) -> None:
        """Bring the membership up to date where no scrape does."""
        seconds = state.settings.runtime.timeout_seconds

        async def refresh(transport: Transport) -> Roster:
            return await self._members(state, transport, asyncio.get_running_loop().time() + seconds)

        state.client.call(refresh, seconds + _GRACE_S)

    def _find(self, state: _State, target: str) -> tuple[Cluster, Member]:
        # From the right: an IPv6 target is valid HTTP, though no runtime can be reached by it.
        host, separator, port_text = target.rpartition(":")
        host, port = (host, int(port_text)) if separator else (target, None)
        found = _member(state, host, port)
        if found is None:
            self._refresh(state)
            found = _member(state, host, port)
        if found is not None:
            return found
        if not state.settings.probe.allow_any:
            raise UnknownTarget(
                f"{target} is not a member of a configured cluster; /sd lists the members. "
                "Start with --probe.allow-any to ask other targets"
            )
        return Cluster(), state.foreign.find(host, DEFAULT_PORT if port is None else port)

    def _report(self, nodes: Sequence[NodeSnapshot]) -> None:
        for node in nodes:
            member = node.member
            fields: dict[str, Any] = {"node": member.target, "node_id": member.node_id}
            if member.cluster:
                fields["cluster"] = member.cluster
            if node.up:
                self._node_states.report(member, True, "node is up again", **fields)
            else:
                error = node.failure or NOT_YET
                fields |= {"reason": error.reason, "error": str(error)}
                self._node_states.report(member, False, "node is down", **fields)


def make_transport(runtime: RuntimeSettings) -> Transport:
    """The transport the settings ask for; to be called on the client's event loop.

    Raises:
        TransportUnavailableError: it cannot be used on this machine.
    """
    if runtime.transport == "binding":
        return BindingTransport()
    return ZmqTransport(reply_port=runtime.reply_port, max_in_flight=runtime.max_in_flight)


def _build_clusters(settings: Settings, env: Mapping[str, str], home: Path) -> tuple[Cluster, ...]:
    labelled = len(settings.clusters) > 1 or bool(settings.clusters[0].name)
    clusters = []
    for cluster in settings.clusters:
        membership = ClusterMembership(cluster, settings.runtime, env, home, with_cluster_label=labelled)
        clusters.append(Cluster(membership, ConfigFiles(cluster, env, home, membership.labels)))
    return tuple(clusters)


def _described(source: MembershipSource) -> str:
    return f"{source.path} ({source.origin})" if isinstance(source, HostfileNodes) else source.origin


def _memberships(state: _State) -> list[ClusterMembership]:
    return [cluster.membership for cluster in state.clusters if cluster.membership is not None]


def _member(state: _State, host: str, port: int | None) -> tuple[Cluster, Member] | None:
    """The member that is meant, by the text of the membership; None when there is none."""
    for cluster in state.clusters:
        if cluster.membership is None:
            continue
        wanted = (host.lower(), cluster.membership.source.default_port if port is None else port)
        for member in cluster.membership.members():
            if (member.hostname.lower(), member.address.port) == wanted:
                return cluster, member
    return None


def _result(
    collection: Collection,
    chosen: Sequence[Collector],
    telemetry: Telemetry | None,
    transport: Mapping[str, int],
) -> Result:
    """Samples of what a collection has learned by now."""
    clusters = collection.snapshots()
    samples = Samples((*(family for c in chosen for family in c.families), *FAMILIES))
    for collector in chosen:
        started = time.monotonic()
        ok, asked_seconds = _run(collector, clusters, samples)
        labels = label_text({"collector": collector.name})
        samples.add(COLLECTOR_SUCCESS, labels, ok)
        samples.add(COLLECTOR_DURATION, labels, asked_seconds + time.monotonic() - started)
    if telemetry is not None:
        for cluster in clusters:
            samples.add(NODES, cluster.labels, len(cluster.nodes))
            samples.add(MEMBERSHIP_SUCCESS, cluster.labels, cluster.membership_error is None)
    return Result(samples, clusters, telemetry, transport)


def _run(collector: Collector, clusters: Sequence[ClusterSnapshot], samples: Samples) -> tuple[bool, float]:
    """Run one collector: whether all went well, and how long the slowest node took to answer it."""
    ok, slowest = True, 0.0
    for cluster in clusters:
        for node in cluster.nodes:
            ok &= _guarded(collector, collector.collect_node, node, samples)
            for topic in node.askable(collector.topics) if node.up else ():
                outcome = node.outcomes.get(topic)
                if outcome is None or outcome.error is not None:
                    ok = False
                if outcome is not None:
                    slowest = max(slowest, outcome.seconds)
        ok &= _guarded(collector, collector.collect_cluster, cluster, samples)
    return ok, slowest


def _guarded(
    collector: Collector, collect: Callable[[_T, Samples], None], what: _T, samples: Samples
) -> bool:
    """Whether the collector could handle it: a defect must cost neither other collectors nor other nodes."""
    try:
        collect(what, samples)
    except Exception as defect:  # noqa: BLE001 - see above
        _defects.report(defect, "collector failed", collector=collector.name)
        return False
    return True
