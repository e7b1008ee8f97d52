"""An operation from its beginning to its end, over restarts of the service too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_client.membership import Member
from clio_control_api.action import ActionResult
from clio_control_api.errors import Conflict, Forbidden, NotFound, Unavailable
from clio_control_api.operations import gates
from clio_control_api.operations import runner as runner_module
from clio_control_api.operations.gates import Alert, Work
from clio_control_api.operations.model import Operation
from clio_control_api.operations.runner import OperationRunner
from tests.unit.control_api.operations.scripted import (
    FakeAction,
    ScriptedWorld,
    await_state,
    await_that,
    down,
    operations,
    orders,
    up,
)

Make = Callable[..., OperationRunner]


@pytest.fixture
def world() -> ScriptedWorld:
    return ScriptedWorld()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "POLL_S", 0.01)
    monkeypatch.setattr(gates, "STUCK_S", 0.03)


@pytest.fixture
def make(tmp_path: Path, world: ScriptedWorld) -> Iterator[Make]:
    """Makes the runner of a service, each time as after a restart of it."""
    made: list[OperationRunner] = []

    def one(**options: Any) -> OperationRunner:
        for before in made:
            before.close()
        made.append(operations(tmp_path, world, **options))
        made[-1].restore()
        return made[-1]

    yield one
    for before in made:
        before.close()


def states(found: Operation) -> dict[int, str]:
    return {node.node_id: node.state for node in found.nodes}


def audited(home: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(line) for line in (home / "audit.jsonl").read_text().splitlines()]


def test_all_nodes_one_after_the_other(make: Make, world: ScriptedWorld, tmp_path: Path) -> None:
    at_once: list[int] = []

    def act(action: FakeAction, number: int) -> None:
        at_once.append(sum(not a.answered.is_set() for a in world.actions.values()))
        world.succeed(action, number)

    world.on_act = act
    runner = make()
    found = await_state(runner, runner.start(orders(reason="kernel")), "succeeded")
    assert world.acted == [1, 2, 3, 0]
    assert at_once == [1, 1, 1, 1]
    assert set(states(found).values()) == {"done"}
    lines = audited(tmp_path)
    assert [line["event"] for line in lines] == ["operation_begin", "operation_end"]
    assert all((line["actor"], line["reason"]) == ("anna", "kernel") for line in lines)
    assert (lines[0]["nodes"], lines[1]["outcome"]) == ([1, 2, 3, 0], "succeeded")


def test_shutdown_of_many(make: Make, world: ScriptedWorld) -> None:
    runner = make()
    found = runner.start(orders("shutdown", nodes="1-3", max_unavailable=2))
    await_state(runner, found, "succeeded")
    assert [world.seen[number].up for number in range(4)] == [True, False, False, False]


def test_it_stops_at_the_first_node_that_fails_a_gate(make: Make, world: ScriptedWorld) -> None:
    def act(action: FakeAction, number: int) -> None:
        world.effect(action.action, number)
        if number == 2:
            world.seen[2] = replace(world.seen[2], pools=frozenset({"301.0 ram"}))
        action.end()

    world.on_act = act
    runner = make()
    found = await_state(runner, runner.start(orders(wait=0.4)), "failed")
    assert world.acted == [1, 2]
    assert states(found) == {1: "done", 2: "failed", 3: "skipped", 0: "skipped"}
    assert found.message == "node 2 lacks pool 512.0 cte (gate: same pools)"


@pytest.mark.parametrize(
    ("break_it", "gate"),
    [
        (lambda w: w.seen.update({3: down(3)}), "nobody else down"),
        (lambda w: setattr(w, "firing", (Alert("ClioX", "ClioX()"),)), "no alert"),
        (lambda w: setattr(w, "firing", "Prometheus cannot be asked: refused"), "no alert"),
        (lambda w: w.seen.update({1: up(1, 2, workers={4: Work(1, 7)})}), "no worker stuck"),
        (lambda w: w.seen.update({1: up(1, 1)}), "another process"),
    ],
)
def test_every_gate_stops_it(
    make: Make, world: ScriptedWorld, break_it: Callable[[ScriptedWorld], None], gate: str
) -> None:
    world.firing = (Alert("ClioOld", "ClioOld()"),)

    def act(action: FakeAction, number: int) -> None:
        world.succeed(action, number)
        break_it(world)

    world.on_act = act
    runner = make()
    found = await_state(runner, runner.start(orders(wait=0.4)), "failed")
    assert world.acted == [1]
    assert f"(gate: {gate})" in found.message


def test_a_gate_that_opens_in_time_is_waited_for(make: Make, world: ScriptedWorld) -> None:
    world.firing = ()

    def act(action: FakeAction, number: int) -> None:
        world.firing = (Alert("ClioNodeDown", f"ClioNodeDown(node_id={number})", "", number),)
        world.succeed(action, number)

    world.on_act = act
    runner = make()
    found = runner.start(orders(nodes="1-2"))
    for number in (1, 2):
        waits = await_that(
            runner,
            found,
            lambda now, n=number: "no alert" in now.node(n).message,  # type: ignore[misc]
        )
        assert states(waits)[number] == "checking"
        world.firing = ()
    await_state(runner, found, "succeeded")


def test_an_action_that_fails_or_is_refused_stops_it(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: action.end("unreachable", "no route to n1")
    runner = make()
    found = await_state(runner, runner.start(orders()), "failed")
    assert found.message == "node 1 did not restart: no route to n1"
    world.refuse = {1: Conflict("node 1 is busy")}
    found = await_state(runner, runner.start(orders()), "failed")
    assert found.message == "node 1 was not acted on: node 1 is busy"
    assert world.acted == [1]


def test_abort_sees_the_node_under_way_to_its_end(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders())
    await_that(runner, found, lambda now: states(now)[1] == "acting" and 1 in world.actions)
    assert runner.abort(found.id, "vera").state == "aborting"
    assert states(runner.find(found.id))[1] == "acting"
    world.succeed(world.actions[1], 1)
    found = await_state(runner, found, "aborted")
    assert states(found) == {1: "done", 2: "skipped", 3: "skipped", 0: "skipped"}
    assert found.message == "abort asked for by vera"
    with pytest.raises(Conflict):
        runner.abort(found.id, "vera")


def test_pause_and_resume(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders(nodes="1-2"))
    await_that(runner, found, lambda now: 1 in world.actions)
    runner.pause(found.id, "anna")
    world.succeed(world.actions[1], 1)
    await_that(runner, found, lambda now: states(now)[1] == "done")
    assert world.acted == [1]
    world.on_act = world.succeed
    runner.resume(found.id, "anna")
    await_state(runner, found, "succeeded")
    with pytest.raises(Conflict):
        runner.pause(found.id, "anna")


def test_one_at_a_time_and_its_nodes_are_its_own(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders(nodes="1-2"))
    with pytest.raises(Conflict, match=found.id):
        runner.start(orders())
    members = {member.node_id: member for member in world.members("")}
    with pytest.raises(Conflict, match=found.id):
        runner.check_free(members[2])
    runner.check_free(members[3])
    runner.abort(found.id, "anna")
    await_that(runner, found, lambda now: 1 in world.actions)
    world.succeed(world.actions[1], 1)
    await_state(runner, found, "aborted")
    runner.check_free(members[2])


def test_nothing_begins_that_may_not(make: Make, world: ScriptedWorld, tmp_path: Path) -> None:
    runner = make()

    def allowed(member: Member) -> None:
        if member.node_id == 3:
            raise Forbidden("not node 3")

    with pytest.raises(Forbidden):
        runner.start(orders(), allowed)
    with pytest.raises(Conflict, match="plan has changed"):
        runner.start(orders(), as_shown=lambda nodes: nodes[0].node_id == 0)
    world.firing = "Prometheus cannot be asked: refused"
    with pytest.raises(Unavailable, match="refused"):
        runner.start(orders())
    world.firing = ()
    (tmp_path / "operations").write_text("no directory")
    with pytest.raises(Unavailable, match="written"):
        runner.start(orders())
    assert world.acted == []
    assert runner.all() == []
    with pytest.raises(NotFound):
        runner.find("0" * 16)


def test_it_goes_on_after_a_restart_of_the_service(make: Make, world: ScriptedWorld) -> None:
    """The service ends while node 1's restart runs on the node; its successor waits for it to come back."""
    world.on_act = lambda action, number: world.seen.update({number: down(number)})
    runner = make()
    found = runner.start(orders(nodes="1-2", reason="kernel"))
    await_that(runner, found, lambda now: now.node(1).action_id is not None)  # type: ignore[union-attr]
    world.on_act = world.succeed
    after = make()
    assert after.find(found.id).state == "running"
    assert after.under_way("") is not None
    await_that(after, found, lambda now: states(now)[1] == "checking")
    world.seen[1] = up(1, 2)
    done = await_state(after, found, "succeeded")
    assert world.acted == [1, 2]
    assert done.orders.reason == "kernel"


def test_what_left_no_trace_is_asked_for_again(
    make: Make, world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SAME_RUN_S", 0.1)
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders(nodes="1"))
    await_that(runner, found, lambda now: 1 in world.actions)
    world.on_act = world.succeed
    await_state(make(), found, "succeeded")
    assert world.acted == [1, 1]


def test_a_node_that_does_not_come_back_after_a_restart_of_the_service(
    make: Make, world: ScriptedWorld
) -> None:
    world.on_act = lambda action, number: world.seen.update({number: down(number)})
    runner = make()
    found = runner.start(orders(wait=0.3))
    await_that(runner, found, lambda now: now.node(1).action_id is not None)  # type: ignore[union-attr]
    failed = await_state(make(), found, "failed")
    assert "node 1 does not answer" in failed.message
    assert states(failed) == {1: "failed", 2: "skipped", 3: "skipped", 0: "skipped"}


@pytest.mark.parametrize(
    ("told", "state"),
    [(ActionResult("success", 0), "succeeded"), (ActionResult("not_up", 0, error="no port"), "failed")],
)
def test_what_the_node_tells_of_a_restart_counts(
    make: Make, world: ScriptedWorld, told: ActionResult, state: str
) -> None:
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders(nodes="1"))
    await_that(runner, found, lambda now: now.node(1).action_id is not None)  # type: ignore[union-attr]
    world.effect("restart", 1)
    world.told = told
    ended = await_state(make(), found, state)
    assert world.acted == [1]
    assert ended.message == ("" if state == "succeeded" else "node 1 did not restart: no port")


def test_one_left_alone_for_long_is_interrupted_and_can_be_resumed(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    now = [1000.0]
    runner = make(clock=lambda: now[0])
    found = runner.start(orders(nodes="1-2"))
    await_that(runner, found, lambda at: 1 in world.actions)
    world.effect("restart", 1)
    runner.close()
    now[0] += 601
    world.on_act = world.succeed
    after = make(clock=lambda: now[0])
    interrupted = after.find(found.id)
    assert interrupted.state == "interrupted"
    assert "601 s" in interrupted.message
    assert world.acted == [1]
    after.resume(found.id, "anna")
    await_that(after, found, lambda at: at.state == "succeeded")
    assert world.acted == [1, 2]


def test_a_paused_one_stays_paused_however_long(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    now = [1000.0]
    runner = make(clock=lambda: now[0])
    found = runner.start(orders(nodes="1-2"))
    await_that(runner, found, lambda at: 1 in world.actions)
    runner.pause(found.id, "anna")
    world.effect("restart", 1)
    now[0] += 86400
    world.on_act = world.succeed
    after = make(clock=lambda: now[0])
    await_that(after, found, lambda at: states(at)[1] == "done")
    assert after.find(found.id).state == "paused"
    after.resume(found.id, "anna")
    await_state(after, found, "succeeded")


def test_waiting_for_news_is_bounded_and_wakes_up(make: Make, world: ScriptedWorld) -> None:
    world.on_act = lambda action, number: None
    runner = make()
    found = runner.start(orders(nodes="1"))
    now = await_that(runner, found, lambda at: at.node(1).action_id is not None)  # type: ignore[union-attr]
    heard: list[Operation] = []
    thread = threading.Thread(target=lambda: heard.append(runner.wait(found.id, now.revision, 30)))
    thread.start()
    runner.pause(found.id, "anna")
    thread.join(10)
    assert heard[0].revision > now.revision
    latest = runner.find(found.id)
    assert runner.wait(found.id, latest.revision + 99, 0.01).id == found.id
