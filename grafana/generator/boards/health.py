"""Cluster health: one score and what it is made of, against an hour and a day ago; clusters side by side."""

from __future__ import annotations

from grafana.generator import links, thresholds, variables
from grafana.generator.annotations import actions, marks
from grafana.generator.board import Board
from grafana.generator.panels import Column, Query, Section, Tile, graph, lines, number, rows, states, tiles
from grafana.generator.queries import (
    CLUSTER,
    FEW,
    IN_BLOCK,
    KEYS,
    linkable,
    named,
    per_device,
    per_node,
    per_worker,
    round_trip,
    severity,
    status,
)

_NO_RULES = "Recording rules not loaded"
_YOUNG = "No data that old yet"
_NO_GPU = "No GPU reported"
_UNNAMED = {"All": ("unnamed", thresholds.IDLE)}


def board() -> Board:
    """The dashboard."""
    return Board(
        uid="clio-health",
        question="How well are the clusters, compared with an hour and a day ago, and what pulls them down.",
        variables=[variables.cluster(), variables.blocks(CLUSTER)],
        annotations=[actions(CLUSTER), marks()],
        span="now-1h",
        sections=[
            Section("", [*_scores(), *_hardware()]),
            Section("Clusters side by side", [_clusters()]),
            Section("What the score is made of", _parts()),
            Section("Load", _load()),
            Section("Connectivity", _connectivity()),
            Section("Alerts", _alerts()),
        ],
    )


def _scores() -> list[Tile]:
    score = f"avg(cluster:clio_health:score{{{CLUSTER}}})"
    text = (
        "The mean health score of the selected clusters, 0 to 100 (cluster:clio_health:score): the mean of "
        "their nodes, halved without exactly one leader. A node is as well as its worst part. Under 90 it "
        "wants a look, under 60 a hand."
    )

    def change(title: str, offset: str, since: str) -> Tile:
        return number(
            title,
            f"Points by which the health score has changed since {since} (cluster:clio_health:score). Below 0 "
            "is worse than then.",
            f"avg(cluster:clio_health:score{{{CLUSTER}}}) "
            f"- avg(cluster:clio_health:score{{{CLUSTER}}} offset {offset})",
            unit="none",
            band=thresholds.Band(0, -10, low_is_bad=True),
            decimals=0,
            width=3,
            empty=_YOUNG,
        )

    return [
        number(
            "Health score",
            text,
            score,
            unit="none",
            band=thresholds.SCORE,
            decimals=0,
            width=4,
            trend=True,
            empty=_NO_RULES,
        ),
        change("vs. 1 h ago", "1h", "an hour ago"),
        change("vs. 1 d ago", "1d", "a day ago"),
        number(
            "Nodes up",
            "Share of the nodes whose runtime answered the last scrape (clio_node_up). Under 100 % wants a "
            "look, under 75 % a hand.",
            f"avg({per_node('clio_node_up', CLUSTER)})",
            unit="percentunit",
            band=thresholds.UP_RATIO,
            width=4,
            decimals=1,
            trend=True,
        ),
        number(
            "Nodes",
            "Members of the clusters (clio_cluster_nodes).",
            f"sum(max by (cluster) (clio_cluster_nodes{{{CLUSTER}}}))",
            width=3,
            decimals=0,
        ),
        number(
            "Workers",
            "Worker threads that run (clio_worker_running).",
            f"sum({per_worker('clio_worker_running', CLUSTER)})",
            width=3,
            decimals=0,
        ),
        number(
            "Firing alerts",
            "Alerts of the CLIO rules that fire now (ALERTS).",
            f'count(ALERTS{{alertname=~"Clio.+", alertstate="firing", {CLUSTER}}}) '
            f"or 0 * count(node:clio_node_up:max{{{CLUSTER}}})",
            band=thresholds.ANY_IS_BAD,
            width=4,
            decimals=0,
            empty=_NO_RULES,
        ),
    ]


def _hardware() -> list[Tile]:
    def total(title: str, text: str, expr: str, unit: str, empty: str | None, width: int = 4) -> Tile:
        return number(title, text, expr, unit=unit, width=width, height=3, empty=empty)

    def of_nodes(metric: str) -> str:
        return f"sum({per_node(metric, CLUSTER)})"

    return [
        total(
            "Memory",
            "Main memory of all hosts that are up (clio_node_memory_total_bytes).",
            of_nodes("clio_node_memory_total_bytes"),
            "bytes",
            None,
        ),
        total(
            "Memory available",
            "Main memory not in use (clio_node_memory_available_bytes).",
            of_nodes("clio_node_memory_available_bytes"),
            "bytes",
            None,
        ),
        total(
            "GPUs", "GPUs that the runtimes see (clio_node_gpus).", of_nodes("clio_node_gpus"), "none", None
        ),
        total(
            "GPU memory",
            "Memory of all GPUs (clio_node_hbm_total_bytes). Absent without GPU.",
            of_nodes("clio_node_hbm_total_bytes"),
            "bytes",
            _NO_GPU,
        ),
        total(
            "Storage",
            "Size of all block devices (clio_bdev_capacity_bytes).",
            f"sum({per_device('clio_bdev_capacity_bytes', CLUSTER)})",
            "bytes",
            "No block device reports",
        ),
        total(
            "Storage free",
            "Bytes of all block devices that are not allocated (clio_bdev_free_bytes).",
            f"sum({per_device('clio_bdev_free_bytes', CLUSTER)})",
            "bytes",
            "No block device reports",
        ),
    ]


def _clusters() -> Tile:
    def of_cluster(record: str) -> str:
        return linkable(f"max by (cluster) ({record}{{{CLUSTER}}})")

    return rows(
        "Clusters",
        "Every selected cluster in a row: score now and its change in an hour, nodes, availability of the "
        "last hour, day and 30 days, work waiting and done, memory and storage in use (cluster:clio_health:score, cluster:clio_node_up:avg1h and others). Under "
        "99.9 % availability wants a look.",
        [
            of_cluster("cluster:clio_health:score"),
            linkable(
                f"max by (cluster) (cluster:clio_health:score{{{CLUSTER}}}) "
                f"- max by (cluster) (cluster:clio_health:score{{{CLUSTER}}} offset 1h)"
            ),
            of_cluster("cluster:clio_node_up:sum"),
            of_cluster("cluster:clio_nodes:count"),
            of_cluster("cluster:clio_node_up:avg1h"),
            of_cluster("cluster:clio_node_up:avg1d"),
            of_cluster("cluster:clio_node_up:avg30d"),
            of_cluster("cluster:clio_worker_tasks_processed:rate5m"),
            linkable(
                f"max by (cluster) (cluster:clio_worker_queued_tasks:sum{{{CLUSTER}}}) "
                f"+ max by (cluster) (cluster:clio_worker_blocked_tasks:sum{{{CLUSTER}}})"
            ),
            of_cluster("cluster:clio_node_memory_used:ratio"),
            of_cluster("cluster:clio_bdev_used:ratio"),
        ],
        [
            Column(
                "cluster",
                "Cluster",
                mapping=_UNNAMED,
                links=[links.to_dashboard("clio-topology", "Open its topology")],
            ),
            Column("A", "Score", "none", 65, "background", thresholds.SCORE, decimals=0),
            Column("B", "In 1 h", "none", 65, decimals=0),
            Column("C", "Up", "none", 55),
            Column("D", "Nodes", "none", 65),
            *(
                Column(ref, title, "percentunit", 85, "colour", thresholds.AVAILABILITY, decimals=2)
                for ref, title in (("E", "Up 1 h"), ("F", "Up 1 d"), ("G", "Up 30 d"))
            ),
            Column("H", "Tasks/s", "short", 80),
            Column("I", "Waiting", "short", 75),
            Column(
                "J", "Memory", "percentunit", 140, "gauge", thresholds.MEMORY_USED, low=0, high=1, decimals=0
            ),
            Column(
                "K",
                "Storage",
                "percentunit",
                140,
                "gauge",
                thresholds.STORAGE_USED,
                low=0,
                high=1,
                decimals=0,
            ),
        ],
        sort="Score",
        descending=False,
        height=5,
        empty=_NO_RULES,
    )


def _parts() -> list[Tile]:
    part = f"max by ({KEYS}, component) (node:clio_health_component:ratio{{{CLUSTER}}})"
    return [
        lines(
            "Health score by cluster",
            "The health score over time (cluster:clio_health:score). Under 90 it wants a look, under 60 a hand.",
            [Query(linkable(f"max by (cluster) (cluster:clio_health:score{{{CLUSTER}}})"), "{{cluster}}")],
            unit="none",
            band=thresholds.SCORE,
            high=100,
            decimals=0,
            width=9,
            empty=_NO_RULES,
        ),
        lines(
            "What pulls it down",
            "How much is missing of each part of the score, mean of the nodes (node:clio_health_component:ratio): "
            "nodes up, samples fresh, memory, GPU memory, storage, workers not stuck, arrays whole. 0 is well; "
            "the highest is the reason.",
            [Query(f"1 - avg by (component) ({part})", "{{component}}")],
            unit="percentunit",
            width=7,
            empty=_NO_RULES,
        ),
        rows(
            "Least healthy nodes",
            f"The {FEW} parts of nodes that are worst, with the node's score (node:clio_health_component:ratio, "
            "node:clio_health:score). Empty when every part of every node is well.",
            [linkable(f"bottomk({FEW}, {part} < 1)")],
            [
                Column("node_id", "Node", width=70, links=[links.node_from_row()]),
                Column("hostname", "Host"),
                Column("component", "Part", width=100),
                Column(
                    "Value",
                    "How well",
                    "percentunit",
                    100,
                    "colour",
                    thresholds.Band(0.9, 0.6, low_is_bad=True),
                    decimals=0,
                ),
                Column("cluster", "cluster", hidden=True),
            ],
            sort="How well",
            descending=False,
            width=8,
            height=9,
            empty="Every part of every node is well",
        ),
    ]


def _load() -> list[Tile]:
    cpu = per_node("clio_node_cpu_utilization_ratio", CLUSTER)
    peak = per_node("clio_node_cpu_utilization_peak_ratio", CLUSTER)
    memory = (
        f"1 - {per_node('clio_node_memory_available_bytes', CLUSTER)} "
        f"/ {per_node('clio_node_memory_total_bytes', CLUSTER)}"
    )
    up = per_node("clio_node_up", CLUSTER)
    return [
        lines(
            "Nodes up and down",
            "Nodes that answered and that did not, of the selected clusters (clio_node_up).",
            [
                Query(f"sum({up})", "up", thresholds.GOOD),
                Query(f"sum(1 - {up})", "down", thresholds.BAD),
            ],
            stacked=True,
            decimals=0,
            width=8,
        ),
        lines(
            "CPU of the nodes",
            "Processor use: mean of the nodes, the busiest node, and the highest second of any node "
            "(clio_node_cpu_utilization_ratio, clio_node_cpu_utilization_peak_ratio).",
            [
                Query(f"avg({cpu})", "mean", thresholds.CPU),
                Query(f"max({cpu})", "busiest node", thresholds.MEMORY),
                Query(f"max({peak})", "highest second", thresholds.IDLE, dashed=True),
            ],
            unit="percentunit",
            high=1,
            width=8,
        ),
        lines(
            "Memory of the nodes",
            "Main memory in use: mean of the nodes and the fullest node (clio_node_memory_available_bytes, "
            "clio_node_memory_total_bytes). From 90 % it wants a look.",
            [
                Query(f"avg({memory})", "mean", thresholds.CPU),
                Query(f"max({memory})", "fullest node", thresholds.MEMORY),
            ],
            unit="percentunit",
            band=thresholds.MEMORY_USED,
            high=1,
            width=8,
        ),
    ]


def _connectivity() -> list[Tile]:
    # Of a node that is down: how long the exporter waited for it.
    took = f"({round_trip(CLUSTER)} or {per_node('clio_node_probe_duration_seconds', CLUSTER)})"
    slow = f"topk({FEW}, {took})"
    identified = f'label_join({linkable(slow)}, "id", "/", "cluster", "node_id")'
    milliseconds = (
        'count_values by (cluster, node_id, hostname, id) ("mainstat", '
        f'round(1000 * label_join({linkable(slow)}, "id", "/", "cluster", "node_id")))'
    )
    titled = f'label_join({milliseconds}, "title", " · ", "node_id", "hostname")'
    state = linkable(status(CLUSTER))

    def coloured(colour: str, values: str) -> str:
        chosen = f"on (cluster, node_id, hostname) ({state} {values})"
        return f'label_replace({titled} and {chosen}, "color", "{colour}", "", "")'

    nodes = " or ".join(
        [
            coloured("green", "== 3"),
            coloured("orange", "== 2"),
            coloured("purple", "== 1"),
            coloured("red", "== 0"),
            'label_replace(label_replace(0 * max(clio_node_up), "id", "exporter", "", ""), '
            '"title", "exporter", "", "")',
        ]
    )
    edges = (
        f'label_replace(label_join({identified}, "target", "/", "cluster", "node_id"), '
        '"source", "exporter", "", "")'
    )
    return [
        tiles(
            "Round trip, nodes $block",
            "Time of one small question to each node that is up (clio_node_round_trip_seconds). Orange from half "
            "a second, red from 3 s, when the exporter gives up. Click a tile for the node.",
            named(round_trip(f"{CLUSTER}, {IN_BLOCK}"), CLUSTER),
            unit="s",
            band=thresholds.ROUND_TRIP,
            links=[links.node_from_row()],
        ),
        graph(
            "Connectivity map",
            f"The exporter and the {FEW} slowest nodes, with the round-trip time in the circle: green up, "
            "orange not well, purple hung, red down. Of a node that is down it is how long the exporter waited "
            "(clio_node_round_trip_seconds, clio_node_probe_duration_seconds, clio_node_up).",
            f'label_replace({nodes}, "mainstat", "$1 ms", "mainstat", "(.+)")',
            edges,
            unit="s",
        ),
        lines(
            "Round trip over time",
            "Median, 95th percentile and slowest of the nodes' round trips: the time of one small question "
            "(clio_node_round_trip_seconds); and the slowest node's time for all questions of a scrape "
            "(clio_node_probe_duration_seconds). The last at the exporter's time-out means that a node hangs.",
            [
                Query(f"quantile(0.5, {round_trip(CLUSTER)})", "median", "blue"),
                Query(f"quantile(0.95, {round_trip(CLUSTER)})", "95 % of the nodes are faster", "purple"),
                Query(f"max({round_trip(CLUSTER)})", "slowest", thresholds.IDLE),
                Query(
                    f"max({per_node('clio_node_probe_duration_seconds', CLUSTER)})",
                    "slowest, all questions",
                    thresholds.IDLE,
                    dashed=True,
                ),
            ],
            unit="s",
            width=12,
        ),
        lines(
            "Why nodes are down",
            "Nodes that do not answer, by reason (clio_node_down_info): refused means no runtime listens, hung "
            "that it accepts and does not answer, unreachable that the host is away.",
            [
                Query(
                    f"count by (reason) (max by ({KEYS}, reason) (clio_node_down_info{{{CLUSTER}}}))",
                    "{{reason}}",
                )
            ],
            points=True,
            decimals=0,
            width=12,
            colours={reason: colour for reason, (_, colour) in thresholds.DOWN_REASON.items()},
            empty="No node was down",
        ),
    ]


def _alerts() -> list[Tile]:
    return [
        states(
            "Alerts over time",
            "Which alert of the CLIO rules fired when, in the colour of its severity (ALERTS). Empty where none "
            "did.",
            [Query(severity("alertname", CLUSTER), "{{alertname}}")],
            thresholds.SEVERITY,
            height=8,
            empty="No alert has fired",
        ),
    ]
