"""The search box without a control API, by Prometheus's own evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_exporter.kit import search
from clio_exporter.kit.grafana import GrafanaOptions, adapted
from tests.prometheus import promtool
from tests.system import needs_system
from tests.unit.grafana import boards

HOSTS = {
    "0": "cn01.example",
    "1": "cn02.example",
    "2": "gpu-1.example",
    "12": "cn13.example",
    "31": "10.7.0.9",
}


def expanded(text: str) -> str:
    """The query as Grafana sends it, with `text` in the box."""
    query = search.query('cluster=~".*"')
    return query.replace("${search:raw}", text).replace("${search:regex}", re.escape(text))


@needs_system("promtool")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", "0 1 2 12 31"),
        ("1", "1"),
        ("1,2,31", "1 2 31"),
        (" 1 , 12 ", "1 12"),
        (",".join(map(str, range(20, 20 + search.PLACES - 1))) + ",2", "2"),
        ("99", ""),
        ("CN", "0 1 12"),
        ("cn0", "0 1"),
        ("10.7.", "31"),
        ("10x7", ""),
        ("nowhere", ""),
        ("(", ""),
    ],
)
def test_what_it_finds(tmp_path: Path, text: str, ids: str) -> None:
    series = [
        {"series": f'clio_node_up{{cluster="a", node_id="{node}", hostname="{host}"}}', "values": "1"}
        for node, host in HOSTS.items()
    ]
    by_node = f"count by (node_id) ({expanded(text)})"
    wanted = [{"labels": f'{{node_id="{node}"}}', "value": 1} for node in ids.split()]
    case = {"eval_time": "0s", "expr": by_node, "exp_samples": wanted}
    path = tmp_path / "test.yml"
    path.write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [case]}]})
    )
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def variables(control_api: str | None) -> dict[str, Any]:
    board = adapted(boards.load("clio-topology"), GrafanaOptions("/kit", control_api=control_api))
    return {each["name"]: each for each in board["templating"]["list"]}


def test_without_a_control_api_prometheus_is_asked_and_its_address_can_be_typed() -> None:
    found = variables(None)
    assert "search_source" not in found
    assert found["match"]["datasource"]["uid"] == "${datasource}"
    assert found["match"]["includeAll"]
    assert found["control_api"]["type"] == "textbox"
    assert found["control_api"]["hide"] == 0
    assert "need the control API" in found["search"]["description"]


def test_with_one_no_link_can_change_its_address() -> None:
    found = variables("http://c:5000")
    assert found["control_api"]["type"] == "constant"
    assert found["match"]["datasource"]["uid"] == "${search_source}"
    assert [name for name in found if name in ("search_source", "match")] == ["search_source", "match"]
