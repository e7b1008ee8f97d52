"""Carries an action out on its node by SSH, and learns what came of it.

A shutdown has its outcome when its command has ended. A restart goes on without us on the node, under the
node's lock; its script leaves the outcome there, which is asked for until it is known. Where nothing tells (a
forced command, a node that SSH has lost), a runtime that answers and was started since is a success too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from clio_client.config.errors import ConfigError
from clio_client.errors import RefusedError, RuntimeClientError
from clio_client.questions import NodeStatus
from clio_client.transport.interface import NodeSession
from clio_control_api.action import Action, ActionResult
from clio_control_api.node_report import Report, read_report
from clio_control_api.node_script import Errand, NodePlan, printable
from clio_control_api.queries import NodeQueries
from clio_control_api.ssh import (
    CommandResult,
    Connection,
    ConnectTimeoutError,
    KnownHosts,
    SshError,
    connection,
)

SUCCESS_CODES: Final = (0, 134)
"""134 is SIGABRT: a runtime's command aborts at its own end although the runtime did stop."""

_LOG_SECONDS: Final = 10.0
_PATIENCE_S: Final = 4.0
"""How long a node is asked to wait, in one go, for the end of a restart; closing takes no longer."""

_POLL_S: Final = 0.5
_RETRY_S: Final = 2.0
_ASK_S: Final = 1.0
_MARGIN_S: Final = 15.0
_REFUSALS: Final = 3
"""Refused connections in a row by which a runtime that has listened has ended."""


class Performer:
    """Carries out actions. Thread-safe; `close` ends the waiting, not what nodes do."""

    def __init__(self, queries: NodeQueries) -> None:
        self._queries = queries
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._known: dict[object, KnownHosts] = {}

    def close(self) -> None:
        """Follow no restart any longer."""
        self._closing.set()

    def perform(self, action: Action) -> ActionResult:
        """Carry the action out, and stay until its outcome is known."""
        action.stage = "connecting"
        try:
            with self._connection(action.plan) as ssh:
                action.stage = "running the command"
                ended = self._script(ssh, action, action.action, action.plan.ssh.command_timeout)
        except ConfigError as error:
            return ActionResult("failure", -1, error=str(error), reason="configuration")
        except SshError as error:
            outcome = "timeout" if isinstance(error, ConnectTimeoutError) else "unreachable"
            return ActionResult(outcome, -1, stderr=str(error), error=str(error), reason=error.reason)
        report = read_report(ended.stderr, action.id)
        command = _command_result(action.plan, ended, report)
        if action.action != "restart" or not command.success:
            return command
        if not action.wait:
            action.tell(command)
        return self.follow(action, command, told=report.started)

    def follow(self, action: Action, command: ActionResult, *, told: bool) -> ActionResult:
        """What came of a restart that is under way on its node.

        Args:
            command: how the command that began it ended.
            told: whether the node's script tells of it.
        """
        plan, began = action.plan, time.monotonic()
        action.stage = "waiting for the runtime"
        wanted = began + action.wait
        limit = max(began + (plan.restart_limit + _MARGIN_S if told else plan.ssh.start_timeout), wanted)
        anew = _Anew(self._queries, action)
        with contextlib.ExitStack() as stack:
            ssh: Connection | None = None
            while not self._closing.is_set():
                pause = _POLL_S
                if told:
                    try:
                        ssh = ssh or stack.enter_context(self._connection(plan))
                        left = (
                            wanted - time.monotonic()
                            if action.wait and action.answer is None
                            else _PATIENCE_S
                        )
                        report = self._ask(ssh, action, min(_PATIENCE_S, max(0.0, left)))
                    except SshError:
                        stack.close()
                        ssh, report, pause = None, Report(), _RETRY_S
                    if report.ending in ("succeeded", "failed"):
                        stack.close()
                        return self._ended(action, command, report, anew, wanted)
                    if report.ending == "running":
                        action.stage = report.text or action.stage
                        pause = 0.0
                    elif anew.answers():
                        return _is_up(action, command)
                    elif report.ending == "lost":
                        text = "it ended without a result: it was killed, or the node was started anew"
                        return self._unknown(command, f"what came of the restart is not known: {text}")
                elif anew.answers():
                    return _is_up(action, command)
                if action.wait and action.answer is None and time.monotonic() >= wanted:
                    action.tell(self._not_up(action, command, _late(action)))
                if time.monotonic() >= limit:
                    break
                self._closing.wait(pause)
        if self._closing.is_set():
            text = f"the service was stopped; {plan.target} knows what came of the restart"
        else:
            text = f"what came of the restart could not be learnt within {time.monotonic() - began:.0f} s"
        return self._unknown(command, text)

    def ask(self, plan: NodePlan, action_id: str, patience: float = 0.0) -> Report:
        """What a node says of a restart that any control API began there.

        Raises:
            SshError: it cannot be asked.
            ConfigError: what its settings name cannot be used.
        """
        with self._connection(plan) as ssh:
            return self._outcome(ssh, plan, action_id, patience)

    # --- parts ------------------------------------------------------------------------------------

    def _ended(
        self, action: Action, command: ActionResult, report: Report, anew: _Anew, wanted: float
    ) -> ActionResult:
        """A restart's result once the node has told its end; who waits does so for an answer."""
        if report.ending == "failed":
            return self._not_up(
                action, command, f"the restart failed: {report.text}; stderr has the end of its log"
            )
        if not action.wait:
            return _success(command, report.text)
        anew.refusals = 0
        while not self._closing.is_set():
            if anew.answers():
                return _is_up(action, command)
            if anew.refusals >= _REFUSALS and action.answer is None:
                text = "the runtime listened, but refuses connections now; stderr has the end of its log"
                return self._not_up(action, command, text)
            if time.monotonic() >= wanted:
                break
            self._closing.wait(_POLL_S)
        if action.answer is not None:  # who asked was told already that it took too long
            return _success(command, report.text)
        return self._not_up(action, command, _late(action))

    def _unknown(self, command: ActionResult, text: str) -> ActionResult:
        return ActionResult("unknown", command.returncode, command.stdout, command.stderr, text, "unknown")

    def _not_up(self, action: Action, command: ActionResult, text: str) -> ActionResult:
        tail = self._log_tail(action)
        return ActionResult("not_up", command.returncode, command.stdout, tail, text, "not_up")

    def _log_tail(self, action: Action) -> str:
        try:
            with self._connection(action.plan) as ssh:
                result = self._script(ssh, action, "log", _LOG_SECONDS)
        except SshError as error:
            return f"its log cannot be read: {error}"
        return printable(result.stdout or result.stderr)

    def _ask(self, ssh: Connection, action: Action, patience: float) -> Report:
        return self._outcome(ssh, action.plan, action.id, patience)

    def _outcome(self, ssh: Connection, plan: NodePlan, action_id: str, patience: float) -> Report:
        errand = Errand(action_id, patience=patience)
        ended = ssh.run(plan.command("outcome"), plan.script("outcome", errand), patience + _LOG_SECONDS)
        return read_report(ended.stderr, action_id)

    def _script(self, ssh: Connection, action: Action, what: str, timeout: float) -> CommandResult:
        errand = Errand(action.id, action.actor)
        return ssh.run(action.plan.command(what), action.plan.script(what, errand), timeout)

    @contextlib.contextmanager
    def _connection(self, plan: NodePlan) -> Iterator[Connection]:
        path = plan.ssh.known_hosts_file
        with self._lock:
            known = self._known.setdefault(path, KnownHosts(path))
        with connection(plan.host, plan.ssh, known) as ssh:
            yield ssh


class _Anew:
    """Whether a runtime answers at an action's node that was started after the action began."""

    def __init__(self, queries: NodeQueries, action: Action) -> None:
        self._queries = queries
        self._action = action
        self._gone = isinstance(action.before, RefusedError)
        self.refusals = 0  # in a row, until now

    def answers(self) -> bool:
        try:
            session = self._queries.status(self._action.plan.member.address, _ASK_S).session
        except RuntimeClientError as error:
            refused = isinstance(error, RefusedError)
            self.refusals = self.refusals + 1 if refused else 0
            self._gone = self._gone or refused
            return False
        self.refusals = 0
        return self._gone or self._is_new(session)

    def _is_new(self, session: NodeSession) -> bool:
        before = self._action.before
        identity = before.session.identity if isinstance(before, NodeStatus) else None
        if identity is not None and session.identity is not None:
            return session.identity != identity
        uptime = self._queries.uptime(self._action.plan.member.address, session)
        return uptime is not None and uptime < self._action.seconds


def _command_result(plan: NodePlan, ended: CommandResult, report: Report) -> ActionResult:
    """How the script that carries out an action ended."""
    stdout, code = printable(ended.stdout), ended.returncode
    if code is None:
        text = f"the command did not end within {plan.ssh.command_timeout:g} s and was ended"
        return ActionResult("timeout", -1, stdout, report.stderr, text, "command_timeout", ended.omitted)
    if report.busy:
        return ActionResult("conflict", -1, stdout, "", _busy_text(plan, report), "busy")
    last = (report.stderr.strip().splitlines()[-1:] or ["it wrote no error message"])[0][:300]
    if report.unlocked:
        return ActionResult("failure", code, stdout, report.stderr, f"{plan.target}: {last}", "node_lock")
    if code not in SUCCESS_CODES:
        text = f"the command ended with exit code {code}: {last}"
        return ActionResult("failure", code, stdout, report.stderr, text, "exit_code", ended.omitted)
    return ActionResult("success", code, stdout, report.stderr, omitted=ended.omitted)


def _busy_text(plan: NodePlan, report: Report) -> str:
    node, holder = f"node {plan.member.node_id} is busy", report.holder
    if holder is None:
        return f"{node}: its lock is held by a program that does not say what it does"
    step = f" ({holder.step})" if holder.step else ""
    return (
        f"{node}: a {holder.action} by {holder.actor}, asked of the control API on {holder.host}, has been "
        f"under way for {holder.seconds} s{step}"
    )


def _is_up(action: Action, command: ActionResult) -> ActionResult:
    return _success(command, f"the runtime answers after {action.seconds:.1f} s")


def _success(command: ActionResult, text: str) -> ActionResult:
    stdout = f"{command.stdout}{text}\n"
    return ActionResult("success", command.returncode, stdout, command.stderr, message=text)


def _late(action: Action) -> str:
    return f"the runtime did not come up within {action.wait:g} s; stderr has the end of its log"
