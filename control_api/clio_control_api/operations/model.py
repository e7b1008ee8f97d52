"""An operation and how far it has come: plain data that JSON can hold. Times are Unix times, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, TypeVar

from clio_control_api.shapes import checked

RUNNING: Final = "running"
PAUSED: Final = "paused"
ABORTING: Final = "aborting"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
ABORTED: Final = "aborted"
INTERRUPTED: Final = "interrupted"

UNDER_WAY: Final = (RUNNING, PAUSED, ABORTING)
STATES: Final = (*UNDER_WAY, SUCCEEDED, FAILED, ABORTED, INTERRUPTED)

WAITING: Final = "waiting"
ACTING: Final = "acting"
CHECKING: Final = "checking"
DONE: Final = "done"
SKIPPED: Final = "skipped"
NODE_STATES: Final = (WAITING, ACTING, CHECKING, DONE, FAILED, SKIPPED)
"""Of a node: not begun; its action runs; its gates are looked at; all hold; one failed; never begun."""

LEADER_LAST: Final = "leader-last"
ASCENDING: Final = "ascending"
DESCENDING: Final = "descending"
ORDERS: Final = (LEADER_LAST, ASCENDING, DESCENDING)

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Orders:
    """What was asked for, and by whom.

    Attributes:
        nodes: a text in the language of the search box.
        max_unavailable: how many nodes may be acted on at once.
        wait: seconds each node has to come back and to pass every gate.
        reason: the user's own words; may be empty.
        client: address that the request came from.
    """

    action: str
    cluster: str
    nodes: str
    max_unavailable: int = 1
    wait: float = 90.0
    order: str = LEADER_LAST
    reason: str = ""
    actor: str = ""
    role: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node of an operation.

    Attributes:
        target: `host:port`; a node that is somewhere else by now is not acted on.
        leader, down: as it was seen when the operation was planned.
        run: what told its process from the next one, before; None: it did not answer, or does not tell.
        pools: those that had to be there afterwards; None: not known.
        message: what is going on, or why it failed.
        action_id: of the newest action on it.
    """

    node_id: int
    hostname: str
    target: str
    leader: bool = False
    down: bool = False
    state: str = WAITING
    message: str = ""
    run: str | None = None
    pools: tuple[str, ...] | None = None
    action_id: str | None = None
    began: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        message: why it is in its state, where that is not plain.
        updated: when it was last written down; tells how long nobody looked after it.
        up_before: nodes of the cluster that answered when it began, whether it acts on them or not.
        alerts_before: alerts that fired already then, and are not held against it; None: not asked.
        revision: goes up with every change.
    """

    id: str
    orders: Orders
    nodes: tuple[NodeProgress, ...]
    state: str = RUNNING
    message: str = ""
    began: float = 0.0
    updated: float = 0.0
    ended: float | None = None
    up_before: tuple[int, ...] = ()
    alerts_before: tuple[str, ...] | None = None
    revision: int = 0

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self.state in UNDER_WAY

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"rolling {self.orders.action}"

    @property
    def done(self) -> int:
        """How many nodes have passed all gates."""
        return sum(node.state == DONE for node in self.nodes)

    def node(self, node_id: int) -> NodeProgress | None:
        """One of its nodes."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def in_state(self, *states: str) -> tuple[NodeProgress, ...]:
        """Its nodes in these states, in their order."""
        return tuple(node for node in self.nodes if node.state in states)

    def with_node(self, node_id: int, **changes: Any) -> Operation:
        """With one node changed."""
        return replace(
            self, nodes=tuple(replace(n, **changes) if n.node_id == node_id else n for n in self.nodes)
        )

    def document(self) -> dict[str, Any]:
        """As the API tells it; what was not found out is left out."""
        orders = asdict(self.orders)
        return {
            "id": self.id, "state": self.state, "message": self.message,
            **{told: orders[name] for name, told in _TOLD.items() if orders[name] != "" or name in _ALWAYS},
            "total": len(self.nodes), "done": self.done,
            "began": round(self.began, 3), "updated": round(self.updated, 3),
            **({} if self.ended is None else {"ended": round(self.ended, 3)}),
            "revision": self.revision, "nodes": [_node_document(node) for node in self.nodes],
        }  # fmt: skip


_ALWAYS: Final = ("action", "nodes", "reason")
_TOLD: Final = {
    "nodes": "search",
    **{
        name: name
        for name in (
            "action", "cluster", "max_unavailable", "wait", "order", "reason", "actor", "role", "client",
        )
    },
}  # fmt: skip
"""What is told of the orders, and as what."""


def _node_document(node: NodeProgress) -> dict[str, Any]:
    found: dict[str, Any] = {
        "node_id": node.node_id, "hostname": node.hostname, "state": node.state, "message": node.message,
        "was_leader": node.leader, "was_down": node.down,
    }  # fmt: skip
    more = {"action_id": node.action_id, "began": node.began, "ended": node.ended}
    return found | {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in more.items()
        if value is not None
    }


def stored(operation: Operation) -> dict[str, Any]:
    """As a file keeps it, whole."""
    return asdict(operation)


def restored(document: Any) -> Operation:
    """What a file kept. Keys that this version does not know are passed over.

    Raises:
        ValueError: it is no operation.
    """
    try:
        orders = _made(Orders, document["orders"])
        nodes = tuple(_made(NodeProgress, _tuples(node, "pools")) for node in document["nodes"])
        more = {**_tuples(document, "up_before", "alerts_before"), "orders": orders, "nodes": nodes}
        found = _made(Operation, more)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an operation: {error!r}") from None
    if found.state not in STATES or any(node.state not in NODE_STATES for node in nodes):
        raise ValueError("not an operation: an unknown state")
    return found


def _made(kind: type[_R], document: Mapping[str, Any]) -> _R:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return checked(kind(**{name: value for name, value in document.items() if name in names}))


def _tuples(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    lists = {name: tuple(document[name]) for name in names if document.get(name) is not None}
    return {**document, **lists}
