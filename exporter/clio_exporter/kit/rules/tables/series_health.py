"""Recorded series of a node's health and availability."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Group, Recording

HEALTH: Final = Group(
    name="clio-health",
    rules=(
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "up"},
            comment=(
                "What the score is made of, each part 0 (failed) to 1 (well). A part that a "
                "node does not report is not there."
            ),
            expr="node:clio_node_up:max",
            what="parts of the health score, by `component`",
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "samples"},
            comment=(
                "0 when no new system sample came for 5 minutes; a node with less than three "
                "scrapes is given the benefit."
            ),
            expr="""
            max by ([[node]]) (
              clamp_max(
                  changes(clio_node_sample_timestamp_seconds[5m])
                + (count_over_time(clio_node_sample_timestamp_seconds[5m]) < bool 3),
                1
              )
            )
            """,
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "memory"},
            comment="Well up to 80 % in use, failed at 100 %.",
            expr="clamp((1 - node:clio_node_memory_used:ratio) / 0.2, 0, 1)",
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "gpu_memory"},
            comment="GPU memory is filled on purpose: well up to 90 %.",
            expr="clamp((1 - node:clio_node_hbm_used:ratio) / 0.1, 0, 1)",
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "storage"},
            comment=(
                "All devices of the node together: a full fast tier above a roomy slow one is how tiers work."
            ),
            expr="clamp((1 - node:clio_bdev_used:ratio) / 0.2, 0, 1)",
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "workers"},
            comment="Share of the workers that are not stuck.",
            expr="1 - avg by ([[node]]) (worker:clio_worker_stuck:bool10m)",
        ),
        Recording(
            record="node:clio_health_component:ratio",
            labels={"component": "arrays"},
            comment=("Redundancy left in the worst array: 1 whole, 0 when one more failure loses data."),
            expr="""
            min by ([[node]]) (
              clamp(
                  1 - safe_bdev:clio_safe_bdev_unavailable_members:count
                    / clamp_min(max by ([[node]], pool_id, pool_name) (clio_safe_bdev_parity_members), 1),
                0, 1
              )
            )
            """,
        ),
        Recording(
            record="node:clio_health:score",
            comment="A node is as well as its worst part.",
            expr="100 * min by ([[node]]) (node:clio_health_component:ratio)",
            what="health of the node, 0 to 100",
        ),
    ),
)

AVAILABILITY: Final = Group(
    name="clio-availability",
    interval="4m",
    comment=(
        "Long windows change slowly. The interval stays under Prometheus's look-back of 5 "
        "minutes, so that the series have a value at any moment. `and`: a node that has left "
        "the cluster has no availability any more."
    ),
    rules=(
        Recording(
            record="node:clio_node_up:avg1h",
            expr="avg_over_time(node:clio_node_available:bool[1h]) and node:clio_node_up:max",
            what="availability over an hour",
        ),
        Recording(
            record="node:clio_node_up:avg1d",
            comment=(
                "Means of hourly means: 720 samples for 30 days instead of 172,800. Until an "
                "hour is full: that of the hour so far."
            ),
            expr=(
                "(avg_over_time(node:clio_node_up:avg1h[1d:1h]) or node:clio_node_up:avg1h) "
                "and node:clio_node_up:max"
            ),
            what="over a day",
        ),
        Recording(
            record="node:clio_node_up:avg30d",
            expr=(
                "(avg_over_time(node:clio_node_up:avg1h[30d:1h]) or node:clio_node_up:avg1h) "
                "and node:clio_node_up:max"
            ),
            what="over 30 days",
        ),
    ),
)
