"""One runtime under two members: which of them shows it, and what the other one is told."""

from __future__ import annotations

from clio_client.errors import DuplicateNodeError
from clio_client.transport.interface import NodeAddress

Rank = tuple[bool, bool, int, str]


def rank(node: NodeAddress, node_id: int | None) -> Rank:
    """How good a member's claim is to the runtime that calls itself ``node_id``; the least has the best.

    The member with that number, else the one with the lowest; what is no member comes last.
    """
    return (node.index < 0, node.index != node_id, node.index, str(node))


def duplicate_error(node: NodeAddress, shown: NodeAddress, node_id: int | None) -> DuplicateNodeError:
    """What ``node`` is told while ``shown`` shows the runtime."""
    calls_itself = "" if node_id is None else f", which calls itself node {node_id}"
    return DuplicateNodeError(
        f"{node} and {shown} are the same runtime{calls_itself}, and it is shown as {shown}: list it once. "
        "Discovery does not find out ports: where they differ, give a hostfile with host:port lines"
    )
