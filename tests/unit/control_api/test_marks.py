"""Marks on the dashboards: who asked for which action, why and from where, as Prometheus has it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from clio_control_api.metrics import Metrics
from clio_lab.simulator.process import SimulatorProcess
from tests.prometheus import Prometheus
from tests.system import needs_system
from tests.unit.control_api.support import control_api
from tests.unit.grafana.boards import UIDS, load

MARKS = {
    uid: mark
    for uid in UIDS
    for mark in load(uid)["annotations"]["list"]
    if mark["name"] == "Action asked for"
}


def filled(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels[name[1]], text)


@needs_system("prometheus")
def test_dashboards_mark_who_did_what_and_why(
    tmp_path: Path, simulator: SimulatorProcess, hosts: str
) -> None:
    with control_api(tmp_path, hosts, auth="none", ssh={"port": 1}) as api:
        api.built.server.start()
        try:
            host, port = api.built.server.addresses[0]
            before = time.time()
            assert api.post("/api/topology/node/3/shutdown?reason=new+kernel").status_code == 502
            job = {"job_name": "clio-control-api", "static_configs": [{"targets": [f"{host}:{port}"]}]}
            with Prometheus(tmp_path, {"scrape_configs": [job]}) as prometheus:
                assert {"clio-node", "clio-health"} <= set(MARKS)
                for mark in MARKS.values():
                    expression = re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", mark["expr"])
                    prometheus.wait_for(expression, lambda found: len(found) == 1)
                    (found,) = prometheus.query(expression)
                    assert mark["useValueForTime"]
                    assert before - 1 <= found.value / 1000 <= time.time() + 1
                    assert filled(mark["titleFormat"], found.labels) == "shutdown by local from 127.0.0.1"
                    text = filled(mark["textFormat"], found.labels)
                    assert re.fullmatch(r"node 3 \(.+\) new kernel", text)
        finally:
            api.built.server.stop()


def test_a_mark_is_told_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Metrics()
    labels = ("restart", "lab", "3", "n3", "anna", "why", "10.0.0.7")
    found.recent_actions.add(labels)
    named = dict(zip(found.recent_actions.LABELS, labels, strict=True))
    name = "clio_control_action_begin_timestamp_seconds"
    assert found.registry.get_sample_value(name, named) == pytest.approx(time.time(), abs=60)
    later = time.time() + 16 * 60
    monkeypatch.setattr("clio_control_api.metrics.time.time", lambda: later)
    assert found.registry.get_sample_value(name, named) is None
