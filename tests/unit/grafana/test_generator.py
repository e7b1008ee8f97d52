"""The generator: what it makes is what is committed, and its thresholds are those of the alerts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from clio_client import errors
from clio_client.errors import RuntimeClientError
from tests.prometheus import promtool
from tests.system import needs_system
from tests.unit.grafana import boards
from tests.unit.grafana.boards import UIDS, load, panels

if sys.version_info < (3, 11):
    pytest.skip("grafana-foundation-sdk needs Python 3.11", allow_module_level=True)

from grafana.generator import board as generator
from grafana.generator import links, thresholds, variables
from grafana.generator.__main__ import main, render, write
from grafana.generator.boards import all_boards
from grafana.generator.queries import actionable


def test_the_committed_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    write(tmp_path, variables.CONTROL_API_URL)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in boards.DIRECTORY.iterdir()}
    assert made == committed, "run: make dashboards"


def test_the_dashboards_are_those_that_link_to_each_other() -> None:
    assert tuple(sorted(links.TITLES)) == UIDS
    assert [board.uid for board in all_boards(variables.CONTROL_API_URL)] == list(links.TITLES)


def test_the_address_of_the_control_api_can_be_given(tmp_path: Path) -> None:
    assert main(["--directory", str(tmp_path), "--control-api", "https://desk.example:5000/"]) == 0
    made = json.loads((tmp_path / "clio-node.json").read_text(encoding="utf-8"))
    (constant,) = [v for v in made["templating"]["list"] if v["name"] == "control_api"]
    assert constant["query"] == "https://desk.example:5000"


def test_generation_is_deterministic() -> None:
    first, second = ([render(b) for b in all_boards(variables.CONTROL_API_URL)] for _ in range(2))
    assert first == second


def test_panels_that_may_be_empty_say_so() -> None:
    for board in all_boards(variables.CONTROL_API_URL):
        expected = generator.expected_empty(board)
        by_id = {panel["id"]: panel for panel in panels(board.uid, rows=True)}
        for number, reason in expected.items():
            assert by_id[number]["fieldConfig"]["defaults"]["noValue"] == reason


def test_colours_mean_the_same_everywhere() -> None:
    """Judging colours only come from the shared module: fixed colours of panels are of its names."""
    allowed = {value for name, value in vars(thresholds).items() if name.isupper() and isinstance(value, str)}
    for uid in UIDS:
        text = json.dumps(load(uid))
        fixed = set(re.findall(r'"fixedColor": "([^"]+)"', text))
        steps = set(re.findall(r'"color": "([^"]+)"', text))
        assert fixed | steps <= allowed | {"orange"}, uid


def test_every_reason_of_a_node_that_is_down_has_words() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, RuntimeClientError)]
    # These two end no scrape: the base class, and an exporter that is closing.
    assert set(thresholds.DOWN_REASON) == {kind.reason for kind in kinds} - {"error", "client_closed"}


@needs_system("promtool")
def test_links_to_the_control_api_name_host_and_cluster(tmp_path: Path) -> None:
    """As Prometheus makes them: promtool compares the labels of the links' query."""
    nodes = {'{hostname="n1", node_id="1"}': "?hostname=n1"}
    nodes['{cluster="lab", hostname="n2.a-b", node_id="2"}'] = "?hostname=n2.a-b&cluster=lab"
    expected = [
        {"labels": f'{labels[:-1]}, which="{link}", restart="Restart", shutdown="Shut down"}}', "value": 1}
        for labels, link in nodes.items()
    ]
    series = [{"series": f"clio_node_info{labels}", "values": "1"} for labels in nodes]
    tests = [{"expr": actionable("max by (cluster, hostname, node_id) (clio_node_info)"), "eval_time": "0m",
              "exp_samples": expected}]  # fmt: skip
    path = tmp_path / "links.yml"
    path.write_text(yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": tests}]}))
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
