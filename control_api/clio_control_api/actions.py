"""Shutdown and restart: one at a time a node, written to the audit log, counted, never for ever."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from clio_client.errors import HungError, RuntimeClientError
from clio_client.questions import NodeStatus
from clio_control_api.action import Action, ActionResult
from clio_control_api.action_store import ActionStore
from clio_control_api.audit import AuditLog
from clio_control_api.errors import ApiError, Conflict, Unavailable
from clio_control_api.metrics import Metrics
from clio_control_api.node_report import Report
from clio_control_api.node_script import NodePlan
from clio_control_api.performer import Performer
from clio_web.logs import get_logger

MAX_WAIT_S: Final = 600

_log = get_logger(__name__)

_Fields = dict[str, Any]


class ActionRunner:
    """Runs actions in threads of their own. Thread-safe; `close` waits for what is under way."""

    def __init__(self, performer: Performer, audit: AuditLog, metrics: Metrics, *, max_actions: int) -> None:
        self._performer = performer
        self._audit = audit
        self._metrics = metrics
        self._store = ActionStore(max_actions)
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def start(
        self,
        action: str,
        plan: NodePlan,
        before: NodeStatus | RuntimeClientError,
        *,
        actor: str,
        client: str,
        role: str,
        wait: float = 0.0,
        reason: str = "",
        operation: str = "",
    ) -> Action:
        """Begin an action and return at once; `Action.done` tells when its outcome is known.

        That the node itself is busy, with an action that another control API began, is learnt there: then
        the outcome is `conflict`.

        Args:
            reason: why, in the words of whoever asks (`reasons.checked_reason`).
            operation: id of the operation that it is a part of.

        Raises:
            Conflict: another is under way on this node.
            Unavailable: too many are under way, the audit log cannot be written, or no thread started.
        """
        number = secrets.token_hex(8)
        found = Action(number, action, plan, actor, wait, before, reason, client, operation)
        return self._begin("begin", found, self._performer.perform, role)

    def resume(
        self,
        action_id: str,
        plan: NodePlan,
        *,
        actor: str,
        client: str,
        role: str,
        reason: str = "",
        operation: str = "",
    ) -> Action:
        """Follow a restart that a control API began which has ended since; raises as `start` does."""
        before = HungError("not asked")
        found = Action(action_id, "restart", plan, actor, 0.0, before, reason, client, operation)

        def follow(action: Action) -> ActionResult:
            return self._performer.follow(action, ActionResult("success", 0), told=True)

        return self._begin("resumed", found, follow, role)

    def find(self, action_id: str) -> Action | None:
        """An action under way or done of late."""
        return self._store.find(action_id)

    def busy_with(self, plan: NodePlan) -> Action | None:
        """What this control API is doing on a node."""
        return self._store.busy_with(plan)

    def ask_node(self, plan: NodePlan, action_id: str) -> Report:
        """What a node says now of a restart that any control API began there; raises `SshError`."""
        return self._performer.ask(plan, action_id)

    def close(self, timeout: float = 10.0) -> None:
        """Take no more actions and wait for those under way; the rest are left to end with the process.

        Restarts go on without us on their nodes; what comes of them is then written down as unknown.
        """
        with self._lock:
            self._closing = True
            threads = list(self._threads)
        self._performer.close()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- parts ------------------------------------------------------------------------------------

    def _begin(self, event: str, action: Action, work: Callable[[Action], ActionResult], role: str) -> Action:
        fields = _fields(action, role)
        self._take_node(action, fields)
        thread = threading.Thread(
            target=self._run, args=(action, fields, work),
            name=f"{action.action}-{action.plan.member.node_id}", daemon=True,
        )  # fmt: skip
        try:
            self._audit.write(event, **fields)
            with self._lock:
                self._threads.add(thread)
            thread.start()
            self._metrics.recent_actions.add(_shown(action))
        except RuntimeError as error:  # how Python says that the system gives no more threads
            text = f"the {action.action} cannot be started: {error}; try again later"
            self._forget(action, thread)
            self._ended(action, fields, ActionResult("error", -1, error=text))
            refused = Unavailable(text)
            refused.written = True
            raise refused from None
        except BaseException:
            self._forget(action, thread)
            raise
        return action

    def _take_node(self, action: Action, fields: _Fields) -> None:
        with self._lock:
            if self._closing:
                raise Unavailable("the service is stopping")
        try:
            busy = self._store.begin(action)
        except OverflowError as error:
            raise Unavailable(f"{error}; try again later") from None
        if busy is None:
            return
        self._metrics.actions.labels(action.action, "conflict").inc()
        self._audit.write("conflict", **fields, busy_with=busy.id)
        conflict = Conflict(
            f"node {action.plan.member.node_id} is busy: a {busy.action} by {busy.actor} has been under way "
            f"for {busy.seconds:.0f} s ({busy.stage})",
            busy=busy.document(),
        )
        conflict.written = True
        raise conflict

    def _run(self, action: Action, fields: _Fields, work: Callable[[Action], ActionResult]) -> None:
        try:
            with self._metrics.running.track_inprogress():
                result = work(action)
        except Exception as error:  # noqa: BLE001 - nobody above this thread would see it
            _log.error("an action failed", id=action.id, exc_info=error)
            text = f"internal error; the log has it under action {action.id}"
            result = ActionResult("error", -1, error=text)
        try:
            self._ended(action, fields, result)
        finally:
            self._store.end(action)
            action.end(result)
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _ended(self, action: Action, fields: _Fields, result: ActionResult) -> None:
        """Count, log and write down what came of an action."""
        self._metrics.actions.labels(action.action, result.outcome).inc()
        self._metrics.duration.labels(action.action).observe(action.seconds)
        log = _log.info if result.success else _log.warning
        log(
            f"{action.action} ended", id=action.id, node_id=action.plan.member.node_id, actor=action.actor,
            outcome=result.outcome, returncode=result.returncode, error=result.error or None,
        )  # fmt: skip
        # A failure is logged by the audit log; the action has happened all the same.
        with contextlib.suppress(ApiError):
            self._audit.write(
                "end", **fields, outcome=result.outcome, returncode=result.returncode,
                error=result.error or None, seconds=round(action.seconds, 3),
            )  # fmt: skip

    def _forget(self, action: Action, thread: threading.Thread) -> None:
        """Undo what `_begin` has noted of an action that does not run."""
        self._store.end(action, remember=False)
        with self._lock:
            self._threads.discard(thread)


def _shown(action: Action) -> tuple[str, ...]:
    """What dashboards say of an action, in the order of `RecentActions.LABELS`."""
    member = action.plan.member
    return (
        action.action, member.cluster, str(member.node_id), member.hostname, action.actor, action.reason,
        action.client,
    )  # fmt: skip


def _fields(action: Action, role: str) -> _Fields:
    """What the audit log says of an action."""
    member = action.plan.member
    return {
        "id": action.id, "action": action.action, "actor": action.actor, "role": role,
        "client": action.client, "cluster": member.cluster or None, "node_id": member.node_id,
        "node": member.target, "ssh_host": action.plan.target, "reason": action.reason or None,
        "operation": action.operation or None,
    }  # fmt: skip
