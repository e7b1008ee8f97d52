"""Links between dashboards, and to the control API. They keep time range, data source and selection."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

TAG: Final = "clio"

TITLES: Final = {
    "clio-topology": "Topology",
    "clio-node": "Node",
    "clio-pools": "Pools",
    "clio-config": "Configuration",
    "clio-scheduler": "Scheduler",
    "clio-storage": "Storage tiers",
    "clio-health": "Cluster health",
    "clio-exporter": "Exporter",
}
"""Dashboards by uid, in the order in which they are linked."""

_KEEP: Final = "${datasource:queryparam}&${__url_time_range}"


def navigation(own_uid: str) -> list[builders.DashboardLink]:
    """One link to each of the other dashboards."""
    return [
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{uid}")
        .icon("dashboard")
        .tooltip(f"Open {title} with the same time range and selection")
        .include_vars(True)
        .keep_time(True)
        for uid, title in TITLES.items()
        if uid != own_uid
    ]


def _data_link(title: str, url: str, new_tab: bool = False) -> builders.DashboardLink:
    return builders.DashboardLink(title).url(url).target_blank(new_tab)


def node_from_row() -> builders.DashboardLink:
    """From a table row with the fields ``cluster`` and ``node_id`` to that node's page."""
    return _data_link(
        "Open node ${__data.fields.node_id}",
        "/d/clio-node?var-cluster=${__data.fields.cluster}&var-node=${__data.fields.node_id}&" + _KEEP,
    )


def node_from_series() -> builders.DashboardLink:
    """From a series with the labels ``cluster`` and ``node_id`` to that node's page."""
    return _data_link(
        "Open node ${__field.labels.node_id}",
        "/d/clio-node?var-cluster=${__field.labels.cluster}&var-node=${__field.labels.node_id}&" + _KEEP,
    )


def action_from_row(action: str) -> builders.DashboardLink:
    """To the control API's page that asks for confirmation of `action` (restart, shutdown)."""
    return _data_link(
        f"{action.capitalize()} node ${{__data.fields.node_id}} (asks first)",
        f"${{control_api}}/nodes/${{__data.fields.node_id}}/{action}${{__data.fields.which}}",
        new_tab=True,
    )


def rolling(action: str, title: str) -> builders.DashboardLink:
    """To the control API's page that plans `action` (restart, shutdown) of the nodes that are searched for."""
    return (
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(
            f"${{control_api}}/operations/{action}?cluster=${{cluster:percentencode}}&nodes=${{search:percentencode}}"
        )
        .icon("bolt")
        .tooltip("Shows a plan of the nodes that are searched for, and asks first")
        .target_blank(True)
    )


def to_dashboard(uid: str, title: str) -> builders.DashboardLink:
    """From anywhere to another dashboard with the same selection."""
    return _data_link(title, f"/d/{uid}?${{cluster:queryparam}}&{_KEEP}")
