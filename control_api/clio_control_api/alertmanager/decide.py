"""Whether an alert may cause an action. Pure functions; every answer has its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from clio_control_api.errors import BadRequest
from clio_control_api.operations.gates import Seen

VERSION: Final = "4"
HOUR_S: Final = 3600.0

ACTED: Final = "acted"
DRY_RUN: Final = "dry_run"
RESOLVED: Final = "resolved"
NOT_CONFIGURED: Final = "not_configured"
UNKNOWN_NODE: Final = "unknown_node"
REFUSED: Final = "refused"
BUSY: Final = "busy"
NOT_UP_YET: Final = "not_up_yet"
RATE: Final = "rate"
SHARE: Final = "share"
VERDICTS: Final = (
    ACTED, DRY_RUN, RESOLVED, NOT_CONFIGURED, UNKNOWN_NODE, REFUSED, BUSY, NOT_UP_YET, RATE, SHARE,
)  # fmt: skip
"""`acted` and `dry_run` (acted, but for the setting); all others are a no.

Refused: the token is not for the node, or the action could not begin. Busy: with another action, or a part of
an operation. Not up yet: nobody has seen the node up since the last action that an alert caused. Rate and
share are the limits.
"""

_NODE = re.compile(r"[0-9]{1,9}", re.ASCII)
_MAX_LABEL: Final = 256


@dataclass(frozen=True, slots=True)
class Notice:
    """An alert of a notification: its name, whether it fires, and the node that its labels name."""

    name: str
    firing: bool
    cluster: str = ""
    node_id: str = ""
    hostname: str | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """An action that an alert caused, or would have but for dry_run. `at` is Unix time.

    Attributes:
        run: what told the node's process from the next one; None: it did not answer, or does not tell.
        seen_up: whether the node was seen up since.
    """

    at: float
    run: str | None
    dry: bool
    seen_up: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why in words."""

    verdict: str
    why: str = ""

    @property
    def yes(self) -> bool:
        """Whether the action is due, or would be."""
        return self.verdict in (ACTED, DRY_RUN)


def read_notification(document: Any) -> tuple[Notice, ...]:
    """The alerts of a notification in Alertmanager's webhook format.

    Raises:
        BadRequest: it is none.
    """
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise BadRequest(f"not a notification of Alertmanager's webhook, version {VERSION}")
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        raise BadRequest("the notification has no list of alerts")
    return tuple(_notice(alert) for alert in alerts)


def _notice(alert: Any) -> Notice:
    labels = alert.get("labels") if isinstance(alert, dict) else None
    if not isinstance(labels, dict) or alert.get("status") not in ("firing", "resolved"):
        raise BadRequest("an alert without status or labels")
    texts = {name: labels.get(name, "") for name in ("alertname", "cluster", "node_id", "hostname")}
    if any(not isinstance(text, str) or len(text) > _MAX_LABEL for text in texts.values()):
        raise BadRequest(f"a label that is no text of {_MAX_LABEL} characters or less")
    return Notice(
        texts["alertname"], alert["status"] == "firing", texts["cluster"], texts["node_id"],
        texts["hostname"] or None,
    )  # fmt: skip


def first_look(notice: Notice, actions: Sequence[str]) -> Decision | None:
    """A no that needs no look at the cluster; None when there is none."""
    if notice.name not in actions:
        return Decision(NOT_CONFIGURED, "no action is configured for this alert")
    if not notice.firing:
        return Decision(RESOLVED, "it does not fire any more")
    if not _NODE.fullmatch(notice.node_id):
        return Decision(UNKNOWN_NODE, "its label node_id names no node")
    return None


def seen_again(history: Sequence[Past], look: Seen) -> tuple[Past, ...]:
    """The history once the node has been looked at."""
    return tuple(
        Past(
            past.at,
            past.run,
            past.dry,
            past.seen_up or (look.up and (past.run is None or past.run != look.run)),
        )
        for past in history
    )


def decide(
    history: Sequence[Past],
    down: int,
    nodes: int,
    now: float,
    *,
    dry_run: bool,
    max_per_hour: int,
    max_down_percent: int,
) -> Decision:
    """Whether an action on a node is due.

    Args:
        history: of this node, oldest first, after `seen_again`. While nothing is really done, what was really
            done does not count, and the other way round.
        down: how many of the cluster's nodes do not answer or are being acted on, this one included.
    """
    same = [past for past in history if past.dry == dry_run]
    if same and not same[-1].seen_up:
        return Decision(
            NOT_UP_YET, f"the node has not been seen up since the action {now - same[-1].at:.0f} s ago"
        )
    recent = [past for past in same if now - past.at < HOUR_S]
    if len(recent) >= max_per_hour:
        return Decision(RATE, f"{len(recent)} in the last hour, of {max_per_hour} that may be")
    if 100 * down > max_down_percent * nodes:
        return Decision(SHARE, f"{down} of {nodes} nodes are down, more than {max_down_percent} %")
    return Decision(DRY_RUN, "dry_run is on") if dry_run else Decision(ACTED)
