"""Actions without a node: what is answered when, what is remembered, counted and written down."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_client.errors import HungError
from clio_client.membership import Member
from clio_client.transport.interface import NodeAddress
from clio_control_api.action import Action, ActionResult
from clio_control_api.action_store import KEPT, KEPT_S, ActionStore
from clio_control_api.actions import ActionRunner
from clio_control_api.audit import AuditLog
from clio_control_api.errors import Conflict, Unavailable
from clio_control_api.metrics import OUTCOMES, Metrics
from clio_control_api.node_script import NodePlan
from clio_control_api.settings import SshSettings

FINE = ActionResult("success", 0, "stopped\n", message="it is down")


def plan(node: int = 1, cluster: str = "") -> NodePlan:
    return NodePlan(Member(cluster, node, f"n{node}", NodeAddress(f"n{node}")), SshSettings())


class Performer:
    """Ends an action when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.closed = threading.Event()
        self.work: Callable[[Action], ActionResult] = lambda _action: FINE

    def perform(self, action: Action) -> ActionResult:
        action.stage = "running the command"
        assert self.go.wait(20)
        return self.work(action)

    def follow(self, action: Action, command: ActionResult, *, told: bool) -> ActionResult:
        assert told
        return self.perform(action)

    def close(self) -> None:
        self.closed.set()
        self.go.set()


class Desk:
    def __init__(self, home: Path, max_actions: int = 2) -> None:
        self.performer = Performer()
        self.metrics = Metrics()
        self.audit_path = home / "audit.jsonl"
        self.runner = ActionRunner(
            self.performer,
            AuditLog(self.audit_path),
            self.metrics,
            max_actions=max_actions,  # type: ignore[arg-type]
        )

    def start(self, node: int = 1, action: str = "restart", cluster: str = "", **more: Any) -> Action:
        more = {"actor": "anna", "client": "10.0.0.7", "role": "operator", **more}
        return self.runner.start(action, plan(node, cluster), HungError("no answer"), **more)

    def events(self) -> list[tuple[str, str | None]]:
        return [(line["event"], line.get("outcome")) for line in self.lines()]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    def count(self, action: str, outcome: str) -> float:
        return self.metrics.actions.labels(action, outcome)._value.get()  # type: ignore[no-any-return]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.performer.go.set()
    found.runner.close()


def test_an_action_is_running_until_its_outcome_is_known(desk: Desk) -> None:
    action = desk.start(action="shutdown", reason="new wheel")
    assert (action.state, action.result, action.done.is_set()) == ("running", None, False)
    assert desk.runner.find(action.id) is action
    assert desk.runner.busy_with(plan()) is action
    desk.performer.go.set()
    assert action.done.wait(20)
    assert (action.state, action.message, action.result, action.answer) == (
        "succeeded", "it is down", FINE, FINE,
    )  # fmt: skip
    assert desk.runner.busy_with(plan()) is None
    assert desk.runner.find(action.id) is action
    assert desk.runner.find("0") is None
    assert re.fullmatch(r"[0-9a-f]{16}", action.id)
    assert desk.events() == [("begin", None), ("end", "success")]
    begin, end = desk.lines()
    assert begin["id"] == end["id"] == action.id
    assert (end["actor"], end["role"], end["client"], end["reason"]) == (
        "anna", "operator", "10.0.0.7", "new wheel",
    )  # fmt: skip
    assert desk.count("shutdown", "success") == 1
    seconds = action.seconds
    assert seconds == action.seconds  # it no longer grows
    document = action.document()
    assert document["who"] == "anna"
    assert document["since"].endswith("Z")
    assert {key: document[key] for key in ("node_id", "hostname", "state")} == {
        "node_id": 1, "hostname": "n1", "state": "succeeded",
    }  # fmt: skip


def test_who_asked_is_answered_before_a_restart_is_over(desk: Desk) -> None:
    over = threading.Event()

    def work(action: Action) -> ActionResult:
        action.tell(FINE)
        assert over.wait(20)
        return ActionResult("not_up", 0, error="the restart failed", reason="not_up")

    desk.performer.work = work
    desk.performer.go.set()
    action = desk.start()
    assert action.answered.wait(20)
    assert (action.answer, action.done.is_set(), action.state) == (FINE, False, "running")
    with pytest.raises(Conflict, match="a restart by anna has been under way for 0 s"):
        desk.start(action="shutdown", actor="vera")
    assert desk.events() == [("begin", None), ("conflict", None)]
    over.set()
    assert action.done.wait(20)
    assert (action.answer, action.state, action.message) == (FINE, "failed", "the restart failed")
    assert desk.events()[-1] == ("end", "not_up")
    assert desk.count("restart", "not_up") == 1
    assert desk.count("shutdown", "conflict") == 1


def test_a_conflict_says_what_is_under_way(desk: Desk) -> None:
    first = desk.start()
    with pytest.raises(
        Conflict, match=r"node 1 is busy: a restart by anna .* \((connecting|running)"
    ) as error:
        desk.start()
    assert error.value.fields["busy"]["id"] == first.id
    assert error.value.fields["busy"]["state"] == "running"
    # Another node, and the same number in another cluster, are others.
    desk.start(cluster="lab")
    with pytest.raises(Unavailable, match="2 actions are under way already"):
        desk.start(node=2)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_outcome_is_lost(desk: Desk, outcome: str) -> None:
    result = ActionResult(outcome, -1, error="" if outcome == "success" else "it went wrong")
    desk.performer.work = lambda _action: result
    desk.performer.go.set()
    action = desk.start()
    assert action.done.wait(20)
    assert action.result is action.answer is result
    assert action.state == {"success": "succeeded", "unknown": "unknown"}.get(outcome, "failed")
    assert desk.events() == [("begin", None), ("end", outcome)]
    assert desk.count("restart", outcome) == 1
    assert result.status in (200, 409, 500, 502, 504)
    assert (result.status == 200) is result.success
    assert result.document().get("error", "") == result.error


def test_an_internal_error_is_an_outcome_too(desk: Desk) -> None:
    def work(_action: Action) -> ActionResult:
        raise KeyError("secret detail")

    desk.performer.work = work
    desk.performer.go.set()
    action = desk.start()
    assert action.done.wait(20)
    assert action.result is not None
    assert (action.result.outcome, action.result.status) == ("error", 500)
    assert action.id in action.message
    assert "secret detail" not in action.message
    assert desk.runner.busy_with(plan()) is None
    assert desk.events()[-1] == ("end", "error")
    assert action.result.returncode == desk.lines()[-1]["returncode"] == -1


def test_the_log_has_what_went_wrong(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.performer.go.set()
    action = desk.start()
    assert action.wait == 0
    assert action.done.wait(20)
    assert "error=None" in capsys.readouterr().out
    desk.performer.work = lambda _action: ActionResult("failure", 3, error="exit status 3")
    assert desk.start().done.wait(20)
    assert "error='exit status 3'" in capsys.readouterr().out


def test_where_no_thread_can_be_started_nothing_has_happened(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(Unavailable, match="new thread; try again") as refused:
            desk.start()
    assert refused.value.written
    assert desk.events() == [("begin", None), ("end", "error")]
    assert desk.lines()[-1]["returncode"] == -1
    assert desk.count("restart", "error") == 1
    assert desk.runner.busy_with(plan()) is None
    desk.performer.go.set()
    assert desk.start().done.wait(20)


def test_nothing_begins_that_cannot_be_written_down(desk: Desk) -> None:
    desk.audit_path.mkdir()
    with pytest.raises(Unavailable, match="audit log"):
        desk.start()
    assert desk.runner.busy_with(plan()) is None
    desk.audit_path.rmdir()
    desk.performer.go.set()
    assert desk.start().done.wait(20)


def test_an_outcome_that_cannot_be_written_down_is_known_all_the_same(desk: Desk) -> None:
    action = desk.start()
    desk.audit_path.unlink()
    desk.audit_path.mkdir()
    desk.performer.go.set()
    assert action.done.wait(20)
    assert action.state == "succeeded"
    assert desk.count("restart", "success") == 1


def test_closing_ends_what_is_under_way_and_takes_no_more(desk: Desk) -> None:
    action = desk.start()
    desk.runner.close()
    assert desk.performer.closed.is_set()
    assert action.done.is_set()
    with pytest.raises(Unavailable, match="stopping"):
        desk.start(node=2)


def test_closing_waits_no_longer_than_it_may(desk: Desk) -> None:
    held = threading.Event()

    def work(_action: Action) -> ActionResult:
        assert held.wait(20)
        return FINE

    desk.performer.work = work
    action = desk.start()
    started = time.monotonic()
    desk.runner.close(0.2)
    assert 0.1 < time.monotonic() - started < 10
    assert not action.done.is_set()
    held.set()
    assert action.done.wait(20)


def test_a_restart_of_an_earlier_process_is_followed(desk: Desk) -> None:
    desk.performer.go.set()
    action = desk.runner.resume("a1", plan(), actor="anna", client="", role="operator", operation="op1")
    assert action.done.wait(20)
    assert desk.runner.find("a1") is action
    assert action.state == "succeeded"
    assert desk.events() == [("resumed", None), ("end", "success")]
    assert desk.lines()[0]["operation"] == "op1"


def ended(number: int) -> Action:
    action = Action(f"{number:x}", "shutdown", plan(number), "anna", 0.0, HungError("x"))
    action.end(FINE)
    return action


def test_the_store_is_bounded_in_number_and_keeps_what_is_under_way() -> None:
    store = ActionStore(1)
    running = Action("ffff", "restart", plan(1 << 20), "anna", 0.0, HungError("x"))
    assert store.begin(running) is None
    for number in range(KEPT + 10):
        store.end(ended(number))
    assert store.find("ffff") is running
    assert [store.find(f"{number:x}") is None for number in (0, 9, 10, KEPT + 9)] == [
        True,
        True,
        False,
        False,
    ]
    store.end(running, remember=False)
    assert store.find("ffff") is None


def test_the_store_is_bounded_in_age() -> None:
    now = [0.0]
    store = ActionStore(4, lambda: now[0])
    store.end(ended(1))
    now[0] = KEPT_S
    store.end(ended(2))
    assert store.find("1") is not None
    now[0] = KEPT_S + 1
    assert store.find("1") is None
    assert store.find("2") is not None


def test_only_the_action_that_has_a_node_gives_it_free() -> None:
    store = ActionStore(4)
    first, second = (Action(number, "restart", plan(), "anna", 0.0, HungError("x")) for number in "ab")
    assert store.begin(first) is None
    assert store.begin(second) is first
    store.end(second)
    assert store.busy_with(plan()) is first
