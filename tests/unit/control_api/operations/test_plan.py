"""Which nodes, in which order, how many at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clio_control_api.errors import BadRequest, Unavailable
from clio_control_api.operations.model import (
    DONE,
    NodeProgress,
    Operation,
    restored,
    stored,
)
from clio_control_api.operations.plan import next_batch, parse_orders, planned
from clio_control_api.operations.store import OperationStore
from tests.unit.control_api.operations.scripted import ScriptedWorld, down, orders, up


def parsed(given: dict[str, Any], action: str = "restart") -> Any:
    return parse_orders(action, given, "lab", actor="anna", role="operator", client="10.0.0.7")


def test_orders_of_a_request() -> None:
    found = parsed({"nodes": " 1-2 ", "max_unavailable": 2, "wait": "30", "reason": "kernel"})
    assert (found.nodes, found.max_unavailable, found.wait, found.reason) == ("1-2", 2, 30.0, "kernel")
    assert (found.cluster, found.actor, found.client) == ("lab", "anna", "10.0.0.7")
    assert (parsed({}).order, parsed({}).max_unavailable) == ("leader-last", 1)
    for bad in (
        {"nodes": 3}, {"nodes": "5-1"}, {"max_unavailable": 0}, {"max_unavailable": True}, {"wait": 1e9},
        {"wait": "-3"}, {"order": "random"}, {"reason": "a\nb"}, {"node": "1"}, {"max_unavailable": [1]},
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            parsed(bad)


def plan(world: ScriptedWorld, **more: Any) -> list[int]:
    found = orders(more.pop("action", "restart"), **more)
    return [node.node_id for node in planned(found, world.members(""), world.seen)]


def test_the_leader_is_last_and_what_is_down_first() -> None:
    world = ScriptedWorld(5)
    assert plan(world) == [1, 2, 3, 4, 0]
    world.seen[3] = down(3)
    assert plan(world) == [3, 1, 2, 4, 0]
    assert plan(world, order="ascending") == [0, 1, 2, 3, 4]
    assert plan(world, order="descending") == [4, 3, 2, 1, 0]
    assert plan(world, nodes="0-1,3") == [3, 1, 0]
    assert plan(world, nodes="n4") == [4]
    assert plan(world, action="shutdown") == [1, 2, 4, 0]
    world.seen[2] = replace(up(2), names=("compute-02",))
    assert plan(world, nodes="compute-02") == [2]
    with pytest.raises(BadRequest, match="no node is meant"):
        plan(world, nodes="77")
    with pytest.raises(BadRequest, match="down already"):
        plan(world, nodes="3", action="shutdown")


def operation(**more: Any) -> Operation:
    world = ScriptedWorld(4)
    found = orders(**more)
    return Operation("0123456789abcdef", found, planned(found, world.members(""), world.seen), began=5.0)


def test_batches_are_as_large_as_allowed_and_the_leader_is_alone() -> None:
    def batch(found: Operation, *leaders: int) -> list[int]:
        return [node.node_id for node in next_batch(found, leaders)]

    found = operation(max_unavailable=2)
    assert batch(found, 0) == [1, 2]
    found = found.with_node(1, state=DONE).with_node(2, state=DONE)
    assert batch(found, 0) == [3]
    # Leadership has moved since the plan.
    assert batch(found, 3) == [0]
    found = found.with_node(0, state=DONE)
    assert batch(found, 3) == [3]
    assert batch(found.with_node(3, state=DONE)) == []
    assert batch(operation(order="ascending", max_unavailable=3), 0) == [0, 1, 2]


def test_an_operation_survives_a_file(tmp_path: Path) -> None:
    store = OperationStore(tmp_path / "operations")
    assert store.load() == []
    first = operation(reason="größer").with_node(2, state=DONE, pools=("1.0 a",), began=1.5, ended=2.5)
    first = replace(first, up_before=(0, 1), alerts_before=("X",))
    store.save(first)
    later = replace(first, id="f" * 16, began=9.0)
    store.save(later)
    assert store.load() == [first, later]
    assert oct((tmp_path / "operations" / f"{first.id}.json").stat().st_mode)[-3:] == "600"
    assert [path.suffix for path in (tmp_path / "operations").iterdir()] == [".json", ".json"]
    # What cannot be read is left alone, and does not hide the others.
    bad = tmp_path / "operations" / f"{'a' * 16}.json"
    for text in ("", "[]", "{", json.dumps({**stored(first), "state": "odd"}), json.dumps(stored(first))):
        bad.write_text(text)
        assert store.load() == [first, later], text
    assert bad.exists()
    assert restored({**stored(first), "of a later version": 1}) == first
    store.remove(first)
    assert store.load() == [later]


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "operations").write_text("a file where the directory should be")
    with pytest.raises(Unavailable, match="cannot be written"):
        OperationStore(tmp_path / "operations").save(operation())


def test_the_document_says_who_why_and_how_far() -> None:
    found = operation(reason="kernel").with_node(1, state=DONE).document()
    assert (found["actor"], found["reason"], found["total"], found["done"]) == ("anna", "kernel", 4, 1)
    assert "ended" not in found
    assert [node["node_id"] for node in found["nodes"]] == [1, 2, 3, 0]
    assert found["nodes"][-1]["was_leader"] is True
    assert NodeProgress(1, "n", "n:1").state == "waiting"
