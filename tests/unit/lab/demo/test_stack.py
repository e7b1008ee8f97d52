from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from clio_client.config.settings import parse_settings
from clio_lab.demo.cluster import LocalCluster, Progress
from clio_lab.demo.errors import DemoError
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.node import greets, timer_slack
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.stack import Stack, clean_environment, exporter_settings


class Recorder:
    """A component that writes down what happens to it."""

    def __init__(self, name: str, log: list[str], *, fails: str | None = None) -> None:
        self.name = name
        self.where: str | None = f"{name} http://{name}"
        self.command: str | None = f"ask {name}"
        self._log = log
        self._fails = fails

    def start(self, progress: Progress) -> None:
        self._log.append(f"start {self.name}")
        if self._fails == "start":
            raise DemoError(f"{self.name} cannot start")

    def stop(self) -> None:
        self._log.append(f"stop {self.name}")
        if self._fails == "stop":
            raise OSError(f"{self.name} does not stop")

    def health(self) -> str | None:
        return "ill" if self._fails == "health" else None


def silent(_line: str) -> None:
    return


def test_stops_in_reverse_order_and_only_once() -> None:
    log: list[str] = []
    stack = Stack([Recorder("a", log), Recorder("b", log)])
    stack.start(silent)
    assert stack.commands() == ["ask a", "ask b"]
    stack.stop(silent)
    stack.stop(silent)
    assert log == ["start a", "start b", "stop b", "stop a"]


def test_a_start_that_fails_stops_what_had_begun_itself_included() -> None:
    log: list[str] = []
    stack = Stack([Recorder("a", log), Recorder("b", log, fails="start"), Recorder("c", log)])
    with pytest.raises(DemoError, match="b cannot start"):
        stack.start(silent)
    assert log == ["start a", "start b", "stop b", "stop a"]


def test_one_that_does_not_stop_keeps_none_of_the_others() -> None:
    log: list[str] = []
    lines: list[str] = []
    stack = Stack([Recorder("a", log), Recorder("b", log, fails="stop")])
    stack.start(silent)
    with pytest.raises(DemoError, match="b does not stop"):
        stack.stop(lines.append)
    assert log[-2:] == ["stop b", "stop a"]
    assert "stopping b failed: b does not stop" in lines


def test_health_names_the_component() -> None:
    stack = Stack([Recorder("a", []), Recorder("b", [], fails="health")])
    stack.start(silent)
    assert stack.health() == ["b: ill"]


def test_the_exporter_does_not_inherit_another_clusters_variables() -> None:
    kept = clean_environment(
        {"PATH": "/bin", "CLIO_SERVER_CONF": "x", "WRP_RUNTIME_CONF": "y", "CONTAINER_HOSTFILE": "z"}
    )
    assert kept == {"PATH": "/bin"}


def test_exporter_settings_are_what_the_exporter_reads(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, 2, install=RuntimeInstall("2.3.2", tmp_path))
    text = exporter_settings(cluster)
    assert yaml.safe_load(text)["clusters"][0]["name"] == "demo"
    (settings,) = parse_settings(text, tmp_path / "exporter.yaml").clusters
    assert settings.hostfile == tmp_path / "hostfile"
    assert settings.runtime_config_for(1, "host") == tmp_path / "n1" / "clio.yaml"


def test_old_versions_run_alone(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"2\.1\.0 cannot run 2 nodes on one host"):
        LocalCluster(tmp_path, 2, install=RuntimeInstall("2.1.0", tmp_path))


def test_overlapping_ports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="port_step 3"):
        LocalCluster(tmp_path, 2, install=RuntimeInstall("2.3.2", tmp_path), port_step=3)


def slack_of_a_child() -> int:
    result = subprocess.run(["cat", "/proc/self/timerslack_ns"], capture_output=True, timeout=10, check=True)
    return int(result.stdout)


def test_timer_slack_is_inherited_and_put_back() -> None:
    before = slack_of_a_child()
    with timer_slack(700):
        assert slack_of_a_child() == 700_000
    assert slack_of_a_child() == before
    with timer_slack(None):
        assert slack_of_a_child() == before


def test_no_greeting_from_a_closed_port() -> None:
    assert not greets("127.0.0.1", find_base_port(1))
