"""From a real runtime through exporter, Prometheus and Alertmanager to a receiver, with the committed files.

What differs from the committed configuration: addresses, scrapes and evaluations every second or two,
and every wait and window divided by `FASTER`. All else is as in the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_exporter.kit.rules import Options, render
from clio_lab.demo.cluster import LocalCluster
from tests.alertmanager import Alertmanager, Receiver
from tests.exporter_process import ExporterProcess, eventually
from tests.paths import ROOT
from tests.prometheus import Prometheus
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool", "prometheus-alertmanager")]

COMMITTED = ROOT / "prometheus"
CLUSTER = "lab"
FASTER = 20


def committed(name: str) -> Any:
    return yaml.safe_load((COMMITTED / name).read_text(encoding="utf-8"))


def rule_files(directory: Path) -> list[str]:
    """The committed rules, impatient."""
    written = []
    for name, text in render(Options(faster=FASTER)).items():
        (directory / name).write_text(text, encoding="utf-8")
        written.append(str(directory / name))
    return written


def prometheus_config(directory: Path, exporter: str, alertmanager: str) -> dict[str, Any]:
    config: dict[str, Any] = committed("prometheus.yml")
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = rule_files(directory)
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    jobs["clio-exporter"]["static_configs"] = [{"targets": [exporter]}]
    # A scrape with a hung node lasts as long as the node is given.
    jobs["clio-exporter"] |= {"scrape_interval": "2s", "scrape_timeout": "2s"}
    config["scrape_configs"] = [jobs["clio-exporter"]]
    return config


def alertmanager_config(receiver: str) -> dict[str, Any]:
    config: dict[str, Any] = committed("alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        for key in ("group_wait", "group_interval"):
            if key in route:
                route[key] = "1s"
    webhook = [{"url": receiver, "send_resolved": True}]
    config["receivers"] = [
        {"name": "operators", "webhook_configs": webhook},
        {"name": "nobody"},
    ]
    return config


@dataclass
class Stack:
    """All parts of the chain."""

    cluster: LocalCluster
    prometheus: Prometheus
    alertmanager: Alertmanager
    receiver: Receiver

    def node_labels(self, index: int) -> dict[str, str]:
        (sample,) = self.prometheus.query(f'node:clio_node_up:max{{node_id="{index}"}}')
        return {name: sample.labels[name] for name in ("cluster", "node_id", "hostname")}

    def received(self, name: str, status: str, index: int, since: int = 0) -> list[dict[str, Any]]:
        return [alert for alert in self.receiver.alerts[since:] if about(name, status, index)(alert)]


def about(name: str, status: str, index: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether an alert has this name and status and is about this node."""

    def accept(alert: Mapping[str, Any]) -> bool:
        labels = alert["labels"]
        return (labels["alertname"], alert["status"], labels.get("node_id")) == (name, status, str(index))

    return accept


@pytest.fixture(scope="module")
def stack(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("alerting")
    settings = directory / "settings.yml"
    cluster = {
        "name": CLUSTER,
        "hostfile": str(cluster4.hostfile),
        "runtime_config": str(cluster4.nodes[0].config_path),
    }
    settings.write_text(yaml.safe_dump({"clusters": [cluster], "runtime": {"timeout": "1s"}}))
    with (
        Receiver() as receiver,
        Alertmanager(directory, alertmanager_config(receiver.url)) as alertmanager,
        ExporterProcess(directory, f"--config.file={settings}") as exporter,
        Prometheus(
            directory, prometheus_config(directory, exporter.address, alertmanager.address)
        ) as prometheus,
    ):
        prometheus.wait_for("sum(clio_node_up) == 4")
        yield Stack(cluster4, prometheus, alertmanager, receiver)


def test_a_healthy_cluster_alerts_nobody(stack: Stack) -> None:
    """Also not while it is new to Prometheus, when windows hold few samples."""
    stack.prometheus.wait_for("cluster:clio_health:score == 100")
    stack.prometheus.wait_for("cluster:clio_node_leader:sum == 1")
    stack.prometheus.wait_for_scrapes(10)
    firing = stack.prometheus.query('ALERTS{alertstate="firing", severity!="info"}')
    assert [sample.labels for sample in firing] == []
    assert stack.receiver.alerts == []


def test_every_rule_evaluates_on_a_real_cluster(stack: Stack) -> None:
    stack.prometheus.wait_for("cluster:clio_node_up:avg30d")
    groups = stack.prometheus.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    # All that a cluster without GPUs, arrays, and a day or half of a forecast's window of history can have.
    absent = {"node:clio_node_hbm_used:ratio", "safe_bdev:clio_safe_bdev_unavailable_members:count"}
    absent |= {f"bdev:clio_bdev_{way}_latency_seconds:avg1d_offset1h" for way in ("read", "write")}
    for window in ("1h", "6h"):
        absent |= {f"bdev:clio_bdev_full_seconds:forecast{window}"}
        absent |= {f"bdev:clio_bdev_fill_steadiness:ratio{window}"}
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}

    def all_have_recorded() -> bool:
        assert {name for name in recorded if not stack.prometheus.query(name)} == absent
        return True

    # Some need rates of minutes, and have them at once only after a test that took so long.
    eventually("every rule has recorded", all_have_recorded, 120)


def test_a_killed_node_reaches_the_receiver_and_is_resolved(stack: Stack) -> None:
    node, labels = stack.cluster.nodes[2], stack.node_labels(2)
    since = len(stack.receiver.alerts)
    node.kill()
    try:
        alert = stack.receiver.wait_for("node 2 is down", about("ClioNodeDown", "firing", 2), 90)
        check_killed(stack, alert, labels)
        check_inhibition(stack, labels)
        assert stack.received("ClioNodeHung", "firing", 2, since) == []
    finally:
        node.restart()
    stack.receiver.wait_for("node 2 is back", about("ClioNodeDown", "resolved", 2), 120)
    stack.prometheus.wait_for(f'node:clio_health:score{{cluster="{CLUSTER}", node_id="2"}} == 100')


def check_killed(stack: Stack, alert: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    assert labels["cluster"] == CLUSTER
    assert labels["hostname"] == stack.cluster.nodes[2].host
    assert alert["labels"] == {
        "alertname": "ClioNodeDown",
        "severity": "critical",
        "scope": "node",
        **labels,
    }
    assert alert["groupLabels"] == labels
    assert alert["receiver"] == "operators"
    annotations = alert["annotations"]
    assert annotations["summary"] == f"Runtime on {labels['hostname']} (node 2 of {CLUSTER}) is down"
    assert re.search(r"reason: (refused|connection_lost)\. ", annotations["description"])
    assert annotations["runbook_url"] == "docs/runbooks.md#clionodedown"
    assert annotations["dashboard_url"] == (
        f"http://127.0.0.1:3000/d/clio-node?var-cluster={CLUSTER}&var-node=2"
    )


def check_inhibition(stack: Stack, down: Mapping[str, str]) -> None:
    """What follows from the node is held back; the same of another node is not."""
    other = stack.node_labels(1)
    stuck = {"alertname": "ClioWorkerStuck", "severity": "critical", "scope": "node", "worker_id": "0"}
    stack.alertmanager.send([{**stuck, **down}, {**stuck, **other}])
    stack.receiver.wait_for("the alert of node 1", about("ClioWorkerStuck", "firing", 1), 30)

    def held_back() -> bool:
        (alert,) = stack.alertmanager.alerts('alertname="ClioWorkerStuck"', 'node_id="2"')
        (cause,) = stack.alertmanager.alerts('alertname="ClioNodeDown"', 'node_id="2"')
        return bool(alert["status"]["inhibitedBy"] == [cause["fingerprint"]])

    eventually("the alert of node 2 is held back", held_back, 30)
    assert stack.received("ClioWorkerStuck", "firing", 2) == []


def test_a_hung_node_is_told_apart_from_a_dead_one(stack: Stack) -> None:
    node, labels = stack.cluster.nodes[3], stack.node_labels(3)
    since = len(stack.receiver.alerts)
    node.pause()
    try:
        alert = stack.receiver.wait_for("node 3 is hung", about("ClioNodeHung", "firing", 3), 90)
        (why,) = stack.prometheus.query('clio_node_down_info{node_id="3"}')
        assert why.labels["reason"] == "hung"
    finally:
        node.resume()
    assert alert["labels"] == {"alertname": "ClioNodeHung", "severity": "critical", "scope": "node", **labels}
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#clionodehung"
    assert alert["annotations"]["dashboard_url"].endswith(f"?var-cluster={CLUSTER}&var-node=3")
    stack.receiver.wait_for("node 3 is back", about("ClioNodeHung", "resolved", 3), 120)
    assert stack.received("ClioNodeDown", "firing", 3, since) == []
