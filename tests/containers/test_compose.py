"""docker-compose.yml: valid by Compose itself, closed by default; the stack started and removed by ./cluster.

Grafana is not started here: there is no image of it without a registry, nor a Debian package. Its service is
checked by `docker compose config`, what is mounted into it by the dashboards' own tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import engine
from tests.containers.cluster import NODES, private_keys, writable
from tests.exporter_process import eventually, free_port

SERVICES = {"exporter", "control-api", "prometheus", "alertmanager", "grafana"}
CLUSTER = {"keys", "node1", "node2", "node3", "node4", "traffic"}
UP_SECONDS = 600.0


def compose_command() -> list[str] | None:
    """`docker compose` or `docker-compose`, whichever works; None when neither does."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, timeout=60, check=False)
            if done.returncode == 0:
                return command
    return None


def compose_config(*profiles: str) -> dict[str, Any]:
    """docker-compose.yml with the values of .env.example, as Compose understands it."""
    command = compose_command()
    if command is None:
        pytest.skip("neither 'docker compose' nor docker-compose is installed")
    done = subprocess.run(
        [*command, "--env-file", ".env.example", "config"], cwd=engine.ROOT, capture_output=True, text=True,
        timeout=120, check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GRAFANA_ADMIN_PASSWORD": "x",
             "COMPOSE_PROFILES": ",".join(profiles)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def active(services: dict[str, Any]) -> set[str]:
    """Names of services that are in no profile."""
    return {name for name, service in services.items() if not service.get("profiles")}


def test_compose_accepts_the_file_and_the_profile_adds_the_cluster() -> None:
    services = compose_config("cluster")["services"]
    assert set(services) == SERVICES | CLUSTER
    assert active(services) == SERVICES
    addresses = [services[f"node{n}"]["networks"]["nodes"]["ipv4_address"] for n in range(1, NODES + 1)]
    assert addresses == [f"172.28.0.{n}" for n in range(10, 14)]
    hostfile = (engine.ROOT / "deploy" / "cluster" / "hostfile").read_text(encoding="utf-8")
    assert hostfile.split() == addresses


def test_a_missing_password_for_grafana_is_refused() -> None:
    command = compose_command()
    if command is None:
        pytest.skip("neither 'docker compose' nor docker-compose is installed")
    done = subprocess.run(
        [*command, "--env-file", ".env.example", "config"], cwd=engine.ROOT, capture_output=True, text=True,
        timeout=120, check=False, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "GRAFANA_ADMIN_PASSWORD" in done.stderr


def test_every_service_is_limited_checked_and_closed() -> None:
    for name, service in compose_config("cluster")["services"].items():
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name == "keys" else "unless-stopped"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") is True or name == "grafana"
        assert not service.get("privileged"), name
        for port in service.get("ports", ()):
            host = port.get("host_ip") if isinstance(port, dict) else str(port).rpartition(":")[0]
            assert str(host).startswith("127.0.0.1"), f"{name}: {port}"
        if name in {"prometheus", "alertmanager", "grafana"}:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), name
            assert service["healthcheck"]["test"], name


def test_keys_are_given_to_who_needs_them_and_written_by_one_service() -> None:
    holders: dict[str, dict[str, bool]] = {}
    for name, service in compose_config("cluster")["services"].items():
        for source, target, changeable in map(mount, service.get("volumes", ())):
            if target.startswith(("/keys", "/nodes")):
                holders.setdefault(source, {})[name] = changeable
    assert holders == {
        "keys": {"keys": True, "control-api": False},
        **{f"node{n}-keys": {"keys": True, f"node{n}": False} for n in range(1, NODES + 1)},
    }


def mount(volume: str | dict[str, Any]) -> tuple[str, str, bool]:
    """Source and target of a mount, and whether it can be written, as either Compose writes it."""
    if isinstance(volume, dict):
        return volume["source"], volume["target"], not volume.get("read_only", False)
    source, target, mode = [*volume.split(":"), "rw"][:3]
    return source, target, "ro" not in mode.split(",")


def test_secrets_are_files_and_grafana_asks_for_a_log_in() -> None:
    config = compose_config()
    assert all(set(secret) - {"name"} == {"file"} for secret in config["secrets"].values())
    environment = config["services"]["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    for name, service in config["services"].items():
        variables = service.get("environment") or {}
        secret = {v for v in variables if re.search("TOKEN|PASSWORD|SECRET|KEY", v)}
        assert secret <= {"GF_SECURITY_ADMIN_PASSWORD"}, name


# --- The stack itself ------------------------------------------------------------------------------


class Stack:
    """A checkout of its own, started by ./cluster on free ports and a free network."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = engine.compose_project()
        prefix = next(engine.free_subnets())
        ports = (
            "CLIO_EXPORTER_PORT", "CLIO_EXPORTER_REPLY_PORT", "CLIO_CONTROL_API_PORT",
            "CLIO_CONTROL_API_REPLY_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT",
        )  # fmt: skip
        self.ports = {name: free_port() for name in ports}
        shutil.copytree(engine.project(), directory, dirs_exist_ok=True)
        hosts = "".join(f"{prefix}.{n}\n" for n in range(10, 10 + NODES))
        (directory / "deploy/cluster/hostfile").write_text(hosts, encoding="utf-8")
        # As someone who tries it would, but faster: a scrape a second.
        path = directory / "deploy/prometheus.yml"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 2s", text).replace(
            "scrape_timeout: 10s", "scrape_timeout: 2s"), encoding="utf-8")  # fmt: skip
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"),
            "COMPOSE_PROJECT_NAME": self.name, "CLIO_SUBNET": f"{prefix}.0/24", "CLIO_NODE_NETWORK": prefix,
            "BASE_IMAGE": engine.base_image(), "CLIO_IMAGE": engine.EXPORTER_IMAGE,
            "CLIO_NODE_IMAGE": engine.NODE_IMAGE,
            "PROMETHEUS_IMAGE": engine.packaged_image("prometheus", "prometheus", "/bin/prometheus"),
            **{name: str(port) for name, port in self.ports.items()},
        }  # fmt: skip
        self.services = [*sorted(CLUSTER), "exporter", "control-api", "prometheus"]
        if engine.find_command("prometheus-alertmanager"):
            self.services.append("alertmanager")
            self.environment["ALERTMANAGER_IMAGE"] = engine.packaged_image(
                "alertmanager",
                "prometheus-alertmanager",
                "/bin/alertmanager",
                "/usr/share/prometheus/alertmanager",
            )

    def cluster(self, *arguments: str) -> str:
        """Run ./cluster."""
        done = subprocess.run(
            ["./cluster", *arguments], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=UP_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def containers(self) -> dict[str, Any]:
        """All containers of the project by service."""
        found = engine.engine().containers.list(all=True, filters=self._filter)
        return {container.labels["com.docker.compose.service"]: container for container in found}

    def left(self) -> list[str]:
        """Names of what the engine still has of it."""
        client = engine.engine()
        found = [*self.containers().values(), *client.networks.list(filters=self._filter)]
        return [item.name for item in [*found, *client.volumes.list(filters=self._filter)]]

    def get(self, port: str, path: str, token: str | None = None, method: str = "GET") -> Any:
        """A JSON document from a published port."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def refused(self, path: str, token: str | None = None, method: str = "GET") -> int:
        """The status with which the control API refuses a request."""
        with pytest.raises(urllib.error.HTTPError) as refused:
            self.get("CLIO_CONTROL_API_PORT", path, token, method)
        refused.value.close()
        return refused.value.code

    def query(self, expression: str) -> dict[str, float]:
        """An instant vector of Prometheus: value by job, or by '' ."""
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        result = self.get("PROMETHEUS_PORT", path)["data"]["result"]
        return {sample["metric"].get("job", ""): float(sample["value"][1]) for sample in result}

    @property
    def _filter(self) -> dict[str, str]:
        return {"label": f"com.docker.compose.project={self.name}"}


@pytest.fixture(scope="module")
def stack(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if compose_command() is None:
        pytest.skip("neither 'docker compose' nor docker-compose is installed")
    try:
        made = Stack(tmp_path_factory.mktemp("stack"))
    except engine.CannotBuildError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.cluster("stop")


def held_keys(stack: Stack) -> dict[str, set[str]]:
    """Digests of the private keys that the containers of our images can read, by service."""
    ours = {"control-api", "exporter", *CLUSTER} - {"keys"}
    return {name: private_keys(found) for name, found in stack.containers().items() if name in ours}


def test_the_stack_comes_up_is_whole_and_leaves_nothing(stack: Stack) -> None:
    told = stack.cluster("start", *stack.services)
    assert f":{stack.ports['CLIO_EXPORTER_PORT']}/" in told
    env = (stack.directory / ".env").read_text(encoding="utf-8")
    assert re.search(r"^GRAFANA_ADMIN_PASSWORD=[0-9a-f]{32}$", env, re.MULTILINE)
    assert (stack.directory / ".env").stat().st_mode & 0o077 == 0
    assert (stack.directory / "secrets").stat().st_mode & 0o077 == 0

    def unhealthy() -> dict[str, str]:
        states = {name: container.attrs["State"] for name, container in stack.containers().items()}
        return {
            name: state.get("Health", {}).get("Status", state["Status"])
            for name, state in states.items()
            if state.get("Health", {}).get("Status", state["Status"]) not in ("healthy", "running")
            and not (name == "keys" and (state["Status"], state["ExitCode"]) == ("exited", 0))
        }

    assert set(stack.containers()) == set(stack.services)
    try:
        eventually("all are healthy", lambda: unhealthy() == {}, 180, pause=0.5)
    except AssertionError as error:
        logs = {name: stack.containers()[name].logs(tail=20).decode() for name in unhealthy()}
        raise AssertionError(f"{error}: {unhealthy()}; {logs}") from None

    # Prometheus scrapes all of them, the control API with its token; the rules are loaded.
    jobs = {"clio-exporter", "clio-control-api", "prometheus"}
    eventually("all jobs are up", lambda: stack.query("up") == dict.fromkeys(jobs, 1.0), 90, pause=0.5)
    eventually(
        "four nodes are up", lambda: sum(stack.query("sum(clio_node_up)").values()) == NODES, 90, pause=0.5
    )
    eventually(
        "traffic arrives", lambda: sum(stack.query("sum(clio_cte_blobs)").values()) > 0, 120, pause=0.5
    )
    assert stack.get("PROMETHEUS_PORT", "/api/v1/rules")["data"]["groups"]
    if "alertmanager" in stack.services:
        managers = stack.get("PROMETHEUS_PORT", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        assert len(managers) == 1
        assert stack.get("ALERTMANAGER_PORT", "/api/v2/status")["uptime"]

    # The tokens that ./cluster made work, and differ in what they allow.
    operator = (stack.directory / "secrets/operator_token").read_text(encoding="utf-8")
    viewer = (stack.directory / "secrets/viewer_token").read_text(encoding="utf-8")
    assert operator != viewer
    for token in (operator, viewer):
        nodes = stack.get("CLIO_CONTROL_API_PORT", "/api/topology", token)["nodes"]
        assert [node["alive"] for node in nodes] == [True] * NODES

    # Closed without a token; actions need the operator's, and go over SSH with the control API's key.
    shutdown, restart = (f"/api/topology/node/3/{action}" for action in ("shutdown", "restart"))
    assert stack.refused("/api/topology") == stack.refused(shutdown, method="POST") == 401
    assert stack.refused(shutdown, viewer, "POST") == 403
    for path in (shutdown, f"{restart}?wait=60"):
        assert stack.get("CLIO_CONTROL_API_PORT", path, operator, "POST")["success"] is True

    keys = held_keys(stack)
    assert {name: len(held) for name, held in keys.items()} == {
        "control-api": 1, "exporter": 0, "traffic": 0, **{f"node{n}": 1 for n in range(1, NODES + 1)},
    }  # fmt: skip
    assert len(set().union(*keys.values())) == 1 + NODES
    for n in range(1, NODES + 1):
        assert writable(stack.containers()[f"node{n}"], "/keys") == []

    # Starting again changes nothing that was made.
    stack.cluster("start", *stack.services)
    assert held_keys(stack) == keys
    assert (stack.directory / "secrets/operator_token").read_text(encoding="utf-8") == operator
    assert (stack.directory / ".env").read_text(encoding="utf-8") == env

    stack.cluster("stop")
    assert stack.left() == []
