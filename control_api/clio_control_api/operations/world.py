"""What an operation needs of the world: to look at nodes, to act on one, to hear which alerts fire."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from clio_client import questions
from clio_client.errors import RefusedError, RuntimeClientError
from clio_client.membership import Member
from clio_client.transport.interface import NodeSession, Transport
from clio_control_api.action import Action
from clio_control_api.actions import ActionRunner
from clio_control_api.admission import identify
from clio_control_api.clusters import Clusters
from clio_control_api.errors import Conflict
from clio_control_api.node_script import NodePlan
from clio_control_api.operations.alerts import AlertsError, firing_alerts
from clio_control_api.operations.gates import Alert, Seen, Work
from clio_control_api.operations.model import NodeProgress, Orders
from clio_control_api.queries import NodeQueries
from clio_control_api.settings import Settings

LOOK_S: Final = 3.0
_GRACE_S: Final = 1.0


class World(Protocol):
    """What the runner of operations is given; every call is bounded."""

    def members(self, cluster: str) -> tuple[Member, ...]:
        """The members as they are now; raises `ApiError` where that cannot be told."""
        ...

    def look(self, members: Iterable[Member], closely: Collection[int]) -> Mapping[int, Seen]:
        """One look at each, by node id; pools and workers of those that are looked at closely."""
        ...

    def act(self, orders: Orders, node: NodeProgress, operation: str) -> Action:
        """Begin the action on one node; raises `ApiError` where it is refused."""
        ...

    def follow(self, orders: Orders, node: NodeProgress, operation: str) -> Action:
        """Follow the node's restart that an earlier process of this service began; raises `ApiError`."""
        ...

    def alerts(self) -> tuple[Alert, ...] | str | None:
        """The alerts that fire; None where nobody is to be asked, a text where that failed."""
        ...


class RealWorld:
    """The clusters of the settings."""

    def __init__(
        self, settings: Settings, clusters: Clusters, queries: NodeQueries, runner: ActionRunner
    ) -> None:
        self._settings = settings
        self._clusters = clusters
        self._queries = queries
        self._runner = runner

    def members(self, cluster: str) -> tuple[Member, ...]:
        """The members as they are now."""
        return self._clusters.current_members(cluster)

    def look(self, members: Iterable[Member], closely: Collection[int]) -> Mapping[int, Seen]:
        """One look at each, all at once."""
        chosen = tuple(members)

        async def one(transport: Transport, member: Member, deadline: float) -> Seen:
            try:
                return await _look(transport, member, deadline, member.node_id in closely)
            except RuntimeClientError as error:
                return Seen(member.node_id, str(error), gone=isinstance(error, RefusedError))

        async def work(transport: Transport) -> list[Seen]:
            deadline = asyncio.get_running_loop().time() + LOOK_S
            return list(await asyncio.gather(*(one(transport, member, deadline) for member in chosen)))

        try:
            found = self._queries.client.call(work, LOOK_S + _GRACE_S)
        except RuntimeClientError as error:
            return {member.node_id: Seen(member.node_id, str(error)) for member in chosen}
        samples = self._queries.newest_samples([member.address for member in chosen])
        return {
            seen.node_id: _with_sample(seen, sample.document) if seen.up else seen
            for seen, sample in zip(found, samples, strict=True)
        }

    def act(self, orders: Orders, node: NodeProgress, operation: str) -> Action:
        """Begin the action on one node, if it is still the one that was planned."""
        plan = self._plan(orders, node)
        before = identify(self._queries, plan.member, node.hostname)
        wait = orders.wait if orders.action == "restart" else 0.0
        return self._runner.start(
            orders.action, plan, before, actor=orders.actor, role=orders.role, client=orders.client,
            wait=wait, reason=orders.reason, operation=operation,
        )  # fmt: skip

    def follow(self, orders: Orders, node: NodeProgress, operation: str) -> Action:
        """Follow the node's restart that an earlier process of this service began."""
        return self._runner.resume(
            node.action_id or "", self._plan(orders, node), actor=orders.actor, role=orders.role,
            client=orders.client, reason=orders.reason, operation=operation,
        )  # fmt: skip

    def _plan(self, orders: Orders, node: NodeProgress) -> NodePlan:
        """How to act on a node, if it is still the one that was planned."""
        member = self._clusters.current_member(orders.cluster, str(node.node_id))
        if (member.hostname, member.target) != (node.hostname, node.target):
            raise Conflict(
                f"node {node.node_id} is {member.target} now, not {node.target}: the membership has changed"
            )
        cluster = self._settings.ssh_of(member.cluster)
        return NodePlan(member, cluster.for_node(member.node_id, member.hostname, member.address.port))

    def alerts(self) -> tuple[Alert, ...] | str | None:
        """The alerts that fire, where a Prometheus is named in the settings."""
        if self._settings.prometheus_url is None:
            return None
        try:
            return firing_alerts(self._settings.prometheus_url)
        except AlertsError as error:
            return str(error)


async def _look(transport: Transport, member: Member, deadline: float, closely: bool) -> Seen:
    status = await questions.status(transport, member.address, deadline)
    seen = Seen(member.node_id, run=_run(status.session))
    if not closely:
        return seen
    containers, workers = await asyncio.gather(
        _or_none(questions.containers(transport, member.address, deadline)),
        _or_none(questions.workers(transport, member.address, deadline)),
    )
    pools = None if containers is None else frozenset(
        f"{c.pool_id} {c.pool_name or ''}".strip() for c in containers.containers if c.pool_id
    )  # fmt: skip
    work = None if workers is None else {
        w.worker_id: Work((w.num_queued_tasks or 0) + (w.num_blocked_tasks or 0), w.num_tasks_processed)
        for w in workers
        if w.worker_id is not None and w.num_tasks_processed is not None
    }  # fmt: skip
    return replace(seen, pools=pools, workers=work)


async def _or_none(question: Any) -> Any:
    try:
        return await question
    except RuntimeClientError:
        return None


def _run(session: NodeSession) -> str | None:
    identity = session.identity
    return None if identity is None else f"{identity.pid or ''}@{identity.start_ns}"


def _with_sample(seen: Seen, sample: Any) -> Seen:
    """With what the newest sample of the node's ring says of it."""
    if not isinstance(sample, dict):
        return seen
    leader = sample.get("is_leader")
    names = tuple(sample[key] for key in ("hostname", "ip_address") if isinstance(sample.get(key), str))
    return replace(seen, leader=leader if isinstance(leader, bool) else None, names=names)
