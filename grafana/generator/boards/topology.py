"""Topology: which nodes are in trouble. The home dashboard."""

from __future__ import annotations

from typing import Any, Final

from grafana.generator import links, thresholds, variables
from grafana.generator.board import Board
from grafana.generator.panels import Column, Query, Section, Tile, bars, number, override, rows, tiles
from grafana.generator.queries import (
    CLUSTER,
    FOUND,
    IN_BLOCK,
    KEYS,
    actionable,
    address,
    linkable,
    named,
    on_card,
    per_device,
    per_node,
    per_worker,
    rate,
    severity,
    status,
    status_with_leader,
    with_address,
)

# Alerts of the nodes that are selected and found, and those of no node.
_ALERT: Final = f'{CLUSTER}, node_id=~"$node|", node_id=~"$match|"'
_IN_BLOCK: Final = f"{FOUND}, {IN_BLOCK}"
_NO_JUDGEMENT: Final = override("color", {"mode": "fixed", "fixedColor": thresholds.NEUTRAL})


def board(control_api: str) -> Board:
    """The dashboard."""
    return Board(
        uid="clio-topology",
        question="Which nodes of the CLIO clusters are in trouble, and where to look next.",
        variables=[
            variables.cluster(),
            *variables.search(),
            variables.found_node(),
            variables.cards(),
            variables.blocks(FOUND),
            variables.control_api(control_api),
        ],
        actions=[links.rolling("restart", "Restart nodes"), links.rolling("shutdown", "Shut down nodes")],
        sections=[
            Section("", [_card(), *_totals()]),
            Section("All nodes", [_map(), _alerts(), _table()]),
        ],
    )


def _total(*arguments: Any, **options: Any) -> Tile:
    return number(*arguments, height=3, **options)


def _totals() -> list[Tile]:
    up = per_node("clio_node_up", FOUND)
    return [
        _total(
            "Nodes up",
            "Nodes whose runtime answered the last scrape (clio_node_up). Compare it with the nodes down "
            "beside it.",
            f"sum({up})",
            decimals=0,
        ),
        _total(
            "Nodes down",
            "Nodes whose runtime did not answer the last scrape: dead, hung or unreachable (clio_node_up = 0). "
            "Anything but 0 is bad; the table says why.",
            f"sum(1 - {up})",
            band=thresholds.ANY_IS_BAD,
            decimals=0,
        ),
        _total(
            "Degraded",
            "Nodes that answer, and have a health score under 60: old samples, stuck workers, full memory or "
            "storage (node:clio_health:score). The Cluster health dashboard tells which part.",
            f"sum(({per_node('node:clio_health:score', FOUND)} < bool 60) * on ({KEYS}) {up})",
            band=thresholds.ANY_IS_WORTH_A_LOOK,
            decimals=0,
            empty="No health score: are the recording rules loaded?",
        ),
        _total(
            "Leader",
            "The node that leads each cluster (clio_node_leader = 1). None, or two of one cluster, is bad.",
            linkable(f"{per_node('clio_node_leader', FOUND)} == 1"),
            label="hostname",
            empty="No node says it leads",
            links=[links.node_from_row()],
        ),
        _total(
            "Firing alerts",
            "Alerts of the CLIO rules that fire now (ALERTS). The list is below.",
            f'count(ALERTS{{alertname=~"Clio.+", alertstate="firing", {_ALERT}}}) '
            f"or 0 * count(node:clio_node_up:max{{{CLUSTER}}})",
            band=thresholds.ANY_IS_BAD,
            decimals=0,
            empty="Rules not loaded",
        ),
        _total(
            "Tasks/s",
            "Tasks all workers complete a second (clio_worker_tasks_processed_total), including the runtime's "
            "own periodic ones.",
            f"sum({rate('clio_worker_tasks_processed_total', FOUND)})",
            unit="short",
            trend=True,
        ),
        _total(
            "Tasks waiting",
            "Tasks queued or blocked on all workers (clio_worker_queued_tasks + clio_worker_blocked_tasks). "
            "Bad when it grows and does not fall.",
            f"sum({per_worker('clio_worker_queued_tasks', FOUND)}) "
            f"+ sum({per_worker('clio_worker_blocked_tasks', FOUND)})",
            trend=True,
            decimals=0,
        ),
        _total(
            "Storage used",
            "Allocated share of all block devices (clio_bdev_free_bytes, clio_bdev_capacity_bytes). "
            "From 90 % it wants a look.",
            f"1 - sum({per_device('clio_bdev_free_bytes', FOUND)}) "
            f"/ sum({per_device('clio_bdev_capacity_bytes', FOUND)})",
            unit="percentunit",
            band=thresholds.STORAGE_USED,
            decimals=1,
            empty="No block device reports",
        ),
    ]


def _map() -> Tile:
    return tiles(
        "Nodes $block",
        "One tile a node, by id: green up, orange up but not well, red down, purple hung (it accepts "
        "connections and does not answer). From clio_node_up, clio_node_down_info and node:clio_health:score. "
        "Click a tile for the node's page.",
        named(status(_IN_BLOCK), FOUND),
        mapping=thresholds.NODE_STATUS,
        links=[links.node_from_row()],
        empty="No node matches the search",
    )


def _alerts() -> Tile:
    return rows(
        "Firing alerts",
        "Alerts of the CLIO rules that fire now, worst first (ALERTS). The dashboard and runbook of each are "
        "in its annotations in Prometheus and Alertmanager; click a node for its page.",
        [
            linkable(severity("cluster, alertname, node_id, hostname", _ALERT)),
        ],
        [
            Column(
                "Value",
                "Severity",
                width=95,
                cell="colour",
                mapping=thresholds.SEVERITY,
            ),
            Column("alertname", "Alert", width=300),
            Column("node_id", "Node", width=70, links=[links.node_from_row()]),
            Column("hostname", "Host"),
            Column("cluster", "Cluster", width=150, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Severity",
        height=5,
        empty="No alert is firing",
    )


def _card() -> Tile:
    memory_used = (
        f"1 - {per_node('clio_node_memory_available_bytes', FOUND)} "
        f"/ {per_node('clio_node_memory_total_bytes', FOUND)}"
    )
    hbm_used = (
        f"{per_node('clio_node_hbm_used_bytes', FOUND)} / {per_node('clio_node_hbm_total_bytes', FOUND)}"
    )
    down = f"max by ({KEYS}, reason) (clio_node_down_info{{{FOUND}}})"
    hung = f'max by ({KEYS}, reason) (clio_node_down_info{{{FOUND}, reason="hung"}})'
    return bars(
        "Node $card",
        "Status, processor, main memory, and where the node has GPUs their use and memory. From clio_node_up, "
        "clio_node_cpu_utilization_ratio, clio_node_memory_available_bytes, clio_node_gpu_utilization_ratio "
        "and clio_node_hbm_used_bytes. A bar that is missing was not reported; of a node that is down there is the reason instead "
        "(clio_node_down_info). Click for the node's page.",
        [
            Query(on_card(with_address(status_with_leader(FOUND), FOUND)), "{{ip}}"),
            Query(on_card(per_node("clio_node_cpu_utilization_ratio", FOUND)), "CPU"),
            Query(on_card(memory_used), "Memory"),
            Query(on_card(per_node("clio_node_gpu_utilization_ratio", FOUND)), "GPU"),
            Query(on_card(hbm_used), "GPU memory"),
            Query(on_card(f"2 * {hung} or {down}"), "{{reason}}"),
        ],
        band=thresholds.MEMORY_USED,
        mapping=thresholds.NODE_STATUS,
        repeat="card",
        per_row=4,
        width=6,
        height=5,
        links=[links.node_from_series()],
        overrides=[
            # A full bar for every status, also for 0, down.
            ("A", [override("min", -1), override("max", 0), override("unit", "none")]),
            ("B", [_NO_JUDGEMENT]),
            ("D", [_NO_JUDGEMENT]),
            ("E", [thresholds.as_property(thresholds.HBM_USED)]),
            # The reason is the bar's name; its value is 1, and 2 of a node that hangs.
            (
                "F",
                [
                    override(
                        "mappings",
                        thresholds.mappings({"1": ("", thresholds.BAD), "2": ("", thresholds.HUNG)}),
                    )
                ],
            ),
        ],
    )


def _table() -> Tile:
    used = (
        f"1 - sum by ({KEYS}) ({per_device('clio_bdev_free_bytes', FOUND)}) "
        f"/ sum by ({KEYS}) ({per_device('clio_bdev_capacity_bytes', FOUND)})"
    )
    queries = [
        status(FOUND),
        per_node("clio_node_leader", FOUND),
        per_node("clio_node_cpu_utilization_ratio", FOUND),
        f"1 - {per_node('clio_node_memory_available_bytes', FOUND)} "
        f"/ {per_node('clio_node_memory_total_bytes', FOUND)}",
        per_node("clio_node_gpu_utilization_ratio", FOUND),
        used,
        f"sum by ({KEYS}) ({per_worker('clio_worker_queued_tasks', FOUND)} "
        f"+ {per_worker('clio_worker_blocked_tasks', FOUND)})",
        f"sum by ({KEYS}) ({rate('clio_worker_tasks_processed_total', FOUND)})",
        per_node("node:clio_health:score", FOUND),
        actionable(address(FOUND)),
        f"max by ({KEYS}, reason) (clio_node_down_info{{{FOUND}}})",
    ]
    return rows(
        "All nodes",
        "Every node, worst first; click a heading to sort, a node for its page. Restart and Shut down open a "
        "page of the control API that asks first. Empty cells were not reported. From clio_node_up and the "
        "other clio_node_*, clio_bdev_* and clio_worker_* metrics.",
        [linkable(query) for query in queries],
        [
            Column("A", "Status", width=88, cell="background", mapping=thresholds.NODE_STATUS),
            Column("node_id", "Node", width=55, links=[links.node_from_row()]),
            Column("hostname", "Host", width=103, links=[links.node_from_row()]),
            Column("ip", "IP address", width=110),
            Column("B", "Leader", width=65, cell="colour", mapping=thresholds.LEADER),
            Column("I", "Health", width=65, cell="colour", band=thresholds.SCORE, decimals=0, unit="none"),
            *(
                # An empty bar would look like 0 %: a node without GPU has an empty cell.
                Column(ref, title, "percentunit", width, cell, band, decimals=0, low=0, high=1)
                for ref, title, width, cell, band in (
                    ("C", "CPU", 104, "gauge", None),
                    ("D", "Memory", 104, "gauge", thresholds.MEMORY_USED),
                    ("E", "GPU", 50, "text", None),
                    ("F", "Storage", 104, "gauge", thresholds.STORAGE_USED),
                )
            ),
            Column("G", "Waiting", "short", 70, "colour", thresholds.QUEUED),
            Column("H", "Tasks/s", "short", 70),
            Column("reason", "Why down", width=110),
            Column("restart", "Restart", width=70, links=[links.action_from_row("restart")]),
            Column("shutdown", "Shut down", width=85, links=[links.action_from_row("shutdown")]),
            Column("which", "which", hidden=True),
            Column("cluster", "Cluster", width=90, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Status",
        descending=False,
        height=8,
        drop=("Value #J", "Value #K"),
        empty="No node matches the search",
    )
