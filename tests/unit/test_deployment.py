"""Containers and units as files: that they agree with each other and with the programs they start."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
import zmq
from spython.main.parse.parsers.singularity import SingularityParser

import clio_client
from clio_client.config.settings import load_settings
from clio_control_api.exposure import Auth, auth_of
from clio_control_api.settings import load
from tests.paths import ROOT
from tests.ports import closed_port

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEPLOY = ROOT / "deploy"
UNITS = sorted((ROOT / "contrib" / "systemd").glob("*.service"))
USER_UNITS = sorted((ROOT / "contrib" / "systemd" / "user").glob("*.service"))
SCRIPTS = ("cluster", "deploy/node/entrypoint.sh", "deploy/node/keys.sh")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def document(name: str) -> Any:
    return yaml.safe_load(text(name))


# --- Files that say the same thing twice -----------------------------------------------------------


def test_prometheus_in_containers_differs_in_names_and_the_token_only() -> None:
    ours, theirs = document("deploy/prometheus.yml"), document("prometheus/prometheus.yml")
    names = {
        "127.0.0.1:9777": "exporter:9777",
        "127.0.0.1:5000": "control-api:5000",
        "127.0.0.1:9093": "alertmanager:9093",
    }

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: renamed(value) for key, value in node.items()}
        if isinstance(node, list):
            return [renamed(value) for value in node]
        return names.get(node, node) if isinstance(node, str) else node

    expected = renamed(theirs)
    for job in expected["scrape_configs"]:
        if job["job_name"] == "clio-control-api":
            job["authorization"] = {"credentials_file": "/run/secrets/viewer_token"}
    assert ours == expected


def compose_defaults() -> dict[str, str | None]:
    """Variables of docker-compose.yml with their defaults; None where there has to be a value."""
    found: dict[str, str | None] = {}
    for name, kind, value in re.findall(r"\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}", text("docker-compose.yml")):
        default = value if kind == ":-" else None
        assert found.setdefault(name, default) == default, f"{name} has two defaults"
    return found


def test_the_example_environment_has_every_variable_with_its_default() -> None:
    lines = [line for line in text(".env.example").splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    expected = {name: value or "" for name, value in compose_defaults().items()}
    assert example == {**expected, "COMPOSE_PROFILES": "cluster"}


def test_base_image_and_version_are_said_alike() -> None:
    dockerfile = text("Dockerfile")
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert base
    assert compose_defaults()["BASE_IMAGE"] == base[1]
    versions = re.findall(r'image\.version="([^"]+)"', dockerfile)
    assert versions == [clio_client.__version__] * 2


def test_the_cluster_is_the_one_of_the_hostfile() -> None:
    services = document("docker-compose.yml")["services"]
    network = compose_defaults()["CLIO_NODE_NETWORK"]
    addresses = [
        service["networks"]["nodes"]["ipv4_address"].replace("${CLIO_NODE_NETWORK:-172.28.0}", str(network))
        for name, service in services.items()
        if name.startswith("node")
    ]
    made_for = services["keys"]["command"][1:]
    assert [word.replace("${CLIO_NODE_NETWORK:-172.28.0}", str(network)) for word in made_for] == addresses
    assert text("deploy/cluster/hostfile").split() == addresses
    assert document("deploy/cluster/clio.yaml")["networking"]["hostfile"] == "/etc/clio/hostfile"


def test_what_compose_mounts_is_here() -> None:
    mounted = {
        volume.split(":")[0]
        for service in document("docker-compose.yml")["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    }
    assert {"./grafana/provisioning", "./grafana/dashboards", "./prometheus/rules"} <= mounted
    assert [path for path in sorted(mounted) if not (ROOT / path).exists()] == []


def test_grafana_gets_what_its_provisioning_needs() -> None:
    service = document("docker-compose.yml")["services"]["grafana"]
    given = set(service["environment"]) | set(re.findall(r"export ([A-Z_]+)=", service["entrypoint"][2]))
    files = sorted((ROOT / "grafana" / "provisioning").rglob("*.yaml"))
    needed = {name for file in files for name in re.findall(r"\$\{([A-Z_]+)\}", file.read_text())}
    assert needed
    assert needed - given == set()
    dashboards = document("grafana/provisioning/dashboards/clio.yaml")["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{dashboards}:ro" in service["volumes"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "grafana" / "dashboards" / home.removeprefix(f"{dashboards}/")).exists()


# --- Programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_are_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(ROOT / name)], timeout=30, check=True)


def test_the_cluster_script_explains_itself(tmp_path: Path) -> None:
    """With a `docker` that only says its version: nothing else may be called for this."""
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\n[ "$*" = "compose version" ]\n', encoding="utf-8")
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for arguments, code in (([], 0), (["help"], 0), (["dance"], 2)):
        done = subprocess.run(
            [str(ROOT / "cluster"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr
        for word in ("start", "status", "logs", "stop"):
            assert f"./cluster {word}" in done.stdout


@pytest.fixture
def http_server() -> Iterator[tuple[str, dict[str, int]]]:
    """A server that answers with the status that the test sets."""
    answer = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/-/healthy", answer
        finally:
            server.shutdown()
            thread.join(10)


def check(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(DEPLOY / script)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (401, True), (500, False), (503, False)])
def test_health_check_of_the_exporter(
    http_server: tuple[str, dict[str, int]], status: int, healthy: bool
) -> None:
    url, answer = http_server
    answer["status"] = status
    done = check("healthcheck.py", CLIO_HEALTH_URL=url)
    assert (done.returncode == 0) is healthy
    assert (done.stderr == "") is healthy


def test_health_check_of_the_exporter_when_nothing_listens() -> None:
    with closed_port() as port:
        done = check("healthcheck.py", CLIO_HEALTH_URL=f"http://127.0.0.1:{port}/")
    assert done.returncode == 1
    assert "refused" in done.stderr


def test_health_check_of_a_node_sees_a_zeromq_peer() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        assert check("node/healthcheck.py", CLIO_PORT=str(port - 3)).returncode == 0
    assert check("node/healthcheck.py", CLIO_PORT=str(port - 3)).returncode == 1


def test_health_check_of_a_node_refuses_another_kind_of_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        done = check("node/healthcheck.py", CLIO_PORT=str(server.getsockname()[1] - 3))
        thread.join(10)
    assert done.returncode == 1
    assert "no ZeroMQ peer" in done.stderr


# --- Configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deploy/cluster/exporter.yaml", "contrib/config/exporter.yaml"])
def test_settings_of_the_exporter_load(name: str) -> None:
    settings = load_settings(ROOT / name)
    assert [cluster.hostfile is not None for cluster in settings.clusters] == [True]


@pytest.mark.parametrize("name", ["deploy/cluster/control-api.yaml", "contrib/config/control-api.yaml"])
def test_settings_of_the_control_api_load(name: str, tmp_path: Path) -> None:
    path = tmp_path / "control-api.yaml"
    exporter_yaml = (ROOT / name).with_name("exporter.yaml")
    content = re.sub(r"^exporter_config: .*$", f"exporter_config: {exporter_yaml}", text(name), flags=re.M)
    path.write_text(content, encoding="utf-8")
    settings = load(path, {}, {}, tmp_path)
    assert settings.port == 5000
    assert settings.ssh_of("").ssh.user == "clio"
    assert auth_of(settings) is Auth.ALL


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize("unit", [*UNITS, *USER_UNITS], ids=lambda unit: f"{unit.parent.name}-{unit.name}")
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    # Not installed here, and a program that is missing is the one complaint that is expected.
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed here")
def test_the_module_file_leads_to_the_program(tmp_path: Path) -> None:
    """Read by Tcl with the commands that a module system has."""
    file = ROOT / "contrib" / "modulefiles" / "clio-exporter"
    assert file.read_text().startswith("#%Module1.0\n")
    script = tmp_path / "module.tcl"
    commands = ("module-whatis", "conflict", "prepend-path", "setenv")
    told = "".join(f"proc {name} {{args}} {{ puts [list {name} {{*}}$args] }}\n" for name in commands)
    script.write_text(f"{told}source {{{file}}}\nModulesHelp\n")
    done = subprocess.run(["tclsh", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "prepend-path PATH /opt/clio-exporter/bin" in done.stdout.splitlines()


SPACK = ROOT / "contrib" / "spack"
SPACK_PACKAGES = {path.parent.name: path for path in sorted(SPACK.glob("packages/*/package.py"))}
_LEAST = re.compile(r"([A-Za-z][\w-]*)>=([\d.]+)")


def spack_recipe(name: str) -> tuple[list[str], list[str]]:
    """Versions and dependencies of a recipe, run with stand-ins for Spack's commands."""
    versions: list[str] = []
    wanted: list[str] = []

    def version(number: str, **_more: Any) -> None:
        versions.append(number)

    def depends_on(spec: str, **_more: Any) -> None:
        wanted.append(spec)

    def nothing(*_args: Any, **_more: Any) -> None:
        return

    path = SPACK_PACKAGES[name]
    source = path.read_text(encoding="utf-8")
    assert "from spack.package import *\n" in source
    names = {
        "PythonPackage": object, "depends_on": depends_on, "license": nothing, "variant": nothing,
        "version": version, "__file__": str(path),
    }  # fmt: skip
    exec(source.replace("from spack.package import *\n", ""), names)
    return versions, wanted


def test_the_spack_recipe_has_the_dependencies_of_the_package() -> None:
    _, wanted = spack_recipe("py-clio-exporter")
    ours = tomllib.loads(text("pyproject.toml"))["project"]
    extras = ours["optional-dependencies"]
    needed = [
        *ours["dependencies"],
        *(each for name in ("backfill", "parquet", "report", "top") for each in extras[name]),
    ]
    for dependency in needed:
        name, least = _LEAST.match(dependency).groups()  # type: ignore[union-attr]
        assert [spec for spec in wanted if spec.startswith(f"py-{name}@{least}:")], dependency
    assert f"python@{ours['requires-python'].removeprefix('>=')}:" in wanted


@pytest.mark.parametrize("name", [name for name in SPACK_PACKAGES if name != "py-clio-exporter"])
def test_spack_gets_the_versions_we_are_tested_with(name: str) -> None:
    """Of what Spack itself has too old, or not at all."""
    versions, _ = spack_recipe(name)
    assert [f"{name.removeprefix('py-')}=={number}" for number in versions] == [
        line
        for line in text("constraints.txt").splitlines()
        if line.startswith(f"{name.removeprefix('py-')}==")
    ]


@pytest.mark.skipif(shutil.which("spack") is None, reason="spack is not installed here")
@pytest.mark.parametrize("name", SPACK_PACKAGES)
def test_spack_reads_the_recipes(name: str, tmp_path: Path) -> None:
    """By Spack itself, which knows no other repository of ours and keeps nothing."""
    scope = tmp_path / "scope"
    scope.mkdir()
    (scope / "repos.yaml").write_text(f"repos:\n  - {SPACK}\n", encoding="utf-8")
    environment = {
        **os.environ, "HOME": str(tmp_path), "SPACK_DISABLE_LOCAL_CONFIG": "1",
        "SPACK_USER_CACHE_PATH": str(tmp_path / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        ["spack", "-C", str(scope), "info", name],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert f"{name}\n" in done.stdout
    assert ROOT.as_uri() in done.stdout or name != "py-clio-exporter"


def test_singularitys_python_library_reads_the_apptainer_definition() -> None:
    """It is a parser of definitions, and does not need the program."""
    path = ROOT / "contrib" / "apptainer" / "clio-exporter.def"
    (recipe,) = SingularityParser(str(path)).recipe.values()
    assert recipe.fromHeader == "python:3.12-slim-bookworm"
    assert recipe.files == [". /src"]
    assert recipe.cmd == 'exec clio-exporter "$@"'
    assert recipe.environ == ["PATH=/opt/clio-exporter/bin:$PATH"]
    assert [line for line in recipe.install if "/src[" in line] == [
        "/opt/clio-exporter/bin/pip install --no-cache-dir --constraint /src/constraints.txt "
        "'/src[backfill,report,top]'"
    ]
    assert [line for line in recipe.install if "--version" in line] != []  # from %test
    assert recipe.labels == ["org.opencontainers.image.title clio-exporter"]


def test_the_apptainer_definition_has_scripts_that_a_shell_reads() -> None:
    _, *sections = re.split(r"^%(?=\w)", text("contrib/apptainer/clio-exporter.def"), flags=re.M)
    bodies = dict(section.split("\n", 1) for section in sections)
    for name in ("post", "environment", "runscript", "test"):
        done = subprocess.run(
            ["sh", "-n"], input=bodies[name], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize("service", ["clio-control-api", "clio-exporter"])
def test_systemd_finds_the_services_little_exposed(service: str) -> None:
    """1.5 or less, of 10; the runtime needs more of its machine."""
    (unit,) = (unit for unit in UNITS if unit.stem == service)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_hardened_and_start_what_the_project_installs(unit: Path) -> None:
    content = unit.read_text(encoding="utf-8")
    for directive in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=\n",
        "Restart=on-failure",
    ):
        assert directive in content, directive
    program = re.search(r"^ExecStart=\S*/(\S+)", content, re.MULTILINE)
    assert program
    declared = re.findall(r"^(clio-[a-z-]+) = ", text("pyproject.toml"), re.MULTILINE)
    assert program[1] in {*declared, "clio_run"}
