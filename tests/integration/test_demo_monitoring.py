"""What the demo starts around its cluster: Prometheus, Alertmanager, and Grafana's stand-in."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_lab.demo.ports import is_free
from clio_lab.demo.state import MARK
from clio_web.processes import with_environment
from tests import grafana_stand_in
from tests.exporter_process import eventually
from tests.integration.test_demo import READY, Demo, ensure_ended
from tests.system import needs_system
from tests.unit.grafana.boards import UIDS

pytestmark = [pytest.mark.integration, needs_system("prometheus", "prometheus-alertmanager")]


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """A directory that comes first on the demo's PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    return path


@pytest.fixture
def demo(tmp_path: Path, bin_directory: Path) -> Iterator[Callable[..., Demo]]:
    started = []

    def begin(*arguments: str, path: str | None = None, **environment: str) -> Demo:
        search = f"{bin_directory}:{os.environ['PATH']}" if path is None else path
        started.append(
            Demo(
                tmp_path / "demo", "--no-traffic", *arguments, nodes=1, grafana=True,
                environment={**os.environ, **environment, "PATH": search},
            )
        )  # fmt: skip
        return started[-1]

    yield begin
    for each in started:
        ensure_ended(each)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def place(running: Demo, name: str) -> str:
    """The address that the demo gives for `name`."""
    return running.wait_line(rf"^    {name} +(http://127\.0\.0\.1:\d+)( |$)")[1]


def marked(directory: Path) -> list[int]:
    """Processes that belong to the demo in `directory`."""
    return [process.pid for process in with_environment(MARK, str(directory / "state.json"))]


def test_prometheus_has_data_and_rules_and_grafana_its_pages(
    demo: Callable[..., Demo], bin_directory: Path, tmp_path: Path
) -> None:
    grafana_stand_in.write(bin_directory)
    opened = tmp_path / "opened"
    browser = bin_directory / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >>{opened}\n')
    browser.chmod(0o755)
    running = demo("--open", BROWSER=str(browser), GF_SERVER_HTTP_PORT="1")
    metrics = running.wait_line(READY)[1]
    prometheus, alertmanager = place(running, "Prometheus"), place(running, "Alertmanager")
    grafana, control_api = place(running, "Grafana"), running.wait_line(r"control API +(http://[\d.:]+)")[1]

    def scraped() -> bool:
        found = get(f"{prometheus}/api/v1/query?query=node:clio_health:score")["data"]["result"]
        return len(found) == 1

    eventually("Prometheus is ready", lambda: get(f"{prometheus}/api/v1/status/buildinfo"), 60)
    eventually("a health score from the rules", scraped, 60)
    targets = get(f"{prometheus}/api/v1/targets?state=active")["data"]["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == {
        "clio-exporter",
        "clio-control-api",
        "prometheus",
    }
    assert {target["scrapeInterval"] for target in targets} == {"5s"}
    assert metrics in {target["scrapeUrl"] for target in targets}
    eventually(
        "all targets are up",
        lambda: (
            {
                target["health"]
                for target in get(f"{prometheus}/api/v1/targets?state=active")["data"]["activeTargets"]
            }
            == {"up"}
        ),
    )
    rules = [rule for group in get(f"{prometheus}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    assert len(rules) > 60
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    for alert in (rule for rule in rules if rule["type"] == "alerting"):
        assert alert["annotations"]["dashboard_url"].startswith(f"{grafana}/d/clio-")
    senders = get(f"{prometheus}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [sender["url"] for sender in senders] == [f"{alertmanager}/api/v2/alerts"]

    eventually("Grafana is ready", lambda: get(f"{grafana}/api/health"), 60)
    assert {board["uid"] for board in get(f"{grafana}/api/search")} == set(UIDS)
    home = get(f"{grafana}/api/dashboards/home")["dashboard"]
    assert home["uid"] == "clio-topology"
    urls = {variable["name"]: variable["query"] for variable in home["templating"]["list"]}
    assert urls["control_api"] == control_api
    sources = {source["uid"]: source["url"] for source in get(f"{grafana}/api/datasources")}
    assert sources == {"clio-prometheus": prometheus, "clio-node-search": control_api}
    eventually("the browser was opened", opened.exists)
    assert opened.read_text().split() == [grafana]

    assert running.end(signal.SIGINT) == 0
    assert running.lines[-1] == "stopped"
    assert running.left() == []
    assert marked(tmp_path / "demo") == []
    for url in (prometheus, alertmanager, grafana, control_api):
        assert is_free(int(url.rpartition(":")[2]), "127.0.0.1"), url
    assert not list((tmp_path / "demo").glob("*/data"))


def test_what_a_killed_demo_left_is_removed_by_the_next(
    demo: Callable[..., Demo], bin_directory: Path, tmp_path: Path
) -> None:
    grafana_stand_in.write(bin_directory)
    first = demo()
    grafana = place(first, "Grafana")
    eventually("Grafana is ready", lambda: get(f"{grafana}/api/health"), 60)
    first.process.kill()
    first.process.wait(10)
    first.close()
    data = sorted(path.parent.name for path in (tmp_path / "demo").glob("*/data"))
    assert data == ["alertmanager", "grafana", "prometheus"]
    before = marked(tmp_path / "demo")
    second = demo("--no-grafana")
    for part in ("Prometheus", "Alertmanager", "Grafana"):
        second.wait_line(rf"ended {part} \(pid \d+\) of an earlier run")
    second.wait_line(READY)
    assert not set(before) & set(marked(tmp_path / "demo"))
    assert second.end() == 0
    assert marked(tmp_path / "demo") == []


def test_what_cannot_be_had_costs_a_line_each(
    demo: Callable[..., Demo], bin_directory: Path, tmp_path: Path
) -> None:
    running = demo(path=str(bin_directory))
    running.wait_line(READY)
    for name in ("Prometheus", "Alertmanager"):
        line = running.wait_line(rf"^missing: {name}: not installed: run `(.*)`").string
        assert "bootstrap.sh packages demo" in line
    running.wait_line(r"^missing: Grafana: none is installed, and no Docker engine answers here: ")
    assert not any(line.startswith("    Prometheus") for line in running.lines)
    assert running.end() == 0


def test_a_server_that_does_not_start_costs_a_line_too(
    demo: Callable[..., Demo], bin_directory: Path, tmp_path: Path
) -> None:
    for name, message in (("grafana", "no such library"), ("prometheus", "cannot"), ("alertmanager", "x")):
        program = bin_directory / name
        program.write_text(f"#!/bin/sh\necho {message}\nexit 3\n")
        program.chmod(0o755)
    running = demo()
    running.wait_line(READY)
    running.wait_line(r"^missing: Grafana: Grafana ended with exit code 3, see .*grafana\.log")
    running.wait_line(r"^missing: Prometheus: Prometheus ended with exit code 3")
    assert running.end() == 0
    assert marked(tmp_path / "demo") == []


def test_a_port_that_is_taken_is_named_before_anything_starts(demo: Callable[..., Demo]) -> None:
    running = demo("--grafana-port=70000")
    assert running.process.wait(60) == 1
    running.wait_line(r"--grafana-port 70000 is no port: choose 1 to 65535")
    assert not any(line.startswith("starting") for line in running.lines)
