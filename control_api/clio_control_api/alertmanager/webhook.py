"""`POST /api/alertmanager`: decides on each alert, acts on few, writes every decision down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import g, request

from clio_client.membership import Member
from clio_control_api.alertmanager.decide import (
    BUSY,
    REFUSED,
    UNKNOWN_NODE,
    Decision,
    Notice,
    Past,
    decide,
    first_look,
    read_notification,
    seen_again,
)
from clio_control_api.alertmanager.history import History
from clio_control_api.errors import ApiError, Conflict, NotFound
from clio_control_api.operations.gates import Seen
from clio_control_api.operations.model import NodeProgress, Orders
from clio_control_api.operations.runner import OperationRunner
from clio_control_api.operations.world import World
from clio_control_api.principals import Identity, require_action_on
from clio_control_api.requests import json_object
from clio_control_api.services import Services

WAIT_S: Final = 90.0
"""How long a restarted runtime has to come back, for the outcome of the action."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """A cluster as it was looked at for one notification."""

    members: Mapping[int, Member]
    looks: Mapping[int, Seen]


class AlertmanagerApi:
    """The view, by the name that the table of routes has. One notification at a time."""

    def __init__(
        self,
        services: Services,
        world: World,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._services = services
        self._settings = services.settings.alertmanager
        self._operations: OperationRunner = services.operations
        self._world = world
        self._history = History(services.settings.state_dir / "alertmanager.json")
        self._clock = clock
        self._lock = threading.Lock()

    def notify(self) -> dict[str, Any]:
        """Decide on every alert of a notification; answers what was decided."""
        if not self._settings.enabled:
            raise NotFound("alerts cause nothing here: alertmanager.enabled is off in the settings")
        notices = read_notification(json_object())
        sights: dict[str, _Sight | ApiError] = {}
        with self._lock:
            decisions = [self._decide(notice, sights) for notice in notices]
        return {"dry_run": self._settings.dry_run, "decisions": decisions}

    # --- parts ------------------------------------------------------------------------------------

    def _decide(self, notice: Notice, sights: dict[str, _Sight | ApiError]) -> dict[str, Any]:
        action = self._settings.actions.get(notice.name)
        action_id = None
        decision = first_look(notice, tuple(self._settings.actions))
        if decision is None and action is not None:
            if notice.cluster not in sights:
                sights[notice.cluster] = self._look(notice.cluster)
            decision, action_id = self._on_node(notice, action, sights[notice.cluster])
        assert decision is not None  # noqa: S101 - an alert without an action has been decided on
        told = {
            "alert": notice.name, "verdict": decision.verdict, "why": decision.why, "action": action,
            "cluster": notice.cluster, "node_id": notice.node_id, "action_id": action_id,
        }  # fmt: skip
        self._services.metrics.alert_decisions.labels(action or "none", decision.verdict).inc()
        identity: Identity = g.identity
        self._services.audit.write(
            "alert_decision", actor=identity.name, role=identity.role.name.lower(),
            client=request.remote_addr, **{name: value or None for name, value in told.items()},
        )  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}

    def _look(self, cluster: str) -> _Sight | ApiError:
        try:
            members = self._world.members(self._services.clusters.cluster(cluster or None))
        except ApiError as error:
            return error
        return _Sight({member.node_id: member for member in members}, self._world.look(members, ()))

    def _on_node(self, notice: Notice, action: str, sight: _Sight | ApiError) -> tuple[Decision, str | None]:
        """What is decided on an alert about a node, and the id of the action that it caused."""
        if isinstance(sight, ApiError):
            return Decision(UNKNOWN_NODE, str(sight)), None
        member = sight.members.get(int(notice.node_id))
        if member is None or not _is_meant(notice, member, sight):
            return Decision(UNKNOWN_NODE, "its labels name no node of the cluster as it is now"), None
        try:
            require_action_on(g.identity, member)
        except ApiError as error:
            return Decision(REFUSED, str(error)), None
        running = self._operations.under_way(member.cluster)
        if running is not None:
            return Decision(BUSY, f"the {running.title} {running.id} is {running.state}"), None
        node = (member.cluster, member.node_id)
        look = sight.looks.get(member.node_id) or Seen(member.node_id, "it was not looked at")
        history = seen_again(self._history.of(node), look)
        down = {number for number, seen in sight.looks.items() if not seen.up}
        down |= {member.node_id} | self._not_back(member.cluster, sight)
        now = self._clock()
        decision = decide(
            history, len(down), len(sight.members), now, dry_run=self._settings.dry_run,
            max_per_hour=self._settings.max_per_hour, max_down_percent=self._settings.max_down_percent,
        )  # fmt: skip
        if not decision.yes:
            if history != self._history.of(node):
                self._history.put({node: history})
            return decision, None
        # Before it is done: what is not remembered could be done again.
        self._history.put({node: (*history, Past(now, look.run, self._settings.dry_run))})
        return (
            (decision, None) if self._settings.dry_run else self._act(notice, action, member, node, history)
        )

    def _not_back(self, cluster: str, sight: _Sight) -> set[int]:
        """Nodes that were acted on and are not back yet, also those that have not gone down yet."""
        return {
            number
            for number in self._history.under_way(cluster)
            if (look := sight.looks.get(number)) is not None
            and not seen_again(self._history.of((cluster, number)), look)[-1].seen_up
        }

    def _act(
        self, notice: Notice, action: str, member: Member, node: tuple[str, int], history: tuple[Past, ...]
    ) -> tuple[Decision, str | None]:
        identity: Identity = g.identity
        orders = Orders(
            action, member.cluster, str(member.node_id), wait=WAIT_S, reason=f"alert {notice.name}"[:200],
            actor=identity.name, role=identity.role.name.lower(), client=request.remote_addr or "",
        )  # fmt: skip
        try:
            begun = self._world.act(orders, NodeProgress(member.node_id, member.hostname, member.target), "")
        except ApiError as error:
            self._history.put({node: history})
            return Decision(BUSY if isinstance(error, Conflict) else REFUSED, str(error)), None
        return Decision("acted", ""), begun.id


def _is_meant(notice: Notice, member: Member, sight: _Sight) -> bool:
    """Whether the alert's name of the host is one of the node's: numbers change hands."""
    if notice.hostname is None:
        return True
    look = sight.looks.get(member.node_id)
    names = (member.hostname, member.address.host, *(look.names if look else ()))
    return notice.hostname.lower() in {name.lower() for name in names}
