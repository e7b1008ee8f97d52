"""Alertmanager's webhook: what is decided on an alert, and that nothing else is done."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_control_api.alertmanager.decide import Past, decide, read_notification, seen_again
from clio_control_api.alertmanager.history import History
from clio_control_api.errors import BadRequest, Unavailable
from clio_control_api.operations.model import Operation, Orders
from clio_control_api.routes import WEBHOOK_BODY
from clio_lab.simulator.process import SimulatorProcess
from tests.unit.control_api.operations.scripted import down, up
from tests.unit.control_api.support import TOKENS, Api, control_api

ANNA = TOKENS["anna"][1]
LIMITS: dict[str, Any] = {"dry_run": False, "max_per_hour": 2, "max_down_percent": 25}
NOW = 100_000.0


def verdict(*history: Past, down: int = 1, nodes: int = 4, **more: Any) -> str:
    return decide(history, down, nodes, NOW, **{**LIMITS, **more}).verdict


def past(seconds_ago: float, *, dry: bool = False, seen_up: bool = True) -> Past:
    return Past(NOW - seconds_ago, "1@1", dry, seen_up)


def test_limits() -> None:
    assert verdict() == "acted"
    assert verdict(dry_run=True) == "dry_run"
    assert verdict(past(60)) == "acted"
    assert verdict(past(60), past(30)) == "rate"
    assert verdict(past(3601), past(30)) == "acted"
    assert verdict(past(7200, seen_up=False)) == "not_up_yet"
    assert verdict(down=2) == "share"
    assert verdict(down=1, max_down_percent=24) == "share"
    # What was done only in words does not hold up what is really done, and the other way round.
    assert verdict(past(60, dry=True), past(30, dry=True, seen_up=False)) == "acted"
    assert verdict(past(60, dry=True), past(30, dry=True), dry_run=True) == "rate"


def test_a_node_is_seen_up_as_another_process_only() -> None:
    before = (Past(1, "1@1", False), Past(2, None, False))
    assert [p.seen_up for p in seen_again(before, down(1))] == [False, False]
    assert [p.seen_up for p in seen_again(before, up(1, 1))] == [False, True]
    assert [p.seen_up for p in seen_again(before, up(1, 2))] == [True, True]


def test_history_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.json"
    kept = (past(60), past(30, seen_up=False))
    History(path).put({("lab", 3): kept})
    again = History(path)
    assert again.of(("lab", 3)) == kept
    assert again.under_way("lab") == {3}
    assert again.under_way("") == set()
    assert oct(path.stat().st_mode)[-3:] == "600"
    path.write_text("{")
    with pytest.raises(Unavailable, match="remove it"):
        History(path).of(("lab", 3))


def notification(*alerts: dict[str, Any], version: str = "4") -> dict[str, Any]:
    return {"version": version, "receiver": "clio", "status": "firing", "alerts": list(alerts)}


def alert(
    name: str = "ClioNodeDown", node_id: str = "1", status: str = "firing", **labels: str
) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": name, "node_id": node_id, **labels}, "fingerprint": "x"}


def test_what_is_no_notification() -> None:
    assert read_notification(notification(alert(hostname="n1")))[0].hostname == "n1"
    for bad in (
        [], {}, notification(version="3"), {"version": "4"}, notification({"status": "firing"}),
        {"version": "4", "alerts": {}},
        notification({**alert(), "status": "odd"}), notification(alert(node_id="1" * 300)),
        notification({"status": "firing", "labels": {"alertname": 3}}),
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            read_notification(bad)


Make = Callable[..., Api]


@pytest.fixture
def make(tmp_path: Path, simulator: SimulatorProcess, hosts: str) -> Iterator[Make]:
    """Control APIs that are told of alerts; SSH is refused."""
    with contextlib.ExitStack() as stack, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ssh = {"host": "127.0.0.1", "port": probe.getsockname()[1]}

        def one(**settings: Any) -> Api:
            given = {"enabled": True, "actions": {"ClioNodeDown": "restart"}, **settings}
            return stack.enter_context(control_api(tmp_path, hosts, tokens=True, ssh=ssh, alertmanager=given))

        yield one


def decisions(api: Api, *alerts: dict[str, Any]) -> list[str]:
    answer = api.post("/api/alertmanager", ANNA, json=notification(*alerts))
    assert answer.status_code == 200, answer.text
    return [found["verdict"] for found in answer.json["decisions"]]


def test_off_by_default(guarded: Api) -> None:
    answer = guarded.post("/api/alertmanager", ANNA, json=notification(alert()))
    assert answer.status_code == 404
    assert "alertmanager.enabled" in answer.json["error"]


def test_dry_run_by_default_and_every_decision_is_written_down(make: Make) -> None:
    api = make()
    assert api.post("/api/alertmanager", json=notification(alert())).status_code == 401
    assert api.post("/api/alertmanager", TOKENS["vera"][1], json=notification(alert())).status_code == 403
    found = decisions(
        api, alert(), alert(), alert("ClioOther"), alert(status="resolved"), alert(node_id="77"),
        alert(node_id=""), alert(node_id="2", cluster="none"), alert(node_id="2", hostname="another"),
    )  # fmt: skip
    assert found == [
        "dry_run", "not_up_yet", "not_configured", "resolved", "unknown_node", "unknown_node", "unknown_node",
        "unknown_node",
    ]  # fmt: skip
    lines = [line for line in api.audit() if line["event"] == "alert_decision"]
    assert [line["verdict"] for line in lines] == found
    assert all(line["actor"] == "anna" for line in lines)
    assert "begin" not in {line["event"] for line in api.audit()}
    metrics = api.get("/metrics", ANNA).text
    assert 'clio_control_alert_decisions_total{action="restart",verdict="dry_run"} 1.0' in metrics
    assert 'clio_control_alert_decisions_total{action="none",verdict="not_configured"} 1.0' in metrics


def test_it_acts_once_and_not_again_before_the_node_was_seen_up(
    make: Make, simulator: SimulatorProcess
) -> None:
    api = make(dry_run=False, max_per_hour=2, max_down_percent=40)
    simulator.set_fault(1, "refused")
    simulator.set_fault(2, "refused")
    assert decisions(api, alert(), alert(), alert(node_id="2")) == ["acted", "not_up_yet", "acted"]
    begun = [line for line in api.audit() if line["event"] == "begin"]
    assert [(line["node_id"], line["reason"], line["actor"]) for line in begun] == [
        (1, "alert ClioNodeDown", "anna"), (2, "alert ClioNodeDown", "anna"),
    ]  # fmt: skip
    # Two of five are down, and a third would be.
    assert decisions(api, alert(node_id="3")) == ["share"]
    # Memory and limits hold over a restart of the service.
    after = make(dry_run=False, max_per_hour=1, max_down_percent=100)
    assert decisions(after, alert()) == ["not_up_yet"]
    simulator.clear()
    deadline = time.monotonic() + 20
    while not after.get("/api/topology", ANNA, query_string={"search": "1"}).json["nodes"][0]["alive"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert decisions(after, alert()) == ["rate"]


def test_nothing_while_an_operation_is_under_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    api = make(dry_run=False)
    busy = Operation("0" * 16, Orders("restart", "", ""), (), state="paused")
    monkeypatch.setattr(api.built.services.operations, "under_way", lambda cluster: busy)
    assert decisions(api, alert(node_id="4")) == ["busy"]


def test_what_cannot_be_remembered_is_not_done(make: Make, tmp_path: Path) -> None:
    api = make(dry_run=False)
    (api.built.services.settings.state_dir / "alertmanager.json").write_text("{")
    assert api.post("/api/alertmanager", ANNA, json=notification(alert())).status_code == 503
    assert "begin" not in {line["event"] for line in api.audit()}


def test_a_notification_may_be_larger_than_other_bodies(make: Make) -> None:
    api = make()
    many = [alert("ClioOther", annotations_like="x" * 200) for _ in range(100)]
    assert set(decisions(api, *many)) == {"not_configured"}
    body = b'{"version": "4", "pad": "' + b"x" * (WEBHOOK_BODY + 1) + b'"}'
    answer = api.post("/api/alertmanager", ANNA, data=body, content_type="application/json")
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "past",
    [
        '{"at": "x", "run": null, "dry": false}',
        '{"at": 1, "run": 2, "dry": false}',
        '{"at": 1}',
        "1",
        "Infinity",
    ],
)
def test_a_history_of_another_form_is_not_gone_by(tmp_path: Path, past: str) -> None:
    path = tmp_path / "alertmanager.json"
    path.write_text(f'[["lab", 3, [{past}]]]')
    with pytest.raises(Unavailable, match="cannot be read"):
        History(path).of(("lab", 3))


@pytest.mark.parametrize("number", ["Infinity", "NaN", '"x"', "null", "[]"])
def test_a_node_of_the_history_has_a_number(tmp_path: Path, number: str) -> None:
    path = tmp_path / "alertmanager.json"
    path.write_text(f'[["lab", {number}, []]]')
    with pytest.raises(Unavailable, match="cannot be read"):
        History(path).of(("lab", 3))
