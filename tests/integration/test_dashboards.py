"""Every panel of every dashboard on a real cluster: no query fails, and what is empty is rightly so.

Where the environment variable CLIO_PREVIEW names a program that renders dashboards without Grafana
(``preview.py DASHBOARD --prometheus URL --strict ...``), they are rendered too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clio_exporter.kit.grafana import GrafanaOptions, dashboards
from clio_lab.demo.cluster import LocalCluster
from tests.exporter_process import ExporterProcess, eventually
from tests.prometheus import Prometheus
from tests.system import needs_system
from tests.unit.grafana.boards import ROOT, UIDS, expand, name_of, panels

RULES = ROOT / "prometheus" / "rules"
PREVIEW = os.environ.get("CLIO_PREVIEW")

pytestmark = [
    pytest.mark.integration,
    needs_system("prometheus", "promtool"),
    pytest.mark.skipif(not RULES.is_dir(), reason="prometheus/rules is not part of this tree"),
]

# Scrapes before the dashboards are looked at.
SCRAPES = 20
EMPTY_SECONDS = 60.0
VARIABLES = {
    "__rate_interval": "10s",
    "cluster": ".*",
    "node": "0",
    "match": ".*",
    "busiest": ".*",
    "card": "All/0",
    "block": "..?",
    "job": "clio-exporter",
    "filter": "",
    "search": "",
}

MAY_BE_EMPTY_HERE = {
    "No GPU reported": "the machine has no GPU",
    "No erasure-coded array (safe_bdev)": "the cluster has no safe_bdev",
    "No array is being rebuilt": "the cluster has no safe_bdev",
    "No failure is predicted": "nothing predicts failures of these devices",
    "No device reports its health": "files and memory have no health report",
    "No other module reports statistics": "no module of the wheel does",
    "No node was down": "every node is up",
    "No alert is firing": "nothing is wrong",
    "No alert has fired": "nothing is wrong",
    "Every part of every node is well": "nothing is wrong",
    "None in sight": "nobody writes",
    "Needs the exporter's --collector.cost": "the collector is off by default",
    "No data that old yet": "the data are a minute old",
    "No jobs are told of": "no batch system runs jobs here",
    "No action was asked for": "no control API is scraped",
    "All nodes have the same settings": "one file configures them",
    "Every node runs with its file as it is": "the file was not touched",
    "No runtime configuration could be read": "the exporter is given no configuration file",
    "No compose section could be read": "the exporter is given no configuration file",
    "Nothing matches the search": "the exporter is given no configuration file",
    "No cost model has learned yet": "an idle cluster learns slowly",
}
"""What a panel shows instead of data, and why it may on an idle cluster of a minute's age."""


@pytest.fixture(scope="module")
def prometheus(cluster4: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the recording rules and some scrapes of four real nodes."""
    directory = tmp_path_factory.mktemp("dashboards")
    hosts = directory / "hosts"
    hosts.write_text("".join(f"{node.host}:{node.port}\n" for node in cluster4.nodes))
    with ExporterProcess(directory, "--hostfile", str(hosts)) as exporter:
        config = {
            "rule_files": [str(path) for path in sorted(RULES.glob("*.yml"))],
            "scrape_configs": [
                {"job_name": "clio-exporter", "static_configs": [{"targets": [exporter.address]}]}
            ],
        }
        with Prometheus(directory, config) as server:
            server.wait_for("sum(clio_node_up) == 4", seconds=120)
            server.wait_for_scrapes(SCRAPES, "clio_node_up", seconds=180)
            server.wait_for("count(node:clio_health:score) == 4", seconds=120)
            yield server


def series(prometheus: Prometheus, target: dict[str, Any]) -> int:
    expression = expand(target["expr"], VARIABLES)
    if target.get("instant"):
        return len(prometheus.query(expression))
    now = time.time()
    return len(prometheus.api("query_range", query=expression, start=now - 60, end=now, step=5)["result"])


def empty_panels(prometheus: Prometheus, uid: str) -> list[str]:
    """What is rightly empty, and why, or "none"; AssertionError where something else is.

    A node on a busy machine may answer a collector too late: its values are not in that scrape.
    """
    unexplained, explained = [], []
    for panel in panels(uid):
        found = [series(prometheus, target) for target in panel["targets"]]
        if any(found):
            continue
        shown = panel["fieldConfig"]["defaults"].get("noValue")
        if shown in MAY_BE_EMPTY_HERE:
            explained.append(f"{name_of(uid, panel)} shows {shown!r}: {MAY_BE_EMPTY_HERE[shown]}")
        else:
            unexplained.append(f"{name_of(uid, panel)} shows {shown!r}")
    assert unexplained == []
    return explained or ["none"]


@pytest.mark.parametrize("uid", UIDS)
def test_panels_have_data_or_say_why_not(
    prometheus: Prometheus, uid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    explained = eventually(f"data in {uid}", lambda: empty_panels(prometheus, uid), EMPTY_SECONDS, pause=1)
    with capsys.disabled():
        print("".join(f"\n  empty: {line}" for line in explained), end="")


@pytest.mark.skipif(not PREVIEW, reason="CLIO_PREVIEW names no program that renders dashboards")
@pytest.mark.parametrize("control_api", ["http://127.0.0.1:9", None], ids=["control API", "no control API"])
@pytest.mark.parametrize("uid", UIDS)
def test_rendering_is_clean(
    prometheus: Prometheus, uid: str, control_api: str | None, tmp_path: Path
) -> None:
    """As the kit writes them for other names."""
    assert PREVIEW is not None
    may_be_empty = [
        str(panel["id"])
        for panel in panels(uid)
        if panel["fieldConfig"]["defaults"].get("noValue") in MAY_BE_EMPTY_HERE
    ]
    options = GrafanaOptions("/kit", control_api=control_api, datasource="Another Prometheus")
    board = json.loads(dashboards(options)[f"{uid}.json"])
    if control_api is not None:
        # The renderer has one data source only; without the node search its variable would find no node.
        board = json.loads(json.dumps(board).replace("$match", ".*"))
        kept = [variable for variable in board["templating"]["list"] if variable["name"] != "match"]
        board["templating"]["list"] = kept
    path = tmp_path / f"{uid}.json"
    path.write_text(json.dumps(board), encoding="utf-8")
    command = [PREVIEW, str(path), "--prometheus", prometheus.url, "--scrape-interval", "1s", "--strict"]
    command += ["--from", "now-1m", "--out", str(tmp_path / f"{uid}.png")]
    if may_be_empty:
        command += ["--allow-empty", ",".join(may_be_empty)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


RECORDED = re.compile(r"\b(?:node|cluster|tier|node_tier|bdev|worker|safe_bdev):clio_|\bALERTS\b")


def test_the_page_names_the_panels_that_need_the_rules(tmp_path: Path, cluster4: LocalCluster) -> None:
    """A Prometheus that has the samples and not the rules: which panels are empty for that reason."""
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"{node.host}:{node.port}\n" for node in cluster4.nodes))
    needy = set()
    with ExporterProcess(tmp_path, "--hostfile", str(hosts)) as exporter:
        scraped = {"job_name": "clio-exporter", "static_configs": [{"targets": [exporter.address]}]}
        with Prometheus(tmp_path, {"scrape_configs": [scraped]}) as server:
            server.wait_for_scrapes(SCRAPES, "clio_node_up", seconds=180)
            for uid in UIDS:
                for panel in panels(uid):
                    needs = [target for target in panel["targets"] if RECORDED.search(target["expr"])]
                    # A panel with other queries too may be empty for reasons of the cluster.
                    if len(needs) == len(panel["targets"]) and not any(series(server, t) for t in needs):
                        needy.add(panel["title"])
    table = (
        (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8").partition("empty without the rules")[2]
    )
    table = table.partition("\n\n")[0]
    assert {title for title in needy if not title.startswith("vs. ") and title not in table} == set()
    assert {"vs. 1 h ago", "vs. 1 d ago"} <= needy
