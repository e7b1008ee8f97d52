"""The scrape engine: who is asked, what is remembered of them, and the samples of a scrape."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from clio_client.address import DEFAULT_PORT, split_host_port
from clio_client.client import RuntimeClient
from clio_client.clusters import ConfiguredCluster, configured_clusters, refresh_members
from clio_client.config.errors import ConfigError
from clio_client.config.membership_source import HostfileNodes, MembershipSource
from clio_client.membership import Member
from clio_client.single_flight import SingleFlight
from clio_client.transport.choice import check_transport, make_transport
from clio_client.transport.interface import Transport
from clio_exporter import effective
from clio_exporter.cluster_poll import ClusterPoll, FindRoster, Roster
from clio_exporter.collectors import COLLECTORS, Collector
from clio_exporter.constant_labels import JOB
from clio_exporter.exposition import Family, Kind, Samples, Scope, label_text
from clio_exporter.http.service import ClusterSummary, NodeState, UnknownTarget
from clio_exporter.job_map import JobMap
from clio_exporter.labels import cluster_labels
from clio_exporter.poller import NodePoller, PollOptions, PollSlots
from clio_exporter.pool_names import only_chosen
from clio_exporter.probe_report import report
from clio_exporter.probe_targets import ForeignTargets
from clio_exporter.settings import Settings
from clio_exporter.snapshot import NOT_YET, ClusterSnapshot, NodeSnapshot
from clio_exporter.telemetry import Telemetry
from clio_exporter.write_time import WriteTime
from clio_web.logs import get_logger
from clio_web.state_log import DefectLog, StateLog

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
    "1 if the membership (hostfile or discovery) is current and complete, 0 while the last good one is used "
    "or nodes that discovery tells of cannot be found.",
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
        labels: what the telemetry carries too, as the samples do.
        telemetry: rendered after the samples; None for `/probe`.
        written: told the processor seconds of writing all of the text, compression included.
    """

    samples: Samples
    clusters: tuple[ClusterSnapshot, ...]
    telemetry: Telemetry | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    written: Callable[[float], None] | None = None

    def render(self, openmetrics: bool) -> Iterator[bytes]:
        """Exposition text in chunks."""
        started = time.thread_time()
        yield from self._chunks(openmetrics)
        if self.written is not None:
            self.written(time.thread_time() - started)

    def _chunks(self, openmetrics: bool) -> Iterator[bytes]:
        yield from self.samples.render(openmetrics)
        if self.telemetry is not None:
            yield self.telemetry.render(openmetrics, self.labels)
        if openmetrics:
            yield b"# EOF\n"

    def report(self) -> Iterator[str]:
        """Lines for people about every node."""
        for node in self.nodes:
            yield from report(node)

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
        self.clusters = configured_clusters(settings, env, home)
        self.jobs = _job_map(settings)
        self.foreign = ForeignTargets(settings.runtime, MAX_FOREIGN_TARGETS)
        self.pollers: dict[Member, NodePoller] = {}
        self._options = PollOptions(
            timeout=settings.runtime.timeout_seconds,
            peak_window=settings.collectors.node_peak_window_seconds,
            container_interval=settings.collectors.pool_interval_seconds,
        )
        self._slots = PollSlots()

    def poller(self, member: Member) -> NodePoller:
        """The poller that remembers this member."""
        poller = self.pollers.get(member)
        if poller is None:
            poller = self.pollers[member] = NodePoller(member, self._options, self._slots)
        return poller


class Engine:
    """Implements `clio_exporter.http.service.MetricsService` over runtimes. All methods are thread-safe."""

    def __init__(
        self,
        load: Callable[[], Settings],
        env: Mapping[str, str],
        home: Path,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
        *,
        role: str = "exporter",
    ) -> None:
        """``load`` reads the settings, at start and at every reload; ``role``: see `make_transport`.

        Raises:
            ConfigError: the settings, or a hostfile they name, cannot be used.
            TransportUnavailableError: the transport they ask for is not installed.
        """
        self._load = load
        self._env = env
        self._home = home
        self._role = role
        self._clock = clock
        self.telemetry = telemetry or Telemetry()
        self._reload_lock = threading.Lock()
        self._flights: SingleFlight[ClusterPoll] = SingleFlight()
        self._node_states = StateLog(_log)
        self._seen: dict[Member, str | None] = {}
        self._write_time = WriteTime()
        self._closed = False
        self._state = self._read_state(None)
        self.telemetry.reloaded(True, clock())
        self.telemetry.transport = self._transport_counters

    # --- MetricsService ---------------------------------------------------------------------------

    @property
    def collectors(self) -> tuple[str, ...]:
        """Names of the enabled collectors."""
        settings = self._state.settings.collectors
        return tuple(c.name for c in COLLECTORS if settings.is_enabled(c.name))

    def scrape(self, collectors: frozenset[str] | None, timeout: float) -> Result:
        """Collect from every node within ``timeout`` seconds; None: by all enabled collectors."""
        state = self._state
        chosen = self._chosen(collectors)
        members = sum(len(cluster.membership.members()) for cluster in state.clusters)
        # What writing will take is kept free, so that a large cluster's answer is out in time.
        budget = max(_MIN_BUDGET_S, timeout - self._write_time.foreseen(collectors, members, timeout))
        poll, shared = self._collect(
            state, ("all", collectors), chosen, budget, lambda *args: self._members(state, *args)
        )
        self.telemetry.polled(shared=shared)
        started = time.monotonic()
        result = _result(poll, chosen, state, self.telemetry)
        if any(collector.topics for collector in chosen):
            self._seen = {node.member: _why_down(node) for node in result.nodes}
            self._report(result.nodes)
        made = time.monotonic() - started
        up = sum(node.up for node in result.nodes)

        def written(seconds: float) -> None:
            self._write_time.measured(collectors, up, len(result.samples), made + seconds)

        return replace(result, written=written)

    def probe(self, target: str, collectors: frozenset[str] | None, timeout: float) -> Result:
        """Collect from one node (``host:port``): a member, unless the settings allow any target."""
        state = self._state
        cluster, member = self._find(state, target)
        chosen = self._chosen(collectors)

        async def only(_transport: Transport, _deadline: float) -> Roster:
            return [(cluster, [member])]

        poll, _ = self._collect(state, (member, collectors), chosen, timeout, only)
        return _result(poll, chosen, state, None)

    @property
    def labels(self) -> Mapping[str, str]:
        """What every series carries."""
        return dict(self._state.settings.labels.labels)

    def target_groups(self) -> list[dict[str, Any]]:
        """The nodes for Prometheus's HTTP service discovery: one group a node, labels for relabelling."""
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
            for cluster in self._state.clusters
            for member in cluster.membership.members()
        ]

    def ready(self) -> bool:
        """Whether scrapes are served, which they are with or without runtimes."""
        return not self._closed

    def reload(self) -> None:
        """Read settings and membership again; what is wrong leaves everything as it was."""
        with self._reload_lock:
            old = self._state
            try:
                self._state = self._read_state(old)
            except Exception:
                self.telemetry.reloaded(False, self._clock())
                raise
            if old.client is not self._state.client:
                # Scrapes that began with the old settings end with them.
                end = time.monotonic() + _LANDING_S
                for poll in self._flights.under_way():
                    poll.wait(max(0.0, end - time.monotonic()))
                old.client.close()
            self.telemetry.reloaded(True, self._clock())
            _log.info("settings reloaded", clusters=len(self._state.clusters))

    def summary(self) -> list[ClusterSummary]:
        """The clusters for the landing page, from memory."""
        seen = self._seen
        summaries = []
        for membership in (cluster.membership for cluster in self._state.clusters):
            members = membership.members()
            known = [seen[member] is None for member in members if member in seen]
            summaries.append(
                ClusterSummary(
                    name=membership.name or "default",
                    nodes=len(members),
                    up=sum(known) if known else None,
                    source=_described(membership.source),
                    label=membership.name,
                    states=_states(members, seen),
                )
            )
        return summaries

    def config(self) -> dict[str, Any]:
        """The settings in force, with the keys of the settings file; credentials masked."""
        return effective.document(self._state.settings)

    def close(self) -> None:
        """Close connections and the I/O thread."""
        self._closed = True
        self._state.client.close()

    # --- inside -----------------------------------------------------------------------------------

    def _read_state(self, old: _State | None) -> _State:
        settings = self._load()
        runtime = settings.runtime
        check_transport(runtime)
        if old is not None and old.settings.runtime == runtime:
            client = old.client
        else:
            client = RuntimeClient(lambda: make_transport(runtime, self._role))
        return _State(settings, self._env, self._home, client)

    def _transport_counters(self) -> Mapping[str, int]:
        return self._state.client.counters()

    def _chosen(self, names: frozenset[str] | None) -> tuple[Collector, ...]:
        return tuple(c for c in COLLECTORS if c.name in (self.collectors if names is None else names))

    def _collect(
        self, state: _State, key: object, chosen: Sequence[Collector], budget: float, find_roster: FindRoster
    ) -> tuple[ClusterPoll, bool]:
        topics = frozenset(topic for collector in chosen for topic in collector.topics)
        node_seconds = state.settings.runtime.timeout_seconds

        if state.jobs is not None and any(collector.name == "node" for collector in chosen):
            state.jobs.begin()

        def start() -> ClusterPoll:
            poll = ClusterPoll()
            poll.start(
                state.client,
                find_roster,
                state.poller,
                topics,
                budget,
                node_seconds,
                with_configs=any(collector.reads_config for collector in chosen),
            )
            return poll

        poll, shared = self._flights.join((id(state), key), start)
        poll.wait(budget)
        return poll, shared

    async def _members(self, state: _State, transport: Transport, deadline: float) -> Roster:
        members = await refresh_members(state.clusters, transport, deadline)
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

    def _find(self, state: _State, target: str) -> tuple[ConfiguredCluster | None, Member]:
        host, digits = split_host_port(target)
        port = None if digits is None else int(digits)
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
        return None, state.foreign.find(host, DEFAULT_PORT if port is None else port)

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


def _job_map(settings: Settings) -> JobMap | None:
    """The directory of jobs; None where there is none. Raises `ConfigError`."""
    if settings.collectors.node_job_directory is None:
        return None
    if both := JOB & {name for name, _ in settings.labels.labels}:
        raise ConfigError(
            "collectors.node.job_directory",
            f"gives series the label {min(both)}, which --label gives all of them",
            f"Give that label another name, such as site_{min(both)}",
        )
    return JobMap(settings.collectors.node_job_directory)


def _described(source: MembershipSource) -> str:
    return f"{source.path} ({source.origin})" if isinstance(source, HostfileNodes) else source.origin


def _member(state: _State, host: str, port: int | None) -> tuple[ConfiguredCluster | None, Member] | None:
    """The member that is meant, by the text of the membership; None when there is none."""
    for cluster in state.clusters:
        wanted = (host.lower(), cluster.membership.source.default_port if port is None else port)
        for member in cluster.membership.members():
            if (member.hostname.lower(), member.address.port) == wanted:
                return cluster, member
    return None


def _why_down(node: NodeSnapshot) -> str | None:
    """Why the node is down, None when it is up."""
    return None if node.failure is None else f"{node.failure.reason}, {node.failure}"


def _states(members: Sequence[Member], seen: Mapping[Member, str | None]) -> tuple[NodeState, ...]:
    """The nodes as they were at the latest collection, those that are down first."""
    states = []
    for member in members:
        reason = seen.get(member)
        state = "unknown" if member not in seen else "up" if reason is None else "down"
        states.append(NodeState(member.node_id, member.target, state, reason or ""))
    return tuple(sorted(states, key=lambda node: (node.state != "down", node.node_id)))


def _result(
    poll: ClusterPoll,
    chosen: Sequence[Collector],
    state: _State,
    telemetry: Telemetry | None,
) -> Result:
    """Samples of what a poll has learned by now."""
    settings = state.settings
    clusters = only_chosen(poll.snapshots(), settings.collectors)
    if state.jobs is not None and any(collector.name == "node" for collector in chosen):
        jobs = state.jobs.result()
        clusters = tuple(replace(cluster, jobs=jobs) for cluster in clusters)
    constant = dict(settings.labels.labels)
    samples = Samples((*(family for c in chosen for family in c.families), *FAMILIES), label_text(constant))
    for collector in chosen:
        started = time.monotonic()
        ok, asked_seconds = _run(collector, clusters, samples)
        labels = label_text({"collector": collector.name})
        samples.add(COLLECTOR_SUCCESS, labels, ok)
        samples.add(COLLECTOR_DURATION, labels, asked_seconds + time.monotonic() - started)
    if telemetry is not None:
        for cluster in clusters:
            labels = cluster_labels(cluster.name)
            samples.add(NODES, labels, len(cluster.nodes))
            samples.add(MEMBERSHIP_SUCCESS, labels, cluster.membership_error is None)
    return Result(samples, clusters, telemetry, constant)


def _run(collector: Collector, clusters: Sequence[ClusterSnapshot], samples: Samples) -> tuple[bool, float]:
    """Run one collector: whether all went well, and how long the slowest node took to answer it."""
    ok, slowest = True, 0.0
    for cluster in clusters:
        for node in cluster.nodes:
            ok &= _guarded(collector, collector.collect_node, node, samples)
            for topic in node.askable(collector.topics) if node.up else ():
                result = node.results.get(topic)
                if result is None or result.error is not None:
                    ok = False
                if result is not None:
                    slowest = max(slowest, result.seconds)
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
