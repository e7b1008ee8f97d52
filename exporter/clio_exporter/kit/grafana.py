"""Dashboards and provisioning files for somebody's Grafana. Pure: options in, texts out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from clio_exporter.kit import search, sources

HOME: Final = "clio-topology"
SEARCH_UID: Final = "clio-node-search"

_PROVISIONED_PATH: Final = "/etc/clio/dashboards"


@dataclass(frozen=True, slots=True)
class GrafanaOptions:
    """What the files are made for.

    Attributes:
        directory: where Grafana finds the files, as an absolute path.
        control_api: base URL of the control API as browsers reach it; None when there is none.
        search_url: the same as Grafana's server reaches it; None means `control_api`.
        datasource: name of the Prometheus data source to read; None leaves the choice to a variable.
        prometheus_url: a Prometheus to provision as data source; None for one that Grafana has already.
        scrape_interval: of that Prometheus, in its own notation.
    """

    directory: str
    control_api: str | None = None
    search_url: str | None = None
    datasource: str | None = None
    prometheus_url: str | None = None
    scrape_interval: str = "15s"


def render(options: GrafanaOptions) -> dict[str, str]:
    """Every file by its path below the directory: `dashboards/` and `provisioning/`."""
    files = {f"dashboards/{name}": text for name, text in dashboards(options).items()}
    files["provisioning/dashboards/clio.yaml"] = _provider(options)
    datasources = _datasources(options)
    if datasources is not None:
        files["provisioning/datasources/clio.yaml"] = datasources
    return files


def dashboards(options: GrafanaOptions) -> dict[str, str]:
    """Every dashboard by the name of its file."""
    made = {}
    for name in sources.names("dashboards"):
        board = json.loads(sources.text(f"dashboards/{name}"))
        made[name] = json.dumps(adapted(board, options), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return made


def adapted(board: Mapping[str, Any], options: GrafanaOptions) -> dict[str, Any]:
    """A dashboard made for these names."""
    variables = [dict(each) for each in board["templating"]["list"]]
    if options.datasource is not None:
        variables = [_reading(each, options.datasource) for each in variables]
    if options.control_api is not None:
        variables = [_acting(each, options.control_api.rstrip("/")) for each in variables]
    else:
        # Nothing can be asked of it: the search has to do without that data source.
        variables = [_alone(each) for each in variables if each["name"] != "search_source"]
    return {**board, "templating": {**board["templating"], "list": variables}}


def _reading(variable: dict[str, Any], datasource: str) -> dict[str, Any]:
    """The choice of a data source, with this one only."""
    if variable["name"] != "datasource":
        return variable
    current = {"selected": True, "text": datasource, "value": datasource}
    return {**variable, "regex": f"/^{re.escape(datasource)}$/", "current": current}


def _acting(variable: dict[str, Any], url: str) -> dict[str, Any]:
    """The address that links to restart and shutdown begin with: a constant, which no link can change."""
    if variable["name"] != "control_api":
        return variable
    return {**variable, "query": url, "current": {"selected": True, "text": url, "value": url}}


def _alone(variable: dict[str, Any]) -> dict[str, Any]:
    """As it is on a page whose control API, if there is one, only its reader knows."""
    if variable["name"] == "search":
        return {**variable, "description": search.DESCRIPTION}
    if variable["name"] == "match":
        return search.variable(variable, 'cluster=~"$cluster"')
    if variable["name"] == "control_api":
        about = "Where clio-control-api answers your browser: restart and shutdown lead there."
        return {**variable, "type": "textbox", "hide": 0, "description": about}
    return variable


def _provider(options: GrafanaOptions) -> str:
    text = sources.text("provisioning/dashboards/clio.yaml")
    return text.replace(_PROVISIONED_PATH, json.dumps(f"{options.directory}/dashboards"))


def _datasources(options: GrafanaOptions) -> str | None:
    document = yaml.safe_load(sources.text("provisioning/datasources/clio.yaml"))
    kept = []
    for source in document["datasources"]:
        if source["uid"] == SEARCH_UID:
            url = options.search_url or options.control_api
        else:
            url = options.prometheus_url
            source["name"] = options.datasource or source["name"]
            source["jsonData"]["timeInterval"] = options.scrape_interval
            # Which one is the default is not ours to say in somebody's Grafana.
            source["isDefault"] = False
        if url is not None:
            # Grafana fills in environment variables; an address has none.
            kept.append({**source, "url": url.rstrip("/").replace("$", "$$")})
    if not kept:
        return None
    heading = "# Data sources of the CLIO dashboards.\n"
    return heading + yaml.safe_dump({**document, "datasources": kept}, sort_keys=False)
