"""A cluster of made-up nodes for the runner of operations: what each look sees is what the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_control_api.action import ActionResult
from clio_control_api.audit import AuditLog
from clio_control_api.errors import ApiError
from clio_control_api.metrics import Metrics
from clio_control_api.operations.gates import Alert, Seen, Work
from clio_control_api.operations.model import NodeProgress, Operation, Orders
from clio_control_api.operations.runner import OperationRunner
from clio_control_api.operations.store import OperationStore

POOLS = frozenset({"301.0 ram", "512.0 cte"})


def up(node_id: int, run: int = 1, **more: Any) -> Seen:
    values: dict[str, Any] = {"run": f"{run}@1", "pools": POOLS, "workers": {0: Work(0, 10)}, "leader": False}
    return Seen(node_id, **{**values, **more})


def down(node_id: int) -> Seen:
    return Seen(node_id, "nothing listens", gone=True)


@dataclass
class FakeAction:
    """As much of an action as an operation looks at."""

    id: str
    action: str
    stage: str = "running the command"
    answer: ActionResult | None = None
    answered: threading.Event = field(default_factory=threading.Event)

    def end(self, outcome: str = "success", error: str = "") -> None:
        self.answer = ActionResult(outcome, 0, error=error)
        self.answered.set()


class ScriptedWorld:
    """Nodes as `seen` has them. An action on one calls `on_act`, which by default lets it succeed at once."""

    def __init__(self, nodes: int = 4) -> None:
        self.seen = {number: up(number, leader=number == 0) for number in range(nodes)}
        self.acted: list[int] = []
        self.actions: dict[int, FakeAction] = {}
        self.firing: tuple[Alert, ...] | str | None = None
        self.on_act: Callable[[FakeAction, int], None] = self.succeed
        self.refuse: dict[int, ApiError] = {}
        self.told: ActionResult | None = None

    def succeed(self, action: FakeAction, number: int) -> None:
        self.effect(action.action, number)
        action.end()

    def effect(self, action: str, number: int) -> None:
        before = self.seen[number]
        run = int((before.run or "0@").partition("@")[0]) + 1
        self.seen[number] = down(number) if action == "shutdown" else up(number, run, leader=before.leader)

    def members(self, cluster: str) -> tuple[Member, ...]:
        return tuple(
            Member(cluster, number, f"n{number}", NodeAddress(f"10.0.0.{number}")) for number in self.seen
        )

    def look(self, members: Iterable[Member], closely: Collection[int]) -> Mapping[int, Seen]:
        return {
            m.node_id: self.seen[m.node_id]
            if m.node_id in closely
            else replace(self.seen[m.node_id], pools=None, workers=None)
            for m in members
        }

    def act(self, orders: Orders, node: NodeProgress, operation: str) -> Any:
        if node.node_id in self.refuse:
            raise self.refuse[node.node_id]
        action = FakeAction(f"a{len(self.acted)}", orders.action)
        self.acted.append(node.node_id)
        self.actions[node.node_id] = action
        self.on_act(action, node.node_id)
        return action

    def follow(self, orders: Orders, node: NodeProgress, operation: str) -> Any:
        """What the node says of an earlier restart: `told`; by default it knows nothing."""
        action = FakeAction(node.action_id or "", orders.action)
        action.answer = self.told or ActionResult("unknown", -1)
        action.answered.set()
        return action

    def alerts(self) -> tuple[Alert, ...] | str | None:
        return self.firing


def operations(home: Path, world: ScriptedWorld, **options: Any) -> OperationRunner:
    store = OperationStore(home / "operations")
    return OperationRunner(world, store, AuditLog(home / "audit.jsonl"), Metrics(), **options)


def orders(action: str = "restart", **more: Any) -> Orders:
    return Orders(action, "", **{"nodes": "", "wait": 20.0, "actor": "anna", "role": "operator", **more})


def await_state(runner: OperationRunner, found: Operation, *states: str, seconds: float = 20.0) -> Operation:
    """The operation once it is in one of these states."""
    return await_that(runner, found, lambda now: now.state in states, seconds)


def await_that(
    runner: OperationRunner, found: Operation, accept: Callable[[Operation], bool], seconds: float = 20.0
) -> Operation:
    """The operation once it is accepted."""
    deadline = time.monotonic() + seconds
    now = runner.find(found.id)
    while not accept(now):
        left = deadline - time.monotonic()
        assert left > 0, now.document()
        now = runner.wait(found.id, now.revision, left) if now.under_way else runner.find(found.id)
        assert accept(now) or now.under_way, now.document()
    return now
