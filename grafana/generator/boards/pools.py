"""Pools: which modules run where, how they are chained, what they report."""

from __future__ import annotations

from grafana.generator import links, thresholds, variables
from grafana.generator.board import Board
from grafana.generator.panels import Column, Query, Section, Tile, bars, graph, lines, number, rows
from grafana.generator.queries import BDEV_KEYS, CLUSTER, NODE, linkable

_NO_COMPOSE = "No compose section could be read"
_OWN_NAMES = "a name of its own on each node"
_DEVICES = 'module!~".*_bdev"'


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="clio-pools",
        question="Which pools run on which nodes, how tasks pass from one to the next, what they report.",
        variables=[variables.cluster(), variables.node()],
        sections=[
            Section("", _totals()),
            Section("The chain of pools", [_chain(), _modules()]),
            Section("All pools", [_pools()]),
            Section("What the pools report", _statistics()),
            Section("Statistics of other modules", [_other_modules()], collapsed=True),
        ],
    )


def _totals() -> list[Tile]:
    pools = f"max by (cluster, pool_id) (clio_pool_info{{{NODE}}})"
    return [
        number(
            "Pools",
            "Pools with a container on the selected nodes (clio_pool_info).",
            f"count({pools})",
            width=4,
            decimals=0,
        ),
        number(
            "Modules",
            "Different modules those pools are made of (clio_pool_info).",
            f"count(max by (module) (clio_pool_info{{{NODE}}}))",
            width=4,
            decimals=0,
        ),
        number(
            "Containers",
            "Containers of all pools: one a pool and node (clio_pool_info).",
            f"count(max by (cluster, node_id, pool_id, container_id) (clio_pool_info{{{NODE}}}))",
            width=4,
            decimals=0,
        ),
        number(
            "Not running",
            "Pools of the compose section that no node of the cluster runs (clio_composed_pool_info without "
            "clio_pool_info). Anything but 0 is bad: creating the pool failed.",
            f"count(max by (cluster, pool_id) (clio_composed_pool_info{{{CLUSTER}}}) "
            f"unless on (cluster, pool_id) clio_pool_info{{{CLUSTER}}}) "
            f"or 0 * max(clio_composed_pool_info{{{CLUSTER}}})",
            band=thresholds.ANY_IS_BAD,
            width=4,
            decimals=0,
            empty=_NO_COMPOSE,
        ),
        number(
            "Blobs",
            "Blobs whose metadata the selected nodes hold (clio_cte_blobs).",
            f"sum(max by (cluster, node_id, pool_id) (clio_cte_blobs{{{NODE}}}))",
            width=4,
            decimals=0,
            trend=True,
            empty="No context transfer engine",
        ),
        number(
            "Tags",
            "Tags (buckets of blobs) whose metadata the selected nodes hold (clio_cte_tags).",
            f"sum(max by (cluster, node_id, pool_id) (clio_cte_tags{{{NODE}}}))",
            width=4,
            decimals=0,
            trend=True,
            empty="No context transfer engine",
        ),
    ]


def _chain() -> Tile:
    composed = f"clio_composed_pool_info{{{CLUSTER}}}"
    keys = "id, title, subtitle, color"
    identified = f'label_join({composed}, "id", "/", "cluster", "pool_id")'
    titled = f'label_replace({identified}, "title", "$1", "module", "(.*)")'
    subtitled = f'label_join({titled}, "subtitle", " ", "pool_id", "pool_query")'
    live = f"count by (cluster, pool_id) (max by (cluster, pool_id, node_id) (clio_pool_info{{{CLUSTER}}}))"
    joined = f"{subtitled} * on (cluster, pool_id) group_left () {live}"
    running = f'label_replace({joined}, "color", "green", "", "")'
    missing = f'label_replace(0 * {subtitled}, "color", "red", "", "") unless on (cluster, pool_id) {live}'
    linked = f'clio_composed_pool_info{{{CLUSTER}, next_pool_id!=""}}'
    source = f'label_join({linked}, "source", "/", "cluster", "pool_id")'
    target = f'label_join({source}, "target", "/", "cluster", "next_pool_id")'
    edge = f'label_join({target}, "id", " ", "source", "target")'
    return graph(
        "Chain of pools",
        "Every pool of the compose section and the next pool it passes tasks to "
        "(clio_composed_pool_info). A pool without an arrow is the end of a chain, or stands alone. In the "
        "circle: on how many nodes it runs; a red circle runs on none (clio_pool_info).",
        f'count_values by ({keys}) ("mainstat", {running} or {missing})',
        f"max by (id, source, target) ({edge})",
        width=16,
        height=13,
        empty=_NO_COMPOSE,
    )


def _modules() -> Tile:
    return bars(
        "Containers by module",
        "How many containers of each module the selected nodes run (clio_pool_info). Bad when nodes that "
        "should be alike run different numbers.",
        [
            Query(
                "sort_desc(count by (module) "
                f"(max by (cluster, node_id, pool_id, module) (clio_pool_info{{{NODE}}})))",
                "{{module}}",
            )
        ],
        unit="none",
        high=None,
        width=8,
        height=13,
    )


def _pools() -> Tile:
    keys = "cluster, pool_id, module, pool_query, next_pool_id"
    named = f"max by (cluster, pool_id, pool_name) (clio_pool_info{{{NODE}}})"
    names = f"count by (cluster, pool_id) ({named})"
    several = f'label_replace({names} > bool 1 == 1, "pool_name", "{_OWN_NAMES}", "", "")'
    name = f"({named} and on (cluster, pool_id) {names} == 1 or {several})"
    running = f"count by ({keys}) (max by ({keys}, node_id) (clio_pool_info{{{NODE}}}))"
    composed = f"max by ({keys}, pool_name) (clio_composed_pool_info{{{CLUSTER}}})"
    idle = f"{composed} unless on (cluster, pool_id) clio_pool_info{{{NODE}}}"
    return rows(
        "All pools",
        "Every pool: its module, on how many of the selected nodes it has a container, and for pools of the "
        "compose section how it routes tasks and which pool comes next (clio_pool_info, "
        "clio_composed_pool_info). An empty cell under Nodes: configured, and not running. A file device can "
        "have a name of its own on each node.",
        [
            linkable(f"{running} * on (cluster, pool_id) group_left (pool_name) {name}"),
            linkable(f'label_replace({idle}, "pool_name", "{_OWN_NAMES}", "pool_name", "")'),
        ],
        [
            Column("pool_id", "Pool", width=90),
            Column("pool_name", "Name"),
            Column("module", "Module", width=190),
            Column("A", "Nodes", "none", 80),
            Column("pool_query", "Routing", width=110),
            Column("next_pool_id", "Next pool", width=100),
            Column("cluster", "Cluster", width=110, mapping={"All": ("unnamed", thresholds.IDLE)}),
        ],
        sort="Pool",
        descending=False,
        height=12,
        drop=("Value #B",),
    )


def _statistics() -> list[Tile]:
    def engine(metric: str) -> str:
        return f"max by ({BDEV_KEYS}) ({metric}{{{NODE}}})"

    return [
        rows(
            "Context transfer engine",
            "Targets, tags and blobs by node and pool (clio_cte_targets, clio_cte_tags, clio_cte_blobs). Bad: "
            "a node without targets.",
            [
                linkable(engine("clio_cte_targets")),
                linkable(engine("clio_cte_tags")),
                linkable(engine("clio_cte_blobs")),
            ],
            [
                Column("node_id", "Node", width=70, links=[links.node_from_row()]),
                Column("hostname", "Host"),
                Column("pool_name", "Pool"),
                Column("A", "Targets", "none", 90),
                Column("B", "Tags", "short", 90),
                Column("C", "Blobs", "short", 90),
                Column("pool_id", "pool_id", hidden=True),
                Column("cluster", "cluster", hidden=True),
            ],
            sort="Node",
            descending=False,
            width=12,
            height=7,
            empty="No context transfer engine",
        ),
        lines(
            "Blobs",
            "Blobs of the clusters by pool, and the most that one node holds (clio_cte_blobs). Bad when one "
            "node holds many more than its share.",
            [
                Query(
                    f"sum by (cluster, pool_name) ({engine('clio_cte_blobs')})", "all nodes, {{pool_name}}"
                ),
                Query(
                    f"max by (cluster, pool_name) ({engine('clio_cte_blobs')})", "fullest node, {{pool_name}}"
                ),
            ],
            decimals=0,
            width=12,
            height=7,
            empty="No context transfer engine",
        ),
    ]


def _other_modules() -> Tile:
    return rows(
        "Statistics of other modules",
        "Numbers that modules report by their own names, summed over the selected nodes "
        "(clio_module_stat). The runtime's own modules report none besides those above.",
        [
            f"sum by (module, pool_name, stat) "
            f"(max by ({BDEV_KEYS}, module, stat) (clio_module_stat{{{NODE}}}))",
        ],
        [
            Column("module", "Module", width=200),
            Column("pool_name", "Pool"),
            Column("stat", "Statistic", width=240),
            Column("A", "All nodes", "short", 120),
        ],
        sort="Module",
        descending=False,
        width=24,
        height=7,
        empty="No other module reports statistics",
    )
