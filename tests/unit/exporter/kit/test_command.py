"""`clio-exporter dashboards` and `clio-exporter rules`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from clio_exporter.cli import main
from clio_exporter.http.app import create_app
from clio_web.options import WebOptions
from tests.prometheus import promtool
from tests.system import needs_system
from tests.unit.grafana.boards import UIDS
from tests.unit.web.support import Service


def run(what: str, directory: Path, *arguments: str) -> dict[str, str]:
    """The files that the command writes, by their path."""
    assert main([what, f"--directory={directory}", *arguments]) == 0
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def variables(text: str) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(text)["templating"]["list"]}


# --- dashboards --------------------------------------------------------------------------------------


def test_dashboards_and_the_file_by_which_grafana_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "a b" / "kit"
    files = run("dashboards", directory)
    boards = [f"dashboards/{uid}.json" for uid in sorted(UIDS)]
    assert sorted(files) == [*boards, "provisioning/dashboards/clio.yaml"]
    (provider,) = yaml.safe_load(files["provisioning/dashboards/clio.yaml"])["providers"]
    assert provider["options"]["path"] == str(directory / "dashboards")
    assert f"provisioning = {directory}/provisioning" in capsys.readouterr().out


def test_dashboards_for_names_of_a_place(tmp_path: Path) -> None:
    files = run(
        "dashboards", tmp_path, "--control-api=https://control.example/clio/", "--datasource=Prom (main)",
        "--control-api-from-grafana=http://10.0.0.1:5000", "--path=/mnt/kit",
    )  # fmt: skip
    for uid in UIDS:
        found = variables(files[f"dashboards/{uid}.json"])
        assert found["datasource"]["regex"] == r"/^Prom\ \(main\)$/"
        assert found["datasource"]["current"]["text"] == "Prom (main)"
        if "control_api" in found:
            assert found["control_api"]["query"] == "https://control.example/clio"
            assert found["control_api"]["current"]["value"] == "https://control.example/clio"
    assert "/mnt/kit/dashboards" in files["provisioning/dashboards/clio.yaml"]
    (search,) = yaml.safe_load(files["provisioning/datasources/clio.yaml"])["datasources"]
    assert (search["uid"], search["url"]) == ("clio-node-search", "http://10.0.0.1:5000")


def test_a_prometheus_as_data_source_is_not_made_the_default(tmp_path: Path) -> None:
    files = run("dashboards", tmp_path, "--prometheus-url=http://p:9090", "--scrape-interval=5s")
    (source,) = yaml.safe_load(files["provisioning/datasources/clio.yaml"])["datasources"]
    assert (source["url"], source["isDefault"]) == ("http://p:9090", False)
    assert source["jsonData"]["timeInterval"] == "5s"


def test_a_config_map_a_dashboard(tmp_path: Path) -> None:
    files = run("dashboards", tmp_path, "--format=configmap", "--namespace=monitoring")
    assert sorted(files) == [f"{uid}.yaml" for uid in sorted(UIDS)]
    for name, text in files.items():
        assert len(text) < 1_000_000
        made = yaml.safe_load(text)
        assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
        assert made["metadata"]["namespace"] == "monitoring"
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        (board,) = made["data"].values()
        assert f"{json.loads(board)['uid']}.yaml" == name


# --- rules -------------------------------------------------------------------------------------------


@needs_system("promtool")
def test_rules_for_other_names_are_right_for_prometheus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = run(
        "rules", tmp_path, "--job=clio/prod", "--control-api-job=ctl", "--grafana-url=https://g.example/sub/",
        "--docs-url=https://d.example", "--cluster-label=site", "--exporter=e:1", "--control-api=c:2",
        "--alertmanager=a:3", "--prometheus=p:4", "--scrape-interval=30s",
    )  # fmt: skip
    checked = promtool("check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    text = "".join(files[name] for name in files if name.startswith("rules/"))
    assert "externalLabels" not in text
    assert 'job="clio/prod"' in text
    assert 'job="clio-exporter"' not in text
    assert "https://g.example/sub/d/clio-node?" in text
    assert "https://d.example/runbooks.md#clionodedown" in text
    assert "by (cluster, site, node_id, hostname" in text
    assert all("make rules" not in each for each in files.values())
    whole = yaml.safe_load(files["prometheus.yml"])
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in whole["scrape_configs"]}
    assert targets == {"clio/prod": ["e:1"], "ctl": ["c:2"], "prometheus": ["p:4"]}
    assert whole["global"]["scrape_interval"] == "30s"

    said = capsys.readouterr().out
    section = yaml.safe_load(said.partition("prometheus.yml:\n")[2])
    assert [job["job_name"] for job in section["scrape_configs"]] == ["clio/prod", "ctl"]
    assert section["rule_files"] == [f"{tmp_path}/rules/*.yml"]
    pasted = tmp_path / "own.yml"
    pasted.write_text("global: {external_labels: {dc: x}}\n" + yaml.safe_dump(section))
    checked = promtool("check", "config", str(pasted))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_link_of_every_alert_opens_the_right_page(tmp_path: Path) -> None:
    """As the files are written: to runbooks as the exporter serves them, and dashboards of the kit."""
    names = ["--grafana-url=https://g.example/sub", "--docs-url=http://localhost:9777/docs"]
    files = run("rules", tmp_path / "rules", *names)
    boards = {
        board["uid"]: {each["name"] for each in board["templating"]["list"]}
        for name, text in run("dashboards", tmp_path / "boards").items()
        if name.endswith(".json")
        for board in [json.loads(text)]
    }
    page = create_app(Service(), WebOptions()).test_client()
    alerts = [
        rule
        for name, text in files.items()
        if name.startswith("rules/")
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(alerts) > 20
    for alert in alerts:
        urls = {key: value for key, value in alert["annotations"].items() if "://" in value}
        assert urls.keys() == {"runbook_url", "dashboard_url"}, alert["alert"]
        runbook, dashboard = urlsplit(urls["runbook_url"]), urls["dashboard_url"]
        answer = page.get(runbook.path)
        assert answer.status_code == 200
        heading = re.search(rf'<h\d id="{re.escape(runbook.fragment)}">(.*?)</h', answer.text)
        assert heading is not None, runbook.fragment
        assert heading[1] == alert["alert"]
        # As Prometheus fills it in; what a label holds is written so that an address can carry it.
        filled = urlsplit(re.sub(r"\{\{ \$labels\.\w+ \| urlquery \}\}", "x", dashboard))
        assert "{" not in filled.geturl()
        assert (filled.netloc, filled.path.rpartition("/")[0]) == ("g.example", "/sub/d")
        uid = filled.path.rpartition("/")[2]
        assert {name.removeprefix("var-") for name in parse_qs(filled.query)} <= boards[uid]


def test_what_there_is_not_is_left_out(tmp_path: Path) -> None:
    files = run("rules", tmp_path, "--control-api=", "--alertmanager=", "--prometheus=")
    whole = yaml.safe_load(files["prometheus.yml"])
    assert [job["job_name"] for job in whole["scrape_configs"]] == ["clio-exporter"]
    assert "alerting" not in whole


@pytest.mark.parametrize(
    ("interval", "timeout"), [("15s", "10s"), ("5s", "5s"), ("1m", "10s"), ("900ms", "900ms")]
)
def test_the_timeout_is_within_the_interval(tmp_path: Path, interval: str, timeout: str) -> None:
    files = run("rules", tmp_path, f"--scrape-interval={interval}")
    assert yaml.safe_load(files["prometheus.yml"])["scrape_configs"][0]["scrape_timeout"] == timeout


def test_prometheus_rules_for_the_operator(tmp_path: Path) -> None:
    files = run("rules", tmp_path / "k", "--format=prometheusrule", "--namespace=clio", "--job=mine")
    plain = run("rules", tmp_path / "p", "--job=mine")
    assert len(files) == 4
    for name, text in files.items():
        made = yaml.safe_load(text)
        assert (made["apiVersion"], made["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert made["metadata"]["namespace"] == "clio"
        assert made["spec"] == yaml.safe_load(plain[f"rules/{name.replace('.yaml', '.yml')}"])


# --- what cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rules", "--job=a b"], "exporter_job: 'a b' is no job name"),
        (["rules", "--cluster-label=a-b"], "cluster_labels: 'a-b' is no label name"),
    ],
)
def test_names_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, f"--directory={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith(f"clio-exporter rules: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["rules", "--grafana-url=grafana:3000"],
        ["rules", "--docs-url=http://x/{{ .Value }}"],
        ["rules", "--scrape-interval=15"],
        ["dashboards", "--control-api=javascript:alert(1)"],
        ["dashboards", "--prometheus-url=http://${SECRET}/"],
        ["dashboards", "--format=prometheusrule"],
    ],
)
def test_arguments_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, f"--directory={tmp_path}"])
    assert ended.value.code == 2
    assert arguments[1].partition("=")[0] in capsys.readouterr().err


def test_a_directory_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["rules", f"--directory={tmp_path / 'file'}"]) == 1
    assert capsys.readouterr().err.startswith("clio-exporter rules: cannot write ")
