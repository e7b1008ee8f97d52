"""Which nodes, in which order, how many at once. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from clio_client.membership import Member
from clio_client.search import Search, SearchError, parse_search
from clio_control_api.actions import MAX_WAIT_S
from clio_control_api.errors import BadRequest
from clio_control_api.operations.gates import Seen
from clio_control_api.operations.model import (
    ASCENDING,
    DESCENDING,
    LEADER_LAST,
    ORDERS,
    WAITING,
    NodeProgress,
    Operation,
    Orders,
)
from clio_control_api.reasons import checked_reason

MAX_AT_ONCE: Final = 64
DEFAULT_WAIT_S: Final = 90
MIN_WAIT_S: Final = 5
PARAMETERS: Final = ("nodes", "max_unavailable", "wait", "order", "reason", "cluster")


def parse_orders(
    action: str, given: Mapping[str, Any], cluster: str, *, actor: str, role: str, client: str
) -> Orders:
    """The orders of a request's parameters; numbers may be digits, as a form sends them.

    Raises:
        BadRequest: a parameter is not known or not acceptable.
    """
    unknown = [name for name in given if name not in PARAMETERS]
    if unknown:
        raise BadRequest(f"{unknown[0][:40]!a} is no parameter; there are: {', '.join(PARAMETERS)}")
    nodes = given.get("nodes", "")
    if not isinstance(nodes, str):
        raise BadRequest('nodes is a text such as "1-20"; all nodes are ""')
    _search(nodes)
    order = given.get("order") or LEADER_LAST
    if order not in ORDERS:
        raise BadRequest(f"order is one of: {', '.join(ORDERS)}")
    return Orders(
        action, cluster, nodes.strip(),
        max_unavailable=_whole("max_unavailable", given.get("max_unavailable"), 1, 1, MAX_AT_ONCE),
        wait=float(_whole("wait", given.get("wait"), DEFAULT_WAIT_S, MIN_WAIT_S, MAX_WAIT_S)),
        order=order, reason=checked_reason(given.get("reason")), actor=actor, role=role, client=client,
    )  # fmt: skip


def _whole(name: str, value: Any, default: int, low: int, high: int) -> int:
    if value is None or value == "":
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 7:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(f"{name} is not a whole number from {low} to {high}")
    return value


def _search(text: str) -> Search:
    try:
        return parse_search(text)
    except SearchError as error:
        raise BadRequest(f"nodes: {error}") from None


def planned(orders: Orders, members: Iterable[Member], seen: Mapping[int, Seen]) -> tuple[NodeProgress, ...]:
    """The nodes of an operation, in the order in which they will be acted on.

    Args:
        seen: every member as it was just seen, by node id.

    Raises:
        BadRequest: no node is meant, or, for a shutdown, none of them is up.
    """
    search = _search(orders.nodes)
    found = []
    for member in members:
        look = seen.get(member.node_id) or Seen(member.node_id, "it was not looked at")
        if not search.matches(member.node_id, (member.hostname, member.address.host, *look.names)):
            continue
        found.append(
            NodeProgress(
                member.node_id, member.hostname, member.target, leader=look.leader is True, down=not look.up,
                run=look.run,
            )
        )  # fmt: skip
    if not found:
        raise BadRequest(f"no node is meant by {orders.nodes!a}")
    if orders.action == "shutdown":
        found = [node for node in found if not node.down]
        if not found:
            raise BadRequest("all of these nodes are down already")
    return tuple(sorted(found, key=_rank(orders)))


def _rank(orders: Orders) -> Any:
    if orders.order == ASCENDING:
        return lambda node: node.node_id
    if orders.order == DESCENDING:
        return lambda node: -node.node_id
    # What is down already costs nobody anything, and shows first whether a restart works at all.
    return lambda node: (node.leader, not node.down, node.node_id)


def next_batch(operation: Operation, leaders: Collection[int]) -> tuple[NodeProgress, ...]:
    """The nodes to act on next, together; empty when none is left.

    With leader-last, a node that has become the leader since is put off, and the leader is acted on alone.
    """
    waiting = list(operation.in_state(WAITING))
    if operation.orders.order == LEADER_LAST:
        followers = [node for node in waiting if node.node_id not in leaders]
        waiting = followers or waiting[:1]
    return tuple(waiting[: operation.orders.max_unavailable])
