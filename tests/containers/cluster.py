"""Four nodes, exporter and control API, each in a container of its own on one network, by testcontainers.

Names, network and volume are unique for every cluster. Everything is removed by `stop`, also after a start
that failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker.types
from docker.errors import APIError
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.containers.engine import ROOT, engine, free_subnets, images, labels
from tests.exporter_process import Scrape, eventually

# Its container looks after runs that are killed, as engine.py does, but its image would have to be pulled.
testcontainers_config.ryuk_disabled = True

NODES = 4
READY_SECONDS = 120.0
HARDENED = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True, "init": True}
STATE_TMPFS = {"/tmp": "", "/var/lib/clio": "uid=10001,gid=10001,mode=0750"}


def private_keys(container: Container) -> set[str]:
    """Digests of the private SSH keys that a container's own user can read, wherever they are."""
    return set(_inside(container, _PRIVATE_KEYS, "/"))


def writable(container: Container, directory: str) -> list[str]:
    """What of a directory, and of all below it, a container's own user can change."""
    return _inside(container, _WRITABLE, directory)


_PRIVATE_KEYS = """
import hashlib, os, sys
for top, names, files in os.walk(sys.argv[1]):
    names[:] = [name for name in names if os.path.join(top, name) not in ("/proc", "/sys", "/dev")]
    for path in filter(os.path.isfile, (os.path.join(top, name) for name in files)):
        try:
            with open(path, "rb") as file:
                if file.read(35) == b"-----BEGIN OPENSSH PRIVATE KEY-----":
                    print(hashlib.sha256(file.read()).hexdigest())
        except OSError:
            pass
"""
_WRITABLE = """
import os, sys
for top, names, files in os.walk(sys.argv[1]):
    for path in (top, *(os.path.join(top, name) for name in files)):
        try:
            os.utime(path)
            print(path)
        except OSError:
            pass
"""


def _inside(container: Container, script: str, *arguments: str) -> list[str]:
    """Lines that a Python script prints in a container."""
    code, output = container.exec_run(["timeout", "240", "python3", "-I", "-c", script, *arguments])
    assert code == 0, output.decode(errors="replace")
    return output.decode().splitlines()


class Service:
    """One container; what a test needs of it."""

    def __init__(
        self,
        image: str,
        name: str,
        network: Network | None = None,
        address: str | None = None,
        command: list[str] | None = None,
        volumes: Mapping[str, tuple[str, str]] | None = None,
        tmpfs: Mapping[str, str] | None = None,
        port: int | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self.address = address
        self.port = port
        arguments: dict[str, Any] = {**HARDENED, **options, "labels": labels()}
        if network is not None:
            endpoint = docker.types.EndpointConfig("1.40", ipv4_address=address)
            arguments |= {"network": network.name, "networking_config": {network.name: endpoint}}
        # Not as arguments of the constructor: it has a `network` of its own, which knows no fixed addresses.
        self._container = DockerContainer(image, name=name).with_kwargs(**arguments)
        if command is not None:
            self._container.with_command(command)
        for source, (target, mode) in (volumes or {}).items():
            self._container.with_volume_mapping(source, target, mode)
        self._container.tmpfs = dict(tmpfs or {})
        if port is not None:
            self._container.ports[f"{port}/tcp"] = ("127.0.0.1", None)  # type: ignore[assignment]

    def start(self) -> None:
        self._container.start()

    def stop(self) -> None:
        self._container.stop()

    @property
    def docker(self) -> Container:
        """The container as the engine knows it."""
        return self._container.get_wrapped_container()

    def state(self) -> dict[str, Any]:
        """What the engine says about it now."""
        self.docker.reload()
        return self.docker.attrs["State"]

    def log(self) -> str:
        return self.docker.logs().decode(errors="replace")

    def execute(self, *command: str) -> tuple[int, str]:
        """Run a command inside; exit code and output."""
        code, output = self.docker.exec_run(list(command))
        return code, output.decode(errors="replace")

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> tuple[int, str]:
        """Ask the published port over HTTP; status and body."""
        self.docker.reload()
        published = self.docker.ports[f"{self.port}/tcp"][0]
        connection = http.client.HTTPConnection(
            published["HostIp"], int(published["HostPort"]), timeout=timeout
        )
        with contextlib.closing(connection):
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def wait_serving(self, path: str = "/-/healthy", seconds: float = READY_SECONDS) -> None:
        """Wait until it answers; ends early, with its log, when the container ends."""

        def serving() -> bool:
            if not self.state()["Running"]:
                raise RuntimeError(f"{self.name} ended:\n{self.log()[-3000:]}")
            return self.request(path, timeout=5)[0] == 200

        eventually(f"{self.name} serves", serving, seconds)


class ContainerCluster:
    """Nodes .10 to .13 of a network of their own, the exporter (.2) and the control API (.3) for them.

    The control API's tokens are `viewer_token` and `operator_token`.
    """

    def __init__(self, directory: Path) -> None:
        self.run = secrets.token_hex(4)
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self.nodes: list[Service] = []
        self.exporter: Service
        self.control_api: Service
        self.operator_token = "clio_" + secrets.token_urlsafe(32)
        self.viewer_token = "clio_" + secrets.token_urlsafe(32)

    def __enter__(self) -> ContainerCluster:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove everything."""
        self._stack.close()

    def _start(self) -> None:
        built = images()
        node, exporter = built["node"], built["exporter"]
        self.prefix, self.network = self._make_network()
        addresses = [f"{self.prefix}.{10 + index}" for index in range(NODES)]
        login, *host_keys = self._make_keys(node, addresses)
        config = self._write_config()
        for index, address in enumerate(addresses):
            service = Service(
                node, f"clio-test-{self.run}-node{index}", self.network, address,
                volumes={str(config): ("/etc/clio", "ro"), host_keys[index]: ("/keys", "ro")},
                tmpfs=STATE_TMPFS, mem_limit="1g", pids_limit=512,
            )  # fmt: skip
            self._begin(service)
            self.nodes.append(service)
        self.exporter = Service(
            exporter, f"clio-test-{self.run}-exporter", self.network, f"{self.prefix}.2",
            command=["--config.file=/etc/clio/exporter.yaml"], port=9777, user="65534",
            volumes={str(config): ("/etc/clio", "ro")}, mem_limit="512m",
        )  # fmt: skip
        self._begin(self.exporter)
        self.control_api = Service(
            exporter, f"clio-test-{self.run}-control-api", self.network, f"{self.prefix}.3",
            entrypoint=["clio-control-api"], command=["--config", "/etc/clio/control-api.yaml"],
            port=5000,
            volumes={
                str(config): ("/etc/clio", "ro"),
                login: ("/keys", "ro"),
                str(self._directory / "tokens"): ("/run/secrets/control_api_tokens", "ro"),
            },
            tmpfs=STATE_TMPFS, mem_limit="512m",
        )  # fmt: skip
        self._begin(self.control_api)
        self.exporter.wait_serving()
        self.wait_up(range(NODES))
        self.control_api.wait_serving()

    def _begin(self, service: Service) -> None:
        self._stack.callback(service.stop)
        service.start()

    def _make_keys(self, image: str, addresses: list[str]) -> list[str]:
        """As docker-compose.yml does; names of the volumes of the control API and of each node."""
        targets = ["/keys", *(f"/nodes/{number}" for number in range(1, NODES + 1))]
        volumes = {f"clio-test-{self.run}{target.replace('/', '-')}": target for target in targets}
        for name in volumes:
            self._stack.callback(engine().volumes.create(name, labels=labels()).remove, force=True)
        engine().containers.run(
            image, ["clio-keys", *addresses], remove=True, network_mode="none", labels=labels(),
            volumes={name: {"bind": target, "mode": "rw"} for name, target in volumes.items()},
            **HARDENED,
        )  # fmt: skip
        return list(volumes)

    def _make_network(self) -> tuple[str, Network]:
        for prefix in free_subnets():
            pool = docker.types.IPAMPool(subnet=f"{prefix}.0/24")
            ipam = docker.types.IPAMConfig(pool_configs=[pool])
            network = Network(docker_network_kw={"ipam": ipam, "labels": labels()})
            try:
                network.create()
            except APIError as error:
                if "overlaps" in str(error):
                    continue
                raise
            self._stack.callback(network.remove)
            return prefix, network
        raise AssertionError("no free network")

    def _write_config(self) -> Path:
        config = self._directory / "config"
        shutil.copytree(ROOT / "deploy" / "cluster", config)
        hosts = "".join(f"{self.prefix}.{10 + index}\n" for index in range(NODES))
        (config / "hostfile").write_text(hosts, encoding="utf-8")
        tokens = self._directory / "tokens"
        lines = [("viewer", self.viewer_token), ("operator", self.operator_token)]
        tokens.write_text(
            "".join(f"{role}:{role}:{hashlib.sha256(token.encode()).hexdigest()}\n" for role, token in lines),
            encoding="utf-8",
        )
        # Containers read these as other users; pytest's directories are for this one alone.
        for path in (config, *config.iterdir(), tokens):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return config

    # --- what the exporter sees --------------------------------------------------------------------

    def scrape(self, timeout: float = 10.0) -> Scrape:
        """One scrape with a deadline in seconds, as Prometheus sends it."""
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
        status, text = self.exporter.request("/metrics", headers=headers)
        assert status == 200, text[:500]
        return Scrape(text, 0.0)

    def up(self) -> dict[int, float]:
        """`clio_node_up` by node id."""
        return {int(node): value for node, value in self.scrape().by("node_id", "clio_node_up").items()}

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Wait for a condition; AssertionError shows which nodes are up."""
        try:
            eventually(what, condition, seconds, pause=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; up: {self.up()}") from None

    def wait_up(self, nodes: Iterator[int] | range | list[int], seconds: float = READY_SECONDS) -> None:
        """Wait until exactly these nodes are up."""
        expected = set(nodes)
        self.wait_for(
            f"nodes {sorted(expected)} are up, the others down",
            lambda: {node for node, value in self.up().items() if value == 1} == expected,
            seconds,
        )

    # --- the control API --------------------------------------------------------------------------

    def api(self, path: str, *, method: str = "GET", token: str | None = None) -> tuple[int, Any]:
        """Ask the control API; status and decoded body."""
        headers = {"Authorization": f"Bearer {token or self.viewer_token}"}
        status, body = self.control_api.request(path, method=method, headers=headers, timeout=200)
        return status, json.loads(body)

    def act(self, node: int, action: str) -> Any:
        """Stop or restart a node as the operator, until it is over; AssertionError unless it succeeds."""

        def said(status: int, body: Any) -> str:
            return f"{action} of node {node}: {status} {body}\n{self.control_api.log()[-3000:]}"

        status, body = self.api(
            f"/api/topology/node/{node}/{action}", method="POST", token=self.operator_token
        )
        assert (status, body.get("success")) == (200, True), said(status, body)

        def ended() -> Any:
            status, found = self.api(f"/api/actions/{body['id']}")
            assert status == 200, said(status, found)
            return found if found["state"] != "running" else None

        # A restart is answered at once, and the node is busy until it is over.
        found = eventually(f"{action} of node {node} is over", ended, READY_SECONDS, pause=0.5)
        assert found["state"] == "succeeded", said(200, found)
        return body

    def alive(self) -> dict[int, bool]:
        """Which nodes /api/topology calls alive."""
        status, body = self.api("/api/topology")
        assert status == 200, body
        return {node["node_id"]: node["alive"] for node in body["nodes"]}

    def wait_alive(self, nodes: Iterator[int] | range | set[int], seconds: float = READY_SECONDS) -> None:
        """Wait until /api/topology lists all four nodes and calls exactly these alive."""
        expected = {node: node in set(nodes) for node in range(NODES)}
        eventually(f"alive: {expected}", lambda: self.alive() == expected, seconds, pause=0.3)
