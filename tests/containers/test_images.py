"""The image of exporter and control API: what it says of itself, and that it runs with nothing to spare."""

from __future__ import annotations

import time

import clio_client
from tests.containers.cluster import HARDENED, Service
from tests.containers.engine import engine, labels
from tests.exporter_process import eventually

SECOND = 1_000_000_000


def test_labels_user_and_health_check(images: dict[str, str]) -> None:
    for target in ("exporter", "node"):
        config = engine().images.get(images[target]).attrs["Config"]
        assert config["User"] == "10001:10001"
        assert config["Healthcheck"]["Test"][0] == "CMD"
        found = config["Labels"]
        assert found["org.opencontainers.image.version"] == clio_client.__version__
        assert found["org.opencontainers.image.licenses"] == "BSD-3-Clause"
        assert found["org.opencontainers.image.title"] == f"clio-{target}"


def test_the_exporter_runs_read_only_without_capabilities_as_any_user(images: dict[str, str]) -> None:
    """`docker run --read-only --cap-drop=ALL --user 65534`, no network, no writable directory at all."""
    service = Service(
        images["exporter"], f"clio-test-{time.monotonic_ns()}", command=["--nodes=127.0.0.1"], user="65534",
        network_mode="none", mem_limit="128m", pids_limit=64,
        healthcheck={"test": ["CMD", "python3", "-I", "/usr/local/bin/clio-healthcheck"], "interval": SECOND},
    )  # fmt: skip
    try:
        service.start()
        host = service.docker.attrs["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Binds"], host.get("Tmpfs") or None) == (
            True, ["ALL"], None, None,
        )  # fmt: skip
        eventually("it is healthy", lambda: service.state()["Health"]["Status"] == "healthy", 60, pause=0.2)
        code, status = service.execute("cat", "/proc/1/status")
        assert code == 0
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {"65534"}
        assert int(fields["CapEff"], 16) == 0
        assert int(fields["NoNewPrivs"]) == 1
        code, metrics = service.execute(
            "python3", "-c",
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9777/metrics').read().decode())",
        )  # fmt: skip
        assert code == 0
        assert 'clio_node_up{node_id="0",hostname="127.0.0.1"} 0' in metrics
        service.docker.stop(timeout=20)
        state = service.state()
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), service.log()
    finally:
        service.stop()


def test_the_health_check_fails_when_nothing_serves(images: dict[str, str]) -> None:
    service = Service(
        images["exporter"], f"clio-test-{time.monotonic_ns()}", entrypoint=["sleep", "600"],
        network_mode="none",
    )  # fmt: skip
    try:
        service.start()
        code, output = service.execute("python3", "-I", "/usr/local/bin/clio-healthcheck")
        assert code == 1
        assert "127.0.0.1:9777" in output
    finally:
        service.stop()


def test_there_is_no_pip_and_nothing_of_the_runtime_in_it(images: dict[str, str]) -> None:
    output = engine().containers.run(
        images["exporter"],
        ["-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"],
        entrypoint=["/opt/clio/bin/python"], remove=True, network_mode="none", labels=labels(),
        cap_drop=HARDENED["cap_drop"],
    )  # fmt: skip
    installed = set(output.decode().split())
    assert "clio-exporter" in installed
    assert installed & {"pip", "setuptools", "iowarp-core", "pytest"} == set()


def test_the_image_makes_tokens(images: dict[str, str]) -> None:
    line = engine().containers.run(
        images["exporter"], ["token", "ana", "--role", "operator"], entrypoint=["clio-control-api"],
        remove=True, network_mode="none", read_only=True, cap_drop=["ALL"], user="65534", labels=labels(),
    )  # fmt: skip
    assert line.startswith(b"ana:operator:")
