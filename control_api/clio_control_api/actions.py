"""Shutdown and restart: one at a time a node, written to the audit log, counted, never for ever."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_client.errors import RefusedError, RuntimeClientError
from clio_client.questions import NodeStatus
from clio_client.transport.interface import NodeSession
from clio_control_api.audit import AuditLog
from clio_control_api.errors import ApiError, Conflict, Unavailable
from clio_control_api.metrics import Metrics
from clio_control_api.node_script import NodePlan, printable
from clio_control_api.queries import NodeQueries
from clio_control_api.ssh import ConnectTimeoutError, KnownHosts, SshError, connection
from clio_web.logs import get_logger

SUCCESS_CODES: Final = (0, 134)
"""134 is SIGABRT: a runtime's command aborts at its own end although the runtime did stop."""

MAX_WAIT_S: Final = 600
_LOG_SECONDS: Final = 10.0
_REMEMBERED: Final = 256
_POLL_S: Final = 0.5
_ASK_S: Final = 1.0

_log = get_logger(__name__)


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

    @property
    def success(self) -> bool:
        """Whether what was asked for has happened."""
        return self.outcome == "success"

    @property
    def status(self) -> int:
        """HTTP status code."""
        return {"success": 200, "failure": 500, "unreachable": 502, "timeout": 504, "not_up": 504}.get(
            self.outcome, 500
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
    """One action under way or done. `before` is the runtime that answered when it began, or why none did."""

    id: str
    action: str
    plan: NodePlan
    actor: str
    wait: float
    before: NodeStatus | RuntimeClientError
    started: float = field(default_factory=time.monotonic)
    stage: str = "connecting"
    result: ActionResult | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.monotonic() - self.started


class ActionRunner:
    """Runs actions in threads of their own. Thread-safe; `close` waits for what is under way."""

    def __init__(
        self, queries: NodeQueries, audit: AuditLog, metrics: Metrics, *, max_actions: int = 16
    ) -> None:
        self._queries = queries
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
        self,
        action: str,
        plan: NodePlan,
        before: NodeStatus | RuntimeClientError,
        *,
        actor: str,
        client: str,
        role: str,
        wait: float = 0.0,
    ) -> Action:
        """Begin an action and return at once.

        Raises:
            Conflict: another is under way on this node.
            Unavailable: too many are under way, the audit log cannot be written, or no thread started.
        """
        member = plan.member
        key = (member.cluster, member.node_id)
        found = Action(secrets.token_hex(8), action, plan, actor, wait, before)
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
        thread = threading.Thread(
            target=self._run, args=(found, key, fields), name=f"{action}-{member.node_id}", daemon=True
        )
        try:
            self._audit.write("begin", **fields)
            with self._lock:
                self._actions[found.id] = found
                while len(self._actions) > _REMEMBERED:
                    self._actions.popitem(last=False)
                self._threads.add(thread)
            thread.start()
        except RuntimeError as error:  # how Python says that the system gives no more threads
            text = f"the {action} cannot be started: {error}; try again later"
            self._forget(found, key, thread)
            self._ended(found, fields, ActionResult("error", -1, error=text))
            raise Unavailable(text) from None
        except BaseException:
            self._forget(found, key, thread)
            raise
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
            with self._metrics.running.track_inprogress():
                result = self._perform(action)
        except Exception as error:  # noqa: BLE001 - nobody above this thread would see it
            _log.error("an action failed", id=action.id, exc_info=error)
            text = f"internal error; the log has it under action {action.id}"
            result = ActionResult("error", -1, error=text)
        try:
            self._ended(action, fields, result)
        finally:
            action.result = result
            with self._lock:
                self._busy.pop(key, None)
                self._threads.discard(threading.current_thread())
            action.done.set()

    def _ended(self, action: Action, fields: dict[str, Any], result: ActionResult) -> None:
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

    def _forget(self, action: Action, key: tuple[str, int], thread: threading.Thread) -> None:
        """Undo what `start` has noted of an action that does not run."""
        with self._lock:
            self._busy.pop(key, None)
            self._actions.pop(action.id, None)
            self._threads.discard(thread)

    def _perform(self, action: Action) -> ActionResult:
        plan = action.plan
        try:
            with connection(plan.host, plan.ssh, self._known_hosts(plan)) as ssh:
                action.stage = "running the command"
                ended = ssh.run(
                    plan.command(action.action), plan.script(action.action), plan.ssh.command_timeout
                )
        except ConfigError as error:
            return ActionResult("failure", -1, error=str(error), reason="configuration")
        except SshError as error:
            outcome = "timeout" if isinstance(error, ConnectTimeoutError) else "unreachable"
            return ActionResult(outcome, -1, stderr=str(error), error=str(error), reason=error.reason)
        stdout, stderr = printable(ended.stdout), printable(ended.stderr)
        if ended.returncode is None:
            text = f"the command did not end within {plan.ssh.command_timeout:g} s and was ended"
            return ActionResult("timeout", -1, stdout, stderr, text, "command_timeout", ended.omitted)
        if ended.returncode not in SUCCESS_CODES:
            last = stderr.strip().splitlines()[-1:] or ["it wrote no error message"]
            text = f"the command ended with exit code {ended.returncode}: {last[0][:300]}"
            code = ended.returncode
            return ActionResult("failure", code, stdout, stderr, text, "exit_code", ended.omitted)
        found = ActionResult("success", ended.returncode, stdout, stderr, omitted=ended.omitted)
        if action.action == "restart" and action.wait:
            action.stage = "waiting for the runtime"
            return self._wait_until_up(action, found)
        return found

    def _wait_until_up(self, action: Action, command: ActionResult) -> ActionResult:
        """Success once a runtime answers that was started since."""
        deadline = time.monotonic() + action.wait
        gone = isinstance(action.before, RefusedError)
        while not self._closing.is_set():
            try:
                session = self._queries.status(action.plan.member.address, _ASK_S).session
            except RuntimeClientError as error:
                gone = gone or isinstance(error, RefusedError)
            else:
                if gone or self._is_new(action, session):
                    text = f"{command.stdout}the runtime answers after {action.seconds:.1f} s\n"
                    return ActionResult("success", command.returncode, text, command.stderr)
            if time.monotonic() >= deadline:
                break
            self._closing.wait(_POLL_S)
        text = f"the runtime did not come up within {action.wait:g} s; stderr has the end of its log"
        return ActionResult(
            "not_up", command.returncode, command.stdout, self._log_tail(action.plan), text, "not_up"
        )

    def _log_tail(self, plan: NodePlan) -> str:
        try:
            with connection(plan.host, plan.ssh, self._known_hosts(plan)) as ssh:
                result = ssh.run(plan.command("log"), plan.script("log"), _LOG_SECONDS)
        except SshError as error:
            return f"its log cannot be read: {error}"
        return printable(result.stdout or result.stderr)

    def _is_new(self, action: Action, session: NodeSession) -> bool:
        """Whether a runtime was started after the action began."""
        before = action.before.session.identity if isinstance(action.before, NodeStatus) else None
        if before is not None and session.identity is not None:
            return session.identity != before
        uptime = self._queries.uptime(action.plan.member.address, session)
        return uptime is not None and uptime < action.seconds

    def _known_hosts(self, plan: NodePlan) -> KnownHosts:
        path = plan.ssh.known_hosts_file
        with self._lock:
            return self._known.setdefault(path, KnownHosts(path))
