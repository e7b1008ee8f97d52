"""Debian's own Prometheus scrapes the exporter as the documentation says; promtool finds nothing to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from clio_lab.demo.cluster import LocalCluster
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess, Scrape, free_port
from tests.paths import ROOT
from tests.prometheus import Prometheus, promtool
from tests.system import needs_system
from tests.unit.web.support import Authority, client_context, write

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool")]

REPOSITORY = ROOT
NODES = 4
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}

# What is still true of a node that is down.
DOWN_FAMILIES = {"clio_node_up", "clio_node_down_info", "clio_node_info", "clio_node_probe_duration_seconds"}


@dataclass
class Simulated:
    """A simulator and the hostfile of its nodes."""

    process: SimulatorProcess
    hostfile: Path
    targets: list[str]


@pytest.fixture(scope="module")
def _simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    hostfile = tmp_path_factory.mktemp("simulator") / "hosts"
    base = str(free_port())
    options = ["--nodes", str(NODES), "--workers", "3", "--bdevs", "2", "--age", "100"]
    with SimulatorProcess(*options, "--base-port", base, "--hostfile", str(hostfile)) as process:
        yield Simulated(process, hostfile, hostfile.read_text().split())


@pytest.fixture
def simulated(_simulator: Simulated) -> Iterator[Simulated]:
    """Four healthy simulated nodes; what a test did to them is taken back."""
    yield _simulator
    _simulator.process.clear()


def documented(path: str, job: str) -> list[dict[str, Any]]:
    """The scrape_configs of the YAML example in a document that has this job."""
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        document = yaml.safe_load(block)
        if isinstance(document, dict) and "scrape_configs" in document:
            jobs: list[dict[str, Any]] = document["scrape_configs"]
            if any(found["job_name"] == job for found in jobs):
                return jobs
    raise AssertionError(f"{path} has no example with the job {job}")


def at_address(jobs: list[dict[str, Any]], address: str) -> dict[str, Any]:
    """A configuration with these jobs, `exporter-host:9777` replaced and intervals fit for a test."""
    text = yaml.safe_dump({"scrape_configs": jobs})
    assert "exporter-host:9777" in text
    config: dict[str, Any] = yaml.safe_load(text.replace("exporter-host:9777", address))
    for job in config["scrape_configs"]:
        job.pop("scrape_interval", None)
        job.pop("scrape_timeout", None)
        for discovery in job.get("http_sd_configs", ()):
            discovery["refresh_interval"] = "1s"
    return config


def clio_names(prometheus: Prometheus, selector: str, at: float | None = None) -> set[str]:
    """Names of the series that are not stale."""
    names = {sample.labels["__name__"] for sample in prometheus.query(f"{{{selector}}}", at)}
    return {name for name in names if name.startswith("clio_")}


def first_time(prometheus: Prometheus, selector: str, value: float) -> float:
    """When the scrape was that first stored this value (since the last one that stored another)."""
    found: float | None = None
    for at, stored in prometheus.history(selector):
        if stored != value:
            found = None
        elif found is None:
            found = at
    assert found is not None, f"{selector} never was {value} at last"
    return found


# --- formats ------------------------------------------------------------------------------------------


def check_formats(exporter: ExporterProcess) -> None:
    for path in ("/metrics", f"/probe?target={probe_target(exporter)}"):
        text = exporter.get(path)
        assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        checked = promtool("check", "metrics", stdin=text.text)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        strict = exporter.get(path, headers=OPENMETRICS)
        assert strict.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        families = list(parse_openmetrics(strict.text))
        # Both formats tell the same: the series, if not their values, which move.
        in_openmetrics = {
            (sample.name, frozenset(sample.labels.items()))
            for family in families
            for sample in family.samples
        }
        plain = Scrape(text.text)
        in_text = {(name, frozenset(labels.items())) for name in plain for labels, _ in plain.series(name)}
        ours = {entry for entry in in_text if entry[0].startswith("clio_node")}
        assert ours
        assert ours == {entry for entry in in_openmetrics if entry[0].startswith("clio_node")}


def probe_target(exporter: ExporterProcess) -> str:
    labels, _ = exporter.scrape().series("clio_node_info", node_id="0")[0]
    return f"{labels['address']}:{labels['port']}"


def test_promtool_and_the_strict_parser_accept_a_simulated_cluster(
    simulated: Simulated, tmp_path: Path
) -> None:
    with ExporterProcess(tmp_path, "--hostfile", str(simulated.hostfile)) as exporter:
        exporter.scrape_until("all nodes up", lambda s: len(s.series("clio_worker_running")) == 3 * NODES)
        check_formats(exporter)
        simulated.process.set_fault(1, "refused")
        simulated.process.set_fault(2, "garbage")
        exporter.scrape_until(
            "two nodes are down", lambda s: sum(s.by("node_id", "clio_node_up").values()) == NODES - 2
        )
        check_formats(exporter)


def test_promtool_and_the_strict_parser_accept_a_real_runtime(cluster4: LocalCluster, tmp_path: Path) -> None:
    hostfile, config = str(cluster4.hostfile), str(cluster4.nodes[0].config_path)
    with ExporterProcess(tmp_path, "--hostfile", hostfile, "--runtime-config", config) as exporter:
        exporter.scrape_until("all nodes up", lambda s: sum(s.by("node_id", "clio_node_up").values()) == 4)
        check_formats(exporter)
        jobs = [{"job_name": "clio", "static_configs": [{"targets": [exporter.address]}]}]
        with Prometheus(tmp_path, {"scrape_configs": jobs}) as prometheus:
            prometheus.wait_for("sum(clio_node_up) == 4")
            prometheus.wait_for_scrapes(3)
            assert prometheus.target_errors() == {}
            # Whatever the exporter serves is stored: nothing was dropped as a duplicate or out of order.
            assert prometheus.value('scrape_samples_scraped{job="clio"}') >= 300
            assert clio_names(prometheus, 'job="clio"') == {
                name for name in exporter.scrape().names if name.startswith("clio_")
            }
            prometheus.wait_for("rate(clio_worker_tasks_processed_total[10s]) > 0")


# --- a server that scrapes /metrics -------------------------------------------------------------------


def test_a_server_follows_nodes_and_exporter(simulated: Simulated, tmp_path: Path) -> None:
    """`up`, sample count and staleness, with the example of docs/operations.md."""
    arguments = ("--hostfile", str(simulated.hostfile))
    with ExporterProcess(tmp_path, *arguments) as exporter:
        config = at_address(documented("docs/operations.md", "clio-exporter"), exporter.address)
        with Prometheus(tmp_path, config) as prometheus:
            prometheus.wait_for(f"sum(clio_node_up) == {NODES}")
            assert prometheus.value('up{job="clio-exporter"}') == 1
            all_names = clio_names(prometheus, 'node_id="1"')
            assert {
                "clio_worker_running",
                "clio_bdev_capacity_bytes",
                "clio_node_cpu_utilization_ratio",
            } <= all_names
            complete = prometheus.value("scrape_samples_scraped")
            node_series = prometheus.value('count({node_id="1"})')
            others = prometheus.value('count({node_id=~"[023]"})')

            simulated.process.set_fault(1, "refused")
            prometheus.wait_for('clio_node_up{node_id="1"} == 0')
            went = first_time(prometheus, 'clio_node_up{node_id="1"}', 0)
            # In the very scrape that says so all else of the node has ended, and nothing of the others.
            assert clio_names(prometheus, 'node_id="1"', went) == DOWN_FAMILIES
            assert prometheus.query('clio_node_down_info{node_id="1"}', went)[0].labels["reason"] in {
                "refused",
                "connection_lost",
            }
            assert prometheus.query('count({node_id=~"[023]"})', went)[0].value == others
            assert prometheus.query("up", went)[0].value == 1
            assert prometheus.query("scrape_samples_scraped", went)[0].value < complete - node_series / 2

            simulated.process.clear(1)
            prometheus.wait_for('clio_node_up{node_id="1"} == 1')
            prometheus.wait_for(f'count({{node_id="1"}}) == {node_series}')
            prometheus.wait_for(f"scrape_samples_scraped == {complete}")

            exporter.stop()
            prometheus.wait_for("up == 0")
            went = first_time(prometheus, "up", 0)
            assert clio_names(prometheus, 'job="clio-exporter"', went) == set()
            assert prometheus.query("scrape_samples_scraped", went)[0].value == 0

            with ExporterProcess(tmp_path, *arguments, port=exporter.port, reply_port=exporter.reply_port):
                prometheus.wait_for("up == 1")
                prometheus.wait_for(f"sum(clio_node_up) == {NODES}")
                prometheus.wait_for(f"scrape_samples_scraped == {complete}")
                assert prometheus.target_errors() == {}
    assert simulated.process.stats()["violations"] == {}


def test_a_hung_node_costs_only_its_own_series(simulated: Simulated, tmp_path: Path) -> None:
    with ExporterProcess(
        tmp_path, "--hostfile", str(simulated.hostfile), "--runtime.timeout=500ms"
    ) as exporter:
        jobs = [{"job_name": "clio", "static_configs": [{"targets": [exporter.address]}]}]
        with Prometheus(tmp_path, {"scrape_configs": jobs}) as prometheus:
            prometheus.wait_for(f"sum(clio_node_up) == {NODES}")
            prometheus.wait_for_scrapes(2)  # whatever the first one was too early for is there
            others = prometheus.value('count({node_id=~"[013]"})')
            simulated.process.set_fault(2, "silent")
            prometheus.wait_for('clio_node_down_info{node_id="2", reason="hung"}')
            went = first_time(prometheus, 'clio_node_up{node_id="2"}', 0)
            assert clio_names(prometheus, 'node_id="2"', went) == DOWN_FAMILIES
            prometheus.wait_for_scrapes(3)
            assert prometheus.value('min_over_time(up{job="clio"}[1m])') == 1
            assert prometheus.value('count({node_id=~"[013]"})') == others
            simulated.process.clear(2)
            # What it was asked while it was silent is lost and keeps its place; a restart ends the wait.
            simulated.process.restart_node(2)
            prometheus.wait_for('clio_node_up{node_id="2"} == 1')


# --- discovery and probes -----------------------------------------------------------------------------


def test_discovery_and_probes_as_documented(simulated: Simulated, tmp_path: Path) -> None:
    """The example for large clusters in docs/operations.md, from membership to staleness."""
    hostfile = write(tmp_path / "hosts", "".join(f"{target}\n" for target in simulated.targets[:3]))
    with ExporterProcess(tmp_path, "--hostfile", str(hostfile)) as exporter:
        config = at_address(documented("docs/operations.md", "clio-nodes"), exporter.address)
        assert {job["job_name"] for job in config["scrape_configs"]} == {"clio-nodes", "clio-exporter"}
        with Prometheus(tmp_path, config) as prometheus:
            prometheus.wait_for('sum(clio_node_up{job="clio-nodes"}) == 3')
            targets = prometheus.api("targets", state="active")["activeTargets"]
            nodes = [target for target in targets if target["scrapePool"] == "clio-nodes"]
            assert {target["labels"]["instance"] for target in nodes} == set(simulated.targets[:3])
            for target in nodes:
                assert target["discoveredLabels"]["__meta_clio_hostname"]
                assert target["discoveredLabels"]["__meta_clio_node_id"].isdigit()
                assert f"//{exporter.address}/probe?target=" in target["scrapeUrl"]
            assert {sample.value for sample in prometheus.wait_for("up")} == {1}
            # Each series is there once, from the probe of its node; the exporter's own from the other job.
            for index, target in enumerate(simulated.targets[:3]):
                samples = prometheus.query(f'clio_worker_running{{node_id="{index}"}}')
                assert {sample.labels["instance"] for sample in samples} == {target}
                assert len(samples) == 3
            prometheus.wait_for('clio_exporter_build_info{job="clio-exporter"}')
            own = clio_names(prometheus, 'job="clio-exporter"')
            assert not {name for name in own if name.startswith(("clio_node", "clio_worker", "clio_bdev"))}
            assert clio_names(prometheus, 'job="clio-nodes"') & own == set()

            simulated.process.set_fault(0, "refused")
            prometheus.wait_for('clio_node_up{node_id="0"} == 0')
            went = first_time(prometheus, 'clio_node_up{node_id="0"}', 0)
            assert clio_names(prometheus, 'node_id="0"', went) == DOWN_FAMILIES
            # The probe itself worked: `up` is about the exporter, `clio_node_up` about the node.
            assert prometheus.query(f'up{{instance="{simulated.targets[0]}"}}', went)[0].value == 1
            simulated.process.clear(0)
            prometheus.wait_for('clio_node_up{node_id="0"} == 1')

            # A node that joins is discovered, one that leaves ends.
            write(hostfile, "".join(f"{target}\n" for target in simulated.targets[1:]))
            prometheus.wait_for(f'clio_node_up{{instance="{simulated.targets[3]}"}} == 1')
            prometheus.wait_for(
                f'{{instance="{simulated.targets[0]}"}}', lambda samples: samples == [], seconds=90
            )

            exporter.stop()
            prometheus.wait_for("up", lambda samples: {sample.value for sample in samples} == {0})
            assert clio_names(prometheus, 'job=~"clio-.*"') == set()


# --- TLS and passwords --------------------------------------------------------------------------------


def test_tls_and_basic_auth(simulated: Simulated, tmp_path: Path) -> None:
    authority = Authority()
    authority.issue(tmp_path, "server")
    ca = write(tmp_path / "ca.pem", authority.pem)
    password = "correct horse"
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()
    web = {
        "tls_server_config": {"cert_file": "server.pem", "key_file": "server.key"},
        "basic_auth_users": {"prometheus": hashed},
    }
    web_file = write(tmp_path / "web.yml", yaml.safe_dump(web))
    with ExporterProcess(
        tmp_path,
        f"--web.config.file={web_file}",
        "--hostfile",
        str(simulated.hostfile),
        tls=client_context(authority),
        user=("prometheus", password),
    ) as exporter:
        access = {
            "scheme": "https",
            "tls_config": {"ca_file": str(ca)},
            "basic_auth": {"username": "prometheus", "password": password},
        }
        static = {"static_configs": [{"targets": [exporter.address]}]}
        probes = documented("docs/operations.md", "clio-nodes")[0]
        discovery = {
            "url": f"https://{exporter.address}/sd",
            "refresh_interval": "1s",
            "tls_config": access["tls_config"],
            "basic_auth": access["basic_auth"],
        }
        relabelling = yaml.safe_load(
            yaml.safe_dump(probes["relabel_configs"]).replace("exporter-host:9777", exporter.address)
        )
        jobs: list[dict[str, Any]] = [
            {"job_name": "clio", **access, **static},
            {
                "job_name": "nodes",
                "metrics_path": "/probe",
                **access,
                "http_sd_configs": [discovery],
                "relabel_configs": relabelling,
            },
            {
                "job_name": "wrong-password",
                **access,
                "basic_auth": {"username": "prometheus", "password": "wrong"},
                **static,
            },
            {"job_name": "no-password", "scheme": "https", "tls_config": access["tls_config"], **static},
            {
                "job_name": "unknown-authority",
                "scheme": "https",
                "basic_auth": access["basic_auth"],
                **static,
            },
            {"job_name": "plain-http", "basic_auth": access["basic_auth"], **static},
        ]
        with Prometheus(tmp_path, {"scrape_configs": jobs}) as prometheus:
            prometheus.wait_for(f'sum(clio_node_up{{job="clio"}}) == {NODES}')
            prometheus.wait_for(f'sum(clio_node_up{{job="nodes"}}) == {NODES}')
            prometheus.wait_for("up", lambda samples: len(samples) == NODES + 5)
            up = {sample.labels["job"]: sample.value for sample in prometheus.query("up")}
            assert up == {
                "clio": 1,
                "nodes": 1,
                "wrong-password": 0,
                "no-password": 0,
                "unknown-authority": 0,
                "plain-http": 0,
            }
            errors = {
                target["scrapePool"]: target["lastError"]
                for target in prometheus.api("targets", state="active")["activeTargets"]
            }
            assert "401" in errors["wrong-password"]
            assert "401" in errors["no-password"]
            assert "unknown authority" in errors["unknown-authority"]
            assert errors["plain-http"]
            assert (
                clio_names(prometheus, 'job=~"wrong-password|no-password|unknown-authority|plain-http"')
                == set()
            )
        assert password not in exporter.log
        assert hashed not in exporter.log
