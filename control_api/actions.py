"""Shutdown and restart: one at a time a node, written to the audit log, counted, never for ever."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from control_api.audit import AuditLog
from control_api.errors import ApiError, Conflict, Unavailable
from control_api.metrics import Metrics
from control_api.reader import NodeReader
from control_api.remote import NodePlan, printable
from control_api.ssh import ConnectTimeoutError, KnownHosts, SshError, connection
from exporter.config.errors import ConfigError
from exporter.logs import get_logger
from exporter.runtime.codec import RuntimeIdentity
from exporter.runtime.errors import RuntimeClientError
from exporter.runtime.transport import NodeSession

SUCCESS_CODES: Final = (0, 134)
"""134 is SIGABRT: a runtime's command aborts at its own end although the runtime did stop."""

MAX_WAIT_S: Final = 600
_LOG_SECONDS: Final = 10.0
_REMEMBERED: Final = 256
_POLL_S: Final = 0.5

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an action. `kind` is one of `control_api.metrics.OUTCOMES`; `error` "" on success."""

    kind: str
    returncode: int
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    reason: str = ""
    omitted: int = 0

    @property
    def success(self) -> bool:
        """Whether what was asked for has happened."""
        return self.kind == "success"

    @property
    def status(self) -> int:
        """HTTP status code."""
        return {"success": 200, "failure": 500, "unreachable": 502, "timeout": 504, "not_up": 504}.get(
            self.kind, 500
        )

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
    """One action under way or done."""

    id: str
    action: str
    plan: NodePlan
    actor: str
    wait: float
    started: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    stage: str = "connecting"
    outcome: Outcome | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.monotonic() - self.started


class ActionRunner:
    """Runs actions in threads of their own. Thread-safe; `close` waits for what is under way."""

    def __init__(
        self, reader: NodeReader, audit: AuditLog, metrics: Metrics, *, max_actions: int = 16
    ) -> None:
        self._reader = reader
        self._audit = audit
        self._metrics = metrics
        self._max_actions = max_actions
        self._lock = threading.Lock()
        self._busy: dict[tuple[str, int], Action] = {}
        self._threads: set[threading.Thread] = set()
        self._known: dict[object, KnownHosts] = {}
        self._actions: OrderedDict[str, Action] = OrderedDict()
        self._closing = threading.Event()

    def start(
        self, action: str, plan: NodePlan, actor: str, client: str, role: str, wait: float = 0.0
    ) -> Action:
        """Begin an action and return at once.

        Raises:
            Conflict: another is under way on this node.
            Unavailable: too many are under way, or the audit log cannot be written.
        """
        member = plan.member
        key = (member.cluster, member.node_id)
        found = Action(secrets.token_hex(8), action, plan, actor, wait)
        fields = {
            "id": found.id, "action": action, "actor": actor, "role": role, "client": client,
            "cluster": member.cluster or None, "node_id": member.node_id, "node": member.target,
            "ssh_host": plan.target,
        }  # fmt: skip
        with self._lock:
            busy = self._busy.get(key)
            if self._closing.is_set():
                raise Unavailable("the service is stopping")
            if busy is None and len(self._busy) >= self._max_actions:
                raise Unavailable(f"{self._max_actions} actions are under way already; try again later")
            if busy is None:
                self._busy[key] = found
        if busy is not None:
            self._metrics.actions.labels(action, "conflict").inc()
            self._audit.write("conflict", **fields, busy_with=busy.id)
            raise Conflict(
                f"node {member.node_id} is busy: a {busy.action} by {busy.actor} has been under way for "
                f"{busy.seconds:.0f} s"
            )
        try:
            self._audit.write("begin", **fields)
        except ApiError:
            self._release(key)
            raise
        with self._lock:
            self._actions[found.id] = found
            while len(self._actions) > _REMEMBERED:
                self._actions.popitem(last=False)
            thread = threading.Thread(
                target=self._run, args=(found, key, fields), name=f"{action}-{member.node_id}", daemon=True
            )
            self._threads.add(thread)
        self._metrics.running.inc()
        thread.start()
        return found

    def find(self, action_id: str) -> Action | None:
        """An action under way or recently done."""
        with self._lock:
            return self._actions.get(action_id)

    def busy_with(self, plan: NodePlan) -> Action | None:
        """What is under way on a node."""
        with self._lock:
            return self._busy.get((plan.member.cluster, plan.member.node_id))

    def close(self, timeout: float = 10.0) -> None:
        """Take no more actions and wait for those under way; the rest are left to end with the process."""
        self._closing.set()
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- in the action's thread -------------------------------------------------------------------

    def _run(self, action: Action, key: tuple[str, int], fields: dict[str, Any]) -> None:
        try:
            outcome = self._outcome(action)
        except Exception as error:  # noqa: BLE001 - nobody above this thread would see it
            _log.error("an action failed", id=action.id, exc_info=error)
            outcome = Outcome("error", -1, error=f"internal error; the log has it under action {action.id}")
        self._metrics.actions.labels(action.action, outcome.kind).inc()
        self._metrics.duration.labels(action.action).observe(action.seconds)
        self._metrics.running.dec()
        log = _log.info if outcome.success else _log.warning
        log(
            f"{action.action} ended", id=action.id, node_id=action.plan.member.node_id, actor=action.actor,
            outcome=outcome.kind, returncode=outcome.returncode, error=outcome.error or None,
        )  # fmt: skip
        # A failure is logged by the audit log; the action has happened all the same.
        with contextlib.suppress(ApiError):
            self._audit.write(
                "end", **fields, outcome=outcome.kind, returncode=outcome.returncode,
                error=outcome.error or None, seconds=round(action.seconds, 3),
            )  # fmt: skip
        action.outcome = outcome
        self._release(key)
        with self._lock:
            self._threads.discard(threading.current_thread())
        action.done.set()

    def _release(self, key: tuple[str, int]) -> None:
        with self._lock:
            self._busy.pop(key, None)

    def _outcome(self, action: Action) -> Outcome:
        plan = action.plan
        before = self._identity(plan) if action.wait else None
        try:
            with connection(plan.host, plan.ssh, self._known_hosts(plan)) as ssh:
                action.stage = "running the command"
                result = ssh.run(
                    plan.command(action.action), plan.script(action.action), plan.ssh.command_timeout
                )
        except ConfigError as error:
            return Outcome("failure", -1, error=str(error), reason="configuration")
        except SshError as error:
            kind = "timeout" if isinstance(error, ConnectTimeoutError) else "unreachable"
            return Outcome(kind, -1, stderr=str(error), error=str(error), reason=error.reason)
        stdout, stderr = printable(result.stdout), printable(result.stderr)
        if result.returncode is None:
            text = f"the command did not end within {plan.ssh.command_timeout:g} s and was ended"
            return Outcome("timeout", -1, stdout, stderr, text, "command_timeout", result.omitted)
        if result.returncode not in SUCCESS_CODES:
            last = stderr.strip().splitlines()[-1:] or ["it wrote no error message"]
            text = f"the command ended with exit code {result.returncode}: {last[0][:300]}"
            return Outcome("failure", result.returncode, stdout, stderr, text, "exit_code", result.omitted)
        outcome = Outcome("success", result.returncode, stdout, stderr, omitted=result.omitted)
        if action.action == "restart" and action.wait:
            action.stage = "waiting for the runtime"
            return self._wait_until_up(action, outcome, before)
        return outcome

    def _wait_until_up(self, action: Action, outcome: Outcome, before: RuntimeIdentity | None) -> Outcome:
        """Success once another runtime than before answers."""
        deadline = time.monotonic() + action.wait
        while not self._closing.is_set():
            session = self._session(action.plan)
            if session is not None and (session.identity is None or session.identity != before):
                text = f"{outcome.stdout}the runtime answers after {action.seconds:.1f} s\n"
                return Outcome("success", outcome.returncode, text, outcome.stderr)
            if time.monotonic() >= deadline:
                break
            self._closing.wait(_POLL_S)
        text = f"the runtime did not come up within {action.wait:g} s; stderr has the end of its log"
        return Outcome(
            "not_up", outcome.returncode, outcome.stdout, self._log_tail(action.plan), text, "not_up"
        )

    def _log_tail(self, plan: NodePlan) -> str:
        try:
            with connection(plan.host, plan.ssh, self._known_hosts(plan)) as ssh:
                result = ssh.run(plan.command("log"), plan.script("log"), _LOG_SECONDS)
        except SshError as error:
            return f"its log cannot be read: {error}"
        return printable(result.stdout or result.stderr)

    def _identity(self, plan: NodePlan) -> RuntimeIdentity | None:
        session = self._session(plan)
        return None if session is None else session.identity

    def _session(self, plan: NodePlan) -> NodeSession | None:
        try:
            return self._reader.session(plan.member.address, 1.0)
        except RuntimeClientError:
            return None

    def _known_hosts(self, plan: NodePlan) -> KnownHosts:
        path = plan.ssh.known_hosts_file
        with self._lock:
            return self._known.setdefault(path, KnownHosts(path))


PlanMaker = Callable[[str], NodePlan]
