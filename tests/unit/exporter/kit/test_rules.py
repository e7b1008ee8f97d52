"""Rules are made from tables, for the names and limits of whoever asks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_exporter.kit.rules import THRESHOLDS, Options, alerts, render
from clio_exporter.kit.rules.render import expand
from clio_exporter.kit.rules.thresholds import promql, words
from tests.prometheus import promtool
from tests.system import needs_system


def made(options: Options | None = None) -> dict[str, dict[str, Any]]:
    """Every rule that is made, by the name of its alert or series."""
    return {
        rule.get("alert") or rule["record"]: rule
        for text in render(options).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    }


def test_every_threshold_is_in_an_expression_and_moves_it() -> None:
    before = made()
    for name in THRESHOLDS:
        after = made(Options(thresholds={name: 0.123456}))
        changed = [rule for rule, document in after.items() if document["expr"] != before[rule]["expr"]]
        assert changed, name
        assert all("0.123456" in after[rule]["expr"] for rule in changed)


def test_jobs_are_as_they_are_called() -> None:
    jobs = {"exporter_job": "a", "nodes_job": "b/c", "control_job": "d.e", "shards_job": "f"}
    before, after = made(), made(Options(**jobs))  # type: ignore[arg-type]
    for name, rule in before.items():
        for job in re.findall(r'job=~?"([^"]+)"', rule["expr"]):
            assert job not in after[name]["expr"]
    assert after["ClioExporterDown"]["expr"].count('job="a"') == 2
    assert 'job=~"a|b/c"' in after["ClioExporterScrapeSlow"]["expr"]
    assert after["ClioControlApiDown"]["expr"] == 'up{job="d.e"} == 0'


def test_links_begin_with_the_addresses_given() -> None:
    options = Options(grafana_url="https://g.example/x/", docs_url="https://d.example")
    alert = made(options)["ClioClusterNoLeader"]["annotations"]
    assert alert["runbook_url"] == "https://d.example/runbooks.md#clioclusternoleader"
    assert alert["dashboard_url"].startswith("https://g.example/x/d/clio-topology?var-cluster={{")
    assert "externalLabels" not in str(made(options))


def test_every_aggregation_keeps_all_labels_of_the_cluster() -> None:
    for name, rule in made(Options(cluster_labels=("site", "cluster"))).items():
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]):
            if "instance" not in labels:
                assert labels.startswith("site, cluster"), name


def test_waits_and_alerts_can_be_left_out() -> None:
    rules = made(Options(waits={"ClioNodeDown": "3m"}, without=frozenset({"ClioShardDown", "ClioNodeHung"})))
    assert rules["ClioNodeDown"]["for"] == "3m"
    assert not {"ClioShardDown", "ClioNodeHung"} & rules.keys()


def test_faster_shortens_waits_windows_and_intervals() -> None:
    before, after = render(), render(Options(faster=60))
    assert re.findall(r"for: (\S+)", before["alerts.yml"])[:2] == ["1m", "2m"]
    assert re.findall(r"for: (\S+)", after["alerts.yml"])[:2] == ["1000ms", "2000ms"]
    assert "interval: 4000ms" in after["recording.yml"]
    assert "rate(clio_worker_tasks_processed_total[5000ms])" in after["recording.yml"]
    assert "[1440000ms] offset 60000ms)" in after["recording.yml"]
    assert "[24000ms:1000ms]" in after["recording.yml"].replace("[1440000ms:60000ms]", "[24000ms:1000ms]")
    assert not re.search(r"\[\d+[smhd]\b", "".join(after.values()))


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ({"exporter_job": 'a"b'}, "exporter_job"),
        ({"grafana_url": "https://{{ x }}"}, "grafana_url"),
        ({"docs_url": "a b"}, "docs_url"),
        ({"cluster_labels": ("site",)}, "cluster"),
        ({"cluster_labels": ("cluster", "a-b")}, "a-b"),
        ({"thresholds": {"memory": 1.0}}, "there is no memory"),
        ({"thresholds": {"memory_pressure": float("nan")}}, "memory_pressure"),
        ({"waits": {"ClioNodeDown": "soon"}}, "ClioNodeDown"),
        ({"waits": {"ClioNode": "1m"}}, "there is no alert ClioNode"),
        ({"without": frozenset({"ClioNode"})}, "there is no alert ClioNode"),
        ({"faster": 0.0}, "faster"),
    ],
)
def test_a_mistake_is_named(mistake: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        render(Options(**mistake))


def test_numbers_are_written_for_prometheus_and_for_people() -> None:
    full, soon, floor = THRESHOLDS["device_full"], THRESHOLDS["forecast_soon"], THRESHOLDS["latency_floor"]
    assert [promql(full, 0.9), words(full, 0.9)] == ["0.9", "90 %"]
    assert [promql(soon, 4 * 3600), words(soon, 4 * 3600)] == ["4 * 3600", "4 hours"]
    assert [promql(soon, 86400), words(soon, 86400)] == ["1 * 86400", "1 day"]
    assert [promql(soon, 5000), words(soon, 600)] == ["5000", "10 minutes"]
    assert [promql(floor, 0.001), words(floor, 0.001)] == ["0.001", "1 ms"]


def test_texts_follow_the_thresholds() -> None:
    after = made(Options(thresholds={"forecast_soon": 7200}))["ClioBdevFillsWithin4Hours"]["annotations"]
    assert "within 2 hours" in after["summary"]


def test_a_misspelt_placeholder_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        expand("a [[nothing]]", Options())
    for alert in alerts():
        assert "[[" not in "".join(render().values()), alert.name


def test_the_tables_need_nothing_of_the_services(tmp_path: Path) -> None:
    """They travel in the package, and are made where no runtime and no Grafana SDK is."""
    code = (
        "import sys; from clio_exporter.kit.rules import render; render();"
        "print([m for m in sys.modules if m.split('.')[0] in ('zmq', 'grafana_foundation_sdk', 'flask')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


@needs_system("promtool")
def test_other_options_make_valid_rules(tmp_path: Path) -> None:
    options = Options(
        faster=30,
        cluster_labels=("site", "cluster"),
        without=frozenset({"ClioShardDown"}),
        exporter_job="a/b",
    )
    for name, text in render(options).items():
        path = tmp_path / name
        path.write_text(text)
        done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))
        assert done.returncode == 0, done.stdout + done.stderr
