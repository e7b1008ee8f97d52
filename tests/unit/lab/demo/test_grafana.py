from __future__ import annotations

import configparser
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from clio_lab.demo import control_api, grafana, monitoring
from clio_lab.demo.command import _SERVERS
from clio_lab.demo.errors import DemoError, InterruptedStartError
from clio_lab.demo.kit import Kit
from clio_lab.demo.state import State
from clio_web import grafana_server
from clio_web.grafana_server import Program, find_program
from tests.paths import ROOT


def executable(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_image_is_that_of_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert services["grafana"]["image"] == "${GRAFANA_IMAGE:-" + grafana.IMAGE + "}"


def test_the_ports_in_the_help() -> None:
    assert _SERVERS == {
        "control-api": control_api.PORT,
        "prometheus": monitoring.PROMETHEUS_PORT,
        "alertmanager": monitoring.ALERTMANAGER_PORT,
        "grafana": grafana.PORT,
    }


# --- which program ------------------------------------------------------------------------------


def test_an_unpacked_archive_on_the_path(tmp_path: Path) -> None:
    program = executable(tmp_path / "grafana-12" / "bin" / "grafana")
    (tmp_path / "grafana-12" / "conf").mkdir()
    (tmp_path / "grafana-12" / "conf" / "defaults.ini").touch()
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "grafana").symlink_to(program)
    found = find_program(str(tmp_path / "path"), tmp_path / "share")
    assert found == Program((str(tmp_path / "path" / "grafana"), "server"), program.parent.parent)


def test_an_older_server_program(tmp_path: Path) -> None:
    program = executable(tmp_path / "grafana-server")
    assert find_program(str(tmp_path), tmp_path / "share") == Program((str(program),), None)


def test_the_package_that_is_not_on_the_path(tmp_path: Path) -> None:
    share = tmp_path / "share"
    program = executable(share / "bin" / "grafana")
    (share / "conf").mkdir()
    (share / "conf" / "defaults.ini").touch()
    assert find_program(str(tmp_path), share) == Program((str(program), "server"), share)


def test_none(tmp_path: Path) -> None:
    assert find_program(str(tmp_path), tmp_path / "share") is None


# --- its configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, "/data"])
def test_who_comes_sees_everything_and_changes_nothing(data: str | None) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(grafana_server.configuration("Made.", "/kit", data, 3456))
    assert ini["server"]["http_addr"] == "127.0.0.1"
    assert ini["server"]["http_port"] == "3456"
    assert ini["auth.anonymous"]["org_role"] == "Viewer"
    assert ini["auth.basic"]["enabled"] == "false"
    assert ini["paths"].get("data") == data
    assert ini["dashboards"]["default_home_dashboard_path"] == "/kit/dashboards/clio-topology.json"


def test_other_settings_in_the_environment_do_not_count() -> None:
    kept = grafana.grafana_environment({"PATH": "/bin", "GF_SERVER_HTTP_ADDR": "0.0.0.0", "CLIO_X": "1"})
    assert kept == {"PATH": "/bin"}


# --- the image -----------------------------------------------------------------------------------

PULL = """\
12.1.1: Pulling from grafana/grafana
0123456789ab: Pulling fs layer
abcdef012345: Already exists
0123456789ab: Download complete
"""


def test_how_far_a_pull_is() -> None:
    assert grafana.pulled("") == ""
    assert grafana.pulled(PULL) == "1 of 2 layers"
    assert grafana.pulled(PULL + "0123456789ab: Pull complete\n") == "2 of 2 layers"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that writes down what it is called with; the file `docker.sh` says what it does."""
    calls = tmp_path / "calls"
    executable(tmp_path / "bin" / "docker", f'echo "$*" >>{calls}\n. {tmp_path}/docker.sh')
    (tmp_path / "docker.sh").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return tmp_path


def start(directory: Path, lines: list[str], interrupt: threading.Event | None = None) -> None:
    kit = Kit("dashboards", directory / "grafana", [f"--path={grafana.IN_CONTAINER}"])
    state = State(directory / "state.json")
    server = grafana.Grafana(kit, None, 1, state, interrupt or threading.Event())
    try:
        server.start(lines.append)
    finally:
        server.stop()
        assert state.containers == []


def calls(directory: Path) -> Sequence[str]:
    return (directory / "calls").read_text().splitlines()


def test_the_container_sees_the_kit_and_loopback_only_and_is_removed(docker: Path) -> None:
    (docker / "docker.sh").write_text('case $1 in run) exit 9 ;; rm) echo "$4" ;; esac\n')
    with pytest.raises(DemoError, match="Grafana ended with exit code 9"):
        start(docker, [])
    run = next(line for line in calls(docker) if line.startswith("run "))
    assert run.endswith(f" {grafana.IMAGE}")
    assert f"--volume={docker}/grafana:{grafana.IN_CONTAINER}:ro" in run
    for option in ("--rm", "--network=host", "--cap-drop=ALL", "--pull=never"):
        assert option in run.split()
    name = next(each.removeprefix("--name=") for each in run.split() if each.startswith("--name="))
    assert f"rm --force --volumes {name}" in calls(docker)
    provider = (docker / "grafana" / "provisioning" / "dashboards" / "clio.yaml").read_text()
    assert f"{grafana.IN_CONTAINER}/dashboards" in provider
    assert json.loads((docker / "grafana" / "dashboards" / "clio-topology.json").read_text())


def test_a_pull_shows_how_far_it_is_and_its_failure_names_the_remedy(docker: Path) -> None:
    (docker / "pull").write_text(PULL)
    (docker / "docker.sh").write_text(
        f"case $1 in image) exit 1 ;; pull) cat {docker}/pull; sleep 1; echo no route >&2; exit 1 ;; esac\n"
    )
    lines: list[str] = []
    with pytest.raises(DemoError, match=r"cannot be pulled: no route: run `docker pull .*--no-grafana"):
        start(docker, lines)
    assert lines[0].startswith(f"pulling {grafana.IMAGE}")
    assert f"pulling {grafana.IMAGE}: 1 of 2 layers" in lines
    assert not any(line.startswith("run ") for line in calls(docker))


def test_a_pull_is_given_up_when_the_demo_stops(docker: Path) -> None:
    (docker / "docker.sh").write_text("case $1 in image) exit 1 ;; pull) exec sleep 60 ;; esac\n")
    interrupt = threading.Event()
    lines: list[str] = []

    def stop_when_it_pulls(line: str) -> None:
        lines.append(line)
        interrupt.set()

    kit = Kit("dashboards", docker / "grafana", [])
    server = grafana.Grafana(kit, None, 1, State(docker / "state.json"), interrupt)
    with pytest.raises(InterruptedStartError):
        server.start(stop_when_it_pulls)
    server.stop()


@pytest.mark.parametrize("host", ["tcp://elsewhere:2375", "ssh://elsewhere"])
def test_an_engine_elsewhere_is_of_no_use(docker: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(DemoError, match="no Docker engine answers here"):
        start(docker, [])
