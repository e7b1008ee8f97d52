"""What has to hold before the next node is acted on. Pure functions over what was seen.

Each gate returns what is wrong, as the end of a sentence that begins with the node's number, or None. A gate
is asked again until it holds or the node's time is up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from clio_control_api.operations.model import NodeProgress, Orders

STUCK_S: Final = 2.0
"""Time between two looks at the same workers; one that completes none of its work in it is stuck for now."""

_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker thread has to do, and how much it has done."""

    pending: int
    processed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a node.

    Attributes:
        problem: why it does not answer; None when it does.
        gone: nothing listens there any more.
        names: what the runtime calls its host.
        run: tells its process from the next one; None: it does not say.
        pools: id and name of every pool it has a container of; None: not asked, or not answered.
        workers: by worker id; None: not asked, or not answered.
    """

    node_id: int
    problem: str | None = None
    gone: bool = False
    names: tuple[str, ...] = ()
    run: str | None = None
    leader: bool | None = None
    pools: frozenset[str] | None = None
    workers: Mapping[int, Work] | None = None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.problem is None


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that fires.

    Attributes:
        labels: all of them, for people and to tell it from others.
        node_id: None where it is about no single node.
    """

    name: str
    labels: str
    cluster: str = ""
    node_id: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that does not hold."""

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a node's gates are judged by.

    Attributes:
        earlier: the look at it at least `STUCK_S` before; None: there was none yet.
        others: every other node of the cluster.
        expected_up: nodes that answered before and that nobody is acting on.
        alerts: those that fire; None where no Prometheus is asked; a text: it could not be asked.
    """

    now: Seen
    earlier: Seen | None = None
    others: Mapping[int, Seen] = field(default_factory=dict)
    expected_up: Collection[int] = ()
    alerts: tuple[Alert, ...] | str | None = None


def judge(
    orders: Orders,
    node: NodeProgress,
    evidence: Evidence,
    before: Collection[str] | None,
    acted: Collection[int],
) -> tuple[Gate, ...]:
    """The gates of a node that do not hold, in the order in which they are told.

    Args:
        before: alerts that fired before the operation.
        acted: nodes of the operation that were, or are being, acted on.
    """
    restart = orders.action == "restart"
    found = (
        *(
            (
                ("another process", another_process(node, evidence.now)),
                ("same pools", same_pools(node, evidence.now)),
                ("no worker stuck", no_worker_stuck(evidence.earlier, evidence.now)),
            )
            if restart
            else (("stopped", stopped(evidence.now)),)
        ),
        ("nobody else down", nobody_else_down(evidence.others, evidence.expected_up)),
        (
            "no alert",
            no_alert(evidence.alerts, orders.cluster, before or (), () if restart else acted, restart),
        ),
    )
    return tuple(Gate(name, problem) for name, problem in found if problem is not None)


def another_process(node: NodeProgress, now: Seen) -> str | None:
    """It answers, and by its own account it is not the process that answered before."""
    if not now.up:
        return f"does not answer: {now.problem}"
    if node.run is not None and now.run == node.run:
        return "is still the same process as before"
    return None


def stopped(now: Seen) -> str | None:
    """Nothing listens any more; one that is silent may only hang."""
    if now.up:
        return "still answers"
    return None if now.gone else f"does not answer, but has not ended: {now.problem}"


def same_pools(node: NodeProgress, now: Seen) -> str | None:
    """It has a container of every pool that it had; further ones do no harm."""
    if not now.up or node.pools is None:
        return None
    if now.pools is None:
        return "does not tell its pools"
    missing = sorted(set(node.pools) - now.pools)
    return f"lacks {_some(missing, 'pool')}" if missing else None


def no_worker_stuck(earlier: Seen | None, now: Seen) -> str | None:
    """Every worker with work at two looks has completed some of it in between."""
    if not now.up:
        return None
    if now.workers is None:
        return "does not tell its workers"
    if earlier is None or earlier.workers is None or earlier.run != now.run:
        return "has not been looked at for long enough to know its workers"
    stuck = [
        str(worker)
        for worker, work in sorted(now.workers.items())
        if work.pending
        and (before := earlier.workers.get(worker)) is not None
        and before.pending
        and before.processed == work.processed
    ]
    return f"has work that does not move: {_some(stuck, 'worker')}" if stuck else None


def nobody_else_down(others: Mapping[int, Seen], expected_up: Collection[int]) -> str | None:
    """Every node that answered before, and that nobody is acting on, answers."""
    down = [
        f"{number} ({look.problem if look is not None else 'no longer a member'})"
        for number in sorted(expected_up)
        if (look := others.get(number)) is None or not look.up
    ]
    return f"is not the only one affected: down is {_some(down, 'node')}" if down else None


def no_alert(
    alerts: tuple[Alert, ...] | str | None,
    cluster: str,
    before: Collection[str],
    acted: Collection[int],
    whole_cluster: bool,
) -> str | None:
    """No alert of the cluster fires that did not fire before.

    Args:
        acted: nodes whose own alerts do not count, because they are what was asked for.
        whole_cluster: whether alerts about no single node count; a shutdown fires those by itself.
    """
    if alerts is None:
        return None
    if isinstance(alerts, str):
        return f"cannot be judged by alerts: {alerts}"
    firing = sorted(
        alert.labels
        for alert in alerts
        if alert.cluster == cluster
        and alert.labels not in before
        and alert.node_id not in acted
        and (whole_cluster or alert.node_id is not None)
    )
    return f"has set off {_some(firing, 'alert')}" if firing else None


def _some(items: Iterable[str], what: str) -> str:
    found = list(items)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{what}{'s' if len(found) > 1 else ''} {', '.join(found[:_SHOWN])}{more}"
