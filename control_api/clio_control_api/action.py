"""One action on one node: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final, Literal

from clio_client.errors import RuntimeClientError
from clio_client.questions import NodeStatus
from clio_control_api.node_script import NodePlan

State = Literal["running", "succeeded", "failed", "unknown"]
STATES: Final[tuple[State, ...]] = ("running", "succeeded", "failed", "unknown")

_STATUS: Final = {
    "success": 200, "conflict": 409, "failure": 500, "unreachable": 502, "timeout": 504, "not_up": 504,
    "unknown": 504,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What came of an action. `outcome` is one of `metrics.OUTCOMES`; `error` is "" on success."""

    outcome: str
    returncode: int
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    reason: str = ""
    omitted: int = 0
    message: str = ""

    @property
    def success(self) -> bool:
        """Whether what was asked for has happened."""
        return self.outcome == "success"

    @property
    def state(self) -> State:
        """How the action ended."""
        if self.outcome == "unknown":
            return "unknown"
        return "succeeded" if self.success else "failed"

    @property
    def status(self) -> int:
        """HTTP status code."""
        return _STATUS.get(self.outcome, 500)

    def document(self) -> dict[str, Any]:
        """The JSON answer."""
        found: dict[str, Any] = {
            "success": self.success,
            "returncode": self.returncode,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }
        if self.error:
            found["error"] = self.error
        if self.reason:
            found["reason"] = self.reason
        if self.omitted:
            found["omitted_bytes"] = self.omitted
        return found


@dataclass(slots=True)
class Action:
    """One action under way or done.

    A restart has two ends: it is `answered` when the one who asked for it need wait no longer, and `done`
    when the node has told what came of it.

    Attributes:
        before: the runtime that answered when it began, or why none did.
        reason: why, in the words of whoever asked for it; "" when they gave none.
        client: address that it was asked for from.
        operation: id of the operation that it is a part of; "" for one by itself.
        since: when it was asked for, seconds of the epoch.
        stage: what is being done, in words.
        answer: what the one who asked is told.
        result: what came of it; None while it is under way.
    """

    id: str
    action: str
    plan: NodePlan
    actor: str
    wait: float
    before: NodeStatus | RuntimeClientError
    reason: str = ""
    client: str = ""
    operation: str = ""
    since: float = field(default_factory=time.time)
    stage: str = "connecting"
    answer: ActionResult | None = None
    result: ActionResult | None = None
    answered: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    _started: float = field(default_factory=time.monotonic)
    _seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has been, or was, under way."""
        return time.monotonic() - self._started if self._seconds is None else self._seconds

    @property
    def state(self) -> State:
        """How it is."""
        return "running" if self.result is None else self.result.state

    @property
    def message(self) -> str:
        """How it is, in words."""
        if self.result is None:
            return self.stage
        return self.result.error or self.result.message or "the command succeeded"

    def tell(self, answer: ActionResult) -> None:
        """Answer the one who asked, unless that has been done."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()

    def end(self, result: ActionResult) -> None:
        """It is over."""
        self._seconds = self.seconds
        self.result = result
        self.tell(result)
        self.done.set()

    def document(self) -> dict[str, Any]:
        """What `/api/actions/<id>` says."""
        member = self.plan.member
        return {
            "id": self.id,
            "action": self.action,
            "cluster": member.cluster,
            "node_id": member.node_id,
            "hostname": member.hostname,
            "who": self.actor,
            "reason": self.reason,
            "state": self.state,
            "since": _utc(self.since),
            "seconds": round(self.seconds, 3),
            "message": self.message,
        }


def _utc(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
