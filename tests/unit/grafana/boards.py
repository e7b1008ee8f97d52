"""The committed dashboards as tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.paths import ROOT

DIRECTORY = ROOT / "grafana" / "dashboards"
UIDS = (
    "clio-config", "clio-exporter", "clio-health", "clio-node",
    "clio-pools", "clio-scheduler", "clio-storage", "clio-topology",
)  # fmt: skip

BUILT_IN = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}


@dataclass(frozen=True)
class Promql:
    """One query, where it is, and what shows its labels."""

    uid: str
    where: str
    text: str
    legend: str = ""
    target: Any = None


@cache
def load(uid: str) -> Any:
    return json.loads((DIRECTORY / f"{uid}.json").read_text(encoding="utf-8"))


def panels(uid: str, rows: bool = False) -> list[Any]:
    """All panels in reading order, those of closed rows too."""
    found = [inner for panel in load(uid)["panels"] for inner in (panel, *panel.get("panels", ()))]
    return [panel for panel in found if rows or panel["type"] != "row"]


def grids(uid: str) -> list[list[Any]]:
    """Panels that share a grid: those that are seen at once, and those inside each closed row."""
    shown = load(uid)["panels"]
    return [shown, *(panel["panels"] for panel in shown if panel.get("panels"))]


def variables(uid: str) -> list[Any]:
    return list(load(uid)["templating"]["list"])


def name_of(uid: str, panel: Any) -> str:
    return f"{uid} {panel['id']} {panel['title']!r}"


def expand(text: str, values: dict[str, str] | None = None) -> str:
    """`text` with variables filled in: built-in ones, then `values`, then a name for any other."""
    known = {**BUILT_IN, **(values or {})}
    return re.sub(r"\$(?:\{(\w+)[^}]*\}|([A-Za-z_]\w*))", lambda m: known.get(m[1] or m[2], "some"), text)


def promql_of_variable(query: str) -> str | None:
    """The PromQL inside ``label_values(x, y)`` or ``query_result(x)``; None for a plain label."""
    if match := re.fullmatch(r"query_result\((.*)\)", query, re.DOTALL):
        return match[1]
    match = re.fullmatch(r"label_values\((.*), *\w+\)", query, re.DOTALL)
    return match[1] if match else None


def queries(uid: str) -> Iterator[Promql]:
    """Everything a dashboard asks Prometheus."""
    for panel in panels(uid):
        for target in panel["targets"]:
            where = f"{name_of(uid, panel)} {target['refId']}"
            yield Promql(uid, where, target["expr"], target.get("legendFormat", ""), target)
    for variable in variables(uid):
        if variable["type"] == "query":
            text = promql_of_variable(variable["query"]["query"])
            assert text is not None, variable["name"]
            yield Promql(uid, f"{uid} ${variable['name']}", text)
    for annotation in load(uid).get("annotations", {}).get("list", []):
        yield Promql(uid, f"{uid} annotation {annotation['name']!r}", annotation["expr"])


def rules(directory: Path) -> list[Any]:
    """Every rule of the Prometheus rule files in a directory."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def all_queries() -> list[Promql]:
    return [query for uid in UIDS for query in queries(uid)]
