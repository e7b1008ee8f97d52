"""`clio-exporter doctor` on real runtimes, a real Prometheus and sshd: faults made for real."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_exporter.kit.rules import render
from clio_lab.demo.cluster import LocalCluster
from clio_lab.demo.install import RuntimeInstall
from clio_lab.demo.ports import find_base_port
from tests.exporter_process import ExporterProcess, eventually, run_exporter
from tests.integration.sshd import Sshd, make_key
from tests.integration.wrong_clock import wrong_clock
from tests.ports import closed_port, free_port
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = pytest.mark.integration

Findings = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def cluster(
    runtime_install: RuntimeInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    root = tmp_path_factory.mktemp("doctor")
    with LocalCluster(root, 2, install=runtime_install, base_port=find_base_port(2)) as running:
        yield running


def ask(directory: Path, cluster: LocalCluster, *arguments: str) -> tuple[int, Findings]:
    """Exit status and findings by check; a later option overrules an earlier one."""
    options = ["--hostfile", str(cluster.hostfile), "--runtime.reply-port", str(free_port())]
    ended = run_exporter(directory, "doctor", "--format", "json", *options, *arguments)
    assert ended.stderr == ""
    found: Findings = {}
    for finding in json.loads(ended.stdout)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return ended.returncode, found


def failed(found: Findings) -> dict[str, str]:
    """What failed, by check."""
    return {name: f["seen"] for name, rows in found.items() for f in rows if f["status"] == "fail"}


def warned(found: Findings) -> set[str]:
    return {name for name, rows in found.items() for f in rows if f["status"] == "warn"}


def test_a_healthy_cluster_and_a_stopped_node(cluster: LocalCluster, tmp_path: Path) -> None:
    status, found = ask(tmp_path, cluster)
    assert (status, failed(found), warned(found)) == (0, {}, set())
    assert found["node ids"][0]["seen"].startswith("2 runtimes")
    node = cluster.nodes[1]
    node.pause()
    try:
        status, found = ask(tmp_path, cluster)
    finally:
        node.resume()
    assert status == 1
    assert set(failed(found)) == {"answers"}
    assert f"1 ({node.host}:{node.port}): nothing greets" in failed(found)["answers"]


def test_a_wrong_hostfile_a_wrong_port_and_one_node_twice(cluster: LocalCluster, tmp_path: Path) -> None:
    first, second = (f"{node.host}:{node.port}" for node in cluster.nodes)
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{second}\n{first}\n")
    status, found = ask(tmp_path, cluster, "--hostfile", str(hosts))
    assert (status, set(failed(found))) == (1, {"node ids"})
    assert failed(found)["node ids"] == f"0 ({second}) calls itself 1, 1 ({first}) calls itself 0"

    with closed_port() as port:
        hosts.write_text(f"{first}\n{cluster.nodes[1].host}:{port - 3}\n")
        status, found = ask(tmp_path, cluster, "--hostfile", str(hosts))
    assert (status, set(failed(found))) == (1, {"ports to nodes"})
    assert failed(found)["ports to nodes"].startswith("refused: 1 (")


def test_two_addresses_of_one_runtime(cluster: LocalCluster, tmp_path: Path) -> None:
    first, second = cluster.nodes
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{first.host}:{first.port}\n{second.host}:{second.port}\n127.0.0.1:{second.port}\n")
    status, found = ask(tmp_path, cluster, "--hostfile", str(hosts))
    if "ports to nodes" in failed(found):
        pytest.skip("runtimes listen on one address only here")
    assert (status, set(failed(found))) == (1, {"duplicates"})


def test_a_reply_address_that_is_not_ours(runtime_install: RuntimeInstall, tmp_path: Path) -> None:
    # A cluster of its own: a runtime goes on dialling what it was told.
    with LocalCluster(tmp_path / "c", 1, install=runtime_install, base_port=find_base_port(1)) as one:
        status, found = ask(tmp_path, one, "--runtime.reply-address", "192.0.2.1")
    assert (status, set(failed(found))) == (1, {"answers", "runtimes"})
    assert "the runtime greets, but no answer came back to 192.0.2.1:" in failed(found)["answers"]
    assert "192.0.2.1 is not an address of this host" in failed(found)["answers"]


@needs_system("faketime")
@pytest.mark.parametrize("ahead", [90, -90])
def test_a_clock_that_is_wrong(cluster: LocalCluster, tmp_path: Path, ahead: int) -> None:
    with wrong_clock(cluster.nodes[1], ahead):
        status, found = ask(tmp_path, cluster, "--hostfile", str(cluster.hostfile))
    seen = found["clocks"][0]["seen"]
    wrong = re.findall(r"(\S+) (ahead|behind) by ([0-9.]+) s", seen)
    assert (status, found["clocks"][0]["status"]) == (0, "warn")
    assert [side for _node, side, _seconds in wrong] == ["ahead" if ahead > 0 else "behind"], seen
    # The newest sample is up to a second old, and the answers took their time.
    assert abs(float(wrong[0][2]) - 90) < 5, seen


@needs_system("prometheus")
def test_prometheus_without_us_in_vain_and_without_rules(cluster: LocalCluster, tmp_path: Path) -> None:
    def scraping(address: str, job: str, **more: Any) -> dict[str, Any]:
        return {"scrape_configs": [{"job_name": job, "static_configs": [{"targets": [address]}]}], **more}

    rules = tmp_path / "rules"
    rules.mkdir()
    for name, text in render().items():
        (rules / name).write_text(text, encoding="utf-8")
    options = ["--hostfile", str(cluster.hostfile)]
    with ExporterProcess(tmp_path, *options) as exporter, Prometheus(tmp_path, {}) as prometheus:
        services = ["--prometheus", prometheus.url, "--exporter", f"http://{exporter.address}"]
        status, found = ask(tmp_path, cluster, *services)
        assert (status, set(failed(found))) == (1, {"prometheus", "rules"})
        assert "none of them is a clio-exporter" in failed(found)["prometheus"]
        assert "2 of 2 nodes are up" in found["exporter"][0]["seen"]

        with closed_port() as port:
            prometheus.reload(scraping(f"127.0.0.1:{port}", "clio-exporter"))
            eventually("the scrape failed", prometheus.target_errors)
            status, found = ask(tmp_path, cluster, *services)
        assert (status, set(failed(found))) == (1, {"prometheus", "rules"})
        assert "connection refused" in failed(found)["prometheus"]

        # Under another name than ours it is known by its metrics.
        prometheus.reload(scraping(exporter.address, "other", rule_files=[f"{rules}/*.yml"]))
        prometheus.wait_for('up{job="other"} == 1')
        status, found = ask(tmp_path, cluster, *services)
        assert (status, failed(found)) == (0, {})
        assert f"scrapes http://{exporter.address}/metrics" in found["prometheus"][0]["seen"]
        assert [f["status"] for f in found["rules"]] == ["ok", "warn"]  # no Alertmanager


@needs_system("sshd")
def test_ssh_tries_the_way_back_from_the_node(cluster: LocalCluster, tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    known = tmp_path / "known_hosts"
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host *\n  HostName 127.0.0.1\n  User {getpass.getuser()}\n  IdentityFile {key}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
        "  HostKeyAlias node\n"
    )
    with Sshd(tmp_path, [key]) as sshd:
        options = ["--ssh", "--ssh.config", str(config), "--ssh.port", str(sshd.port)]
        status, found = ask(tmp_path, cluster, *options)
        assert (status, set(failed(found))) == (1, {"ssh"})
        assert "Host key verification failed" in failed(found)["ssh"]
        assert not known.exists()

        public = Path(f"{sshd.host_key}.pub").read_text().split()
        known.write_text(f"node {public[0]} {public[1]}\n")
        status, found = ask(tmp_path, cluster, *options)
        assert (status, failed(found)) == (0, {})
        assert found["ssh"][0]["seen"] == "log-in to 2 nodes works; 2 of them reach this host"
    status, found = ask(tmp_path, cluster, *options)
    assert (status, set(failed(found))) == (1, {"ssh"})
    assert "refused" in failed(found)["ssh"].lower()
