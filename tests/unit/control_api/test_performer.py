"""How the outcome of a restart is learnt: from the node, by a runtime that is another one, or not at all.

The node and its sshd are scripted here; tests/integration/test_control_ssh.py has the real ones.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clio_client.config.errors import ConfigError
from clio_client.errors import HungError, RefusedError, RuntimeClientError
from clio_client.membership import Member
from clio_client.protocol.codec import Generation, RuntimeIdentity
from clio_client.questions import NodeStatus
from clio_client.transport.interface import NodeAddress, NodeSession
from clio_control_api import performer
from clio_control_api.action import Action, ActionResult
from clio_control_api.node_script import NodePlan
from clio_control_api.performer import Performer
from clio_control_api.settings import SshSettings
from clio_control_api.ssh import CommandResult, ConnectTimeoutError, SshError

ID = "71db373ab1168a26"
BEGUN = ActionResult("success", 0, "stopped\n")
FINE, BAD, LOST = "ended succeeded 5 a new runtime listens", "ended failed 5 no such device", "lost"
RUNNING, UNTOLD = "running starting the runtime", ""
OLD, NEW = 1, 2  # process ids of runtimes


class Node:
    """A node, its sshd and its runtime, as `Performer` meets them.

    Attributes:
        patience: seconds that it was asked to wait for an outcome, at last.
        reports: what the script tells of the outcome, one after the other, the last for good; an error is
            raised instead.
        runtimes: what the runtime answers to a question, likewise.
    """

    def __init__(self) -> None:
        self.reports: list[str | SshError] = [FINE]
        self.runtimes: list[int | RuntimeClientError | None] = [RefusedError("nobody listens")]
        self.began: str | SshError = "started"
        self.log: str | SshError = "the end of the log"
        self.returncode: int | None = 0
        self.uptime_s: float | None = None
        self.unreachable: SshError | None = None
        self.asked: list[str] = []
        self.patience = 0.0
        self.on_ask: Callable[[], None] = lambda: None

    # --- as ssh.Connection ------------------------------------------------------------------------

    def run(self, command: str, script: str, timeout: float) -> CommandResult:
        assert f"id={ID}\n" in script
        assert timeout > 0
        what = command.split()[-2]
        self.asked.append(what)
        if what == "log":
            return CommandResult(0, raised(self.log).encode(), b"", 0)
        if what == "outcome":
            self.patience = timeout - performer._LOG_SECONDS
            self.on_ask()
            return CommandResult(0, b"", marked(raised(following(self.reports))), 0)
        return CommandResult(self.returncode, b"stopped\n", marked(raised(self.began)), 0)

    # --- as NodeQueries ---------------------------------------------------------------------------

    def status(self, _node: NodeAddress, timeout: float) -> NodeStatus:
        assert timeout > 0
        self.asked.append("status")
        found = following(self.runtimes)
        if isinstance(found, RuntimeClientError):
            raise found
        return status_of(found)

    def uptime(self, _node: NodeAddress, _session: NodeSession) -> float | None:
        return self.uptime_s


def following(script: list[Any]) -> Any:
    return script.pop(0) if len(script) > 1 else script[0]


def raised(what: str | SshError) -> str:
    if isinstance(what, SshError):
        raise what
    return what


def marked(text: str) -> bytes:
    return f"#clio-{ID} {text}\n".encode() if text else b""


def status_of(pid: int | None) -> NodeStatus:
    identity = None if pid is None else RuntimeIdentity(start_ns=pid, pid=pid)
    return NodeStatus(NodeSession(Generation.C, identity), None, 0.001)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node()

    @contextlib.contextmanager
    def connection(host: str, *_: Any) -> Iterator[Node]:
        assert host == "n1"
        if found.unreachable is not None:
            raise found.unreachable
        yield found

    monkeypatch.setattr(performer, "connection", connection)
    monkeypatch.setattr(performer, "_POLL_S", 0.01)
    monkeypatch.setattr(performer, "_RETRY_S", 0.01)
    return found


def action_on(
    kind: str = "restart",
    wait: float = 0.0,
    before: int | RuntimeClientError | None = OLD,
    start_timeout: float = 60.0,
) -> Action:
    plan = NodePlan(Member("", 1, "n1", NodeAddress("n1")), SshSettings(start_timeout=start_timeout))
    was = before if isinstance(before, RuntimeClientError) else status_of(before)
    return Action(ID, kind, plan, "anna", wait, was)


def perform(node: Node, action: Action) -> ActionResult:
    return Performer(node).perform(action)  # type: ignore[arg-type]


def test_a_shutdown_is_over_when_its_command_is(node: Node) -> None:
    result = perform(node, action_on("shutdown"))
    assert (result.outcome, result.stdout, node.asked) == ("success", "stopped\n", ["shutdown"])


@pytest.mark.parametrize(
    ("returncode", "began", "outcome", "reason"),
    [
        (1, "started", "failure", "exit_code"),
        (None, "started", "timeout", "command_timeout"),
        (75, "busy 100 1f restart otto login2 90 stopping", "conflict", "busy"),
        (1, "unlocked", "failure", "node_lock"),
    ],
)
def test_a_restart_that_did_not_begin_is_not_waited_for(
    node: Node, returncode: int | None, began: str, outcome: str, reason: str
) -> None:
    node.returncode, node.began = returncode, began
    result = perform(node, action_on())
    assert (result.outcome, result.reason, node.asked) == (outcome, reason, ["restart"])


@pytest.mark.parametrize(
    ("error", "outcome"), [(SshError("no route"), "unreachable"), (ConnectTimeoutError("late"), "timeout")]
)
def test_a_node_that_ssh_does_not_reach(node: Node, error: SshError, outcome: str) -> None:
    node.unreachable = error
    result = perform(node, action_on())
    assert (result.outcome, result.error, result.reason) == (outcome, str(error), error.reason)


def test_settings_that_cannot_be_used_are_a_failure(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def connection(*_: Any) -> Any:
        raise ConfigError("control.yaml", "no key", "Give one")

    monkeypatch.setattr(performer, "connection", connection)
    result = perform(node, action_on())
    assert (result.outcome, result.reason, result.returncode) == ("failure", "configuration", -1)
    assert result.error == "control.yaml: no key. Give one"


@pytest.mark.parametrize(("wait", "low", "high"), [(0.0, 4.0, 4.0), (60.0, 4.0, 4.0), (3.0, 1.5, 3.0)])
def test_a_node_is_asked_to_wait_as_long_as_the_one_who_asked_does(
    node: Node, wait: float, low: float, high: float
) -> None:
    node.runtimes = [NEW]
    perform(node, action_on(wait=wait))
    assert low <= node.patience <= high


# --- what came of a restart, by the node's report -------------------------------------------------


def test_a_restart_lasts_until_the_node_says_it_has_succeeded(node: Node) -> None:
    node.reports = [RUNNING, SshError("connection lost"), RUNNING, FINE]
    action = action_on()
    stages: list[tuple[str, bool, ActionResult | None]] = []
    node.on_ask = lambda: stages.append((action.stage, action.answer is not None, action.result))
    result = perform(node, action)
    assert (result.outcome, result.message) == ("success", "a new runtime listens")
    assert node.asked == ["restart", *["outcome"] * 2, "status", *["outcome"] * 2]
    assert stages[0] == ("waiting for the runtime", True, None)  # who did not wait has an answer already
    assert stages[3] == ("starting the runtime", True, None)


def test_a_restart_that_failed_has_the_end_of_its_log(node: Node) -> None:
    node.reports = [RUNNING, BAD]
    result = perform(node, action_on())
    assert (result.outcome, result.reason, result.stderr) == ("not_up", "not_up", "the end of the log")
    assert "the restart failed: no such device" in result.error


def test_a_log_that_cannot_be_read_is_said(node: Node) -> None:
    node.reports, node.log = [BAD], SshError("connection lost")
    assert perform(node, action_on()).stderr == "its log cannot be read: connection lost"


def test_who_waits_does_so_until_the_runtime_answers(node: Node) -> None:
    """The node says that it listens: that is not yet an answer."""
    node.runtimes = [RefusedError("no"), HungError("slow"), OLD]
    result = perform(node, action_on(wait=20))
    assert (result.outcome, result.message[:19]) == ("success", "the runtime answers")
    # It was gone, so what answers after that is another one whatever it calls itself.
    assert node.asked == ["restart", "outcome", *["status"] * 3]


def test_who_waits_for_a_runtime_that_never_answers_is_told_with_its_log(node: Node) -> None:
    node.runtimes = [HungError("slow")]
    began = time.monotonic()
    result = perform(node, action_on(wait=0.2))
    assert (result.outcome, result.stderr) == ("not_up", "the end of the log")
    assert "did not come up within 0.2 s" in result.error
    assert node.asked.count("status") > 1
    assert time.monotonic() - began > 0.19


def test_who_waits_less_long_than_the_restart_takes_is_answered_and_the_outcome_learnt(node: Node) -> None:
    action = action_on(wait=0.1)
    node.reports = [RUNNING]

    def tell_later() -> None:
        if action.answer is not None:
            node.reports = [FINE]

    node.on_ask = tell_later
    result = perform(node, action)
    assert action.answer is not None
    assert (action.answer.outcome, action.answer.stderr) == ("not_up", "the end of the log")
    assert (result.outcome, result.message) == ("success", "a new runtime listens")


def test_a_runtime_that_ends_once_it_has_listened_is_not_waited_for(node: Node) -> None:
    node.reports = [RUNNING, FINE]
    node.runtimes = [HungError("slow"), RefusedError("nobody listens")]
    began = time.monotonic()
    result = perform(node, action_on(wait=600))
    assert (result.outcome, result.stderr) == ("not_up", "the end of the log")
    assert "refuses connections now" in result.error
    assert time.monotonic() - began < 60


# --- by a runtime that answers --------------------------------------------------------------------


@pytest.mark.parametrize("reports", [[UNTOLD], [SshError("gone")], [LOST]], ids=["silent", "ssh", "lost"])
def test_a_runtime_that_is_another_one_is_a_success_where_the_node_tells_nothing(
    node: Node, reports: list[str | SshError]
) -> None:
    node.reports, node.runtimes = reports, [NEW]
    assert perform(node, action_on()).message.startswith("the runtime answers")


@pytest.mark.parametrize(
    ("before", "runtimes"),
    [
        (OLD, [OLD, HungError("slow"), NEW]),
        (OLD, [OLD, RefusedError("no"), OLD]),
        (RefusedError("no"), [HungError("slow"), OLD]),
    ],
)
def test_without_a_script_on_the_node_only_the_runtime_tells(
    node: Node, before: int | RuntimeClientError, runtimes: list[int | RuntimeClientError | None]
) -> None:
    """As with a forced command. One that has not been gone, and is the same process, is none."""
    node.began, node.runtimes = UNTOLD, list(runtimes)
    assert perform(node, action_on(before=before)).success
    assert node.asked == ["restart", *["status"] * len(runtimes)]


@pytest.mark.parametrize(("uptime", "outcome"), [(0.0, "success"), (3600.0, "unknown"), (None, "unknown")])
def test_a_runtime_that_has_no_identity_is_told_by_its_uptime(
    node: Node, uptime: float | None, outcome: str
) -> None:
    node.began, node.runtimes, node.uptime_s = UNTOLD, [None], uptime
    assert perform(node, action_on(before=None, start_timeout=0.3)).outcome == outcome


# --- or not at all --------------------------------------------------------------------------------


def test_a_restart_whose_end_nobody_tells_is_unknown(node: Node) -> None:
    node.began, node.runtimes = UNTOLD, [OLD]
    result = perform(node, action_on(start_timeout=0.3))
    assert (result.outcome, result.reason, result.state) == ("unknown", "unknown", "unknown")
    assert "could not be learnt within" in result.error
    assert node.asked.count("status") > 1


def test_a_restart_that_was_lost_on_its_node_is_unknown_at_once(node: Node) -> None:
    node.reports, node.runtimes = [LOST], [OLD]
    result = perform(node, action_on())
    assert result.outcome == "unknown"
    assert "ended without a result" in result.error
    assert node.asked == ["restart", "outcome", "status"]


@pytest.mark.parametrize("ending", [RUNNING, FINE])
def test_closing_ends_the_waiting(node: Node, ending: str) -> None:
    """Before the node has told the end, or while its runtime is waited for."""
    node.reports, node.runtimes = [ending], [HungError("slow")]
    worker = Performer(node)  # type: ignore[arg-type]
    results: list[ActionResult] = []
    waits = threading.Event()
    node.on_ask = waits.set
    thread = threading.Thread(target=lambda: results.append(worker.perform(action_on(wait=60))))
    thread.start()
    assert waits.wait(20)
    worker.close()
    thread.join(20)
    assert not thread.is_alive()
    (result,) = results
    if ending == RUNNING:
        assert "the service was stopped" in result.error
    assert not result.success


def test_one_that_is_closed_already_asks_nobody(node: Node) -> None:
    worker = Performer(node)  # type: ignore[arg-type]
    worker.close()
    assert worker.follow(action_on(), BEGUN, told=True).outcome == "unknown"
    assert node.asked == []
