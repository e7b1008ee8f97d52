"""Recorded series of whole clusters."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Group, Recording

GROUPS: Final = (
    Group(
        name="clio-cluster",
        rules=(
            Recording(
                record="cluster:clio_nodes:count",
                expr="count by ([[cluster]]) (node:clio_node_up:max)",
                what="nodes",
            ),
            Recording(
                record="cluster:clio_node_up:sum",
                expr="sum by ([[cluster]]) (node:clio_node_up:max)",
                what="nodes up",
            ),
            Recording(
                record="cluster:clio_node_up:ratio",
                expr="cluster:clio_node_up:sum / cluster:clio_nodes:count",
                what="share of nodes up",
            ),
            Recording(
                record="cluster:clio_node_available:ratio",
                expr="avg by ([[cluster]]) (node:clio_node_available:bool)",
                what="share of nodes up, without those that never were",
            ),
            Recording(
                record="cluster:clio_node_leader:sum",
                expr="sum by ([[cluster]]) (node:clio_node_leader:max)",
                what="nodes that say they lead",
            ),
            Recording(
                record="cluster:clio_worker_tasks_processed:rate5m",
                expr="sum by ([[cluster]]) (node:clio_worker_tasks_processed:rate5m)",
                what="tasks completed a second",
            ),
            Recording(
                record="cluster:clio_worker_queued_tasks:sum",
                expr="sum by ([[cluster]]) (node:clio_worker_queued_tasks:sum)",
                what="tasks queued",
            ),
            Recording(
                record="cluster:clio_worker_blocked_tasks:sum",
                expr="sum by ([[cluster]]) (node:clio_worker_blocked_tasks:sum)",
                what="tasks blocked",
            ),
            Recording(
                record="cluster:clio_worker_busy:ratio5m",
                expr="""
                sum by ([[cluster]]) (node:clio_worker_busy:ratio5m * node:clio_workers:count)
                  / sum by ([[cluster]]) (node:clio_workers:count)
                """,
                what="saturation over all workers",
            ),
            Recording(
                record="cluster:clio_node_memory_used:ratio",
                expr="""
                1 - sum by ([[cluster]]) (node:clio_node_memory_available_bytes:max)
                  / (sum by ([[cluster]]) (node:clio_node_memory_total_bytes:max) > 0)
                """,
                what="main memory in use",
            ),
            Recording(
                record="cluster:clio_bdev_capacity_bytes:sum",
                expr="sum by ([[cluster]]) (node:clio_bdev_capacity_bytes:sum)",
                what="size of all devices",
            ),
            Recording(
                record="cluster:clio_bdev_free_bytes:sum",
                expr="sum by ([[cluster]]) (node:clio_bdev_free_bytes:sum)",
                what="free in all devices",
            ),
            Recording(
                record="cluster:clio_bdev_used:ratio",
                expr=("1 - cluster:clio_bdev_free_bytes:sum / (cluster:clio_bdev_capacity_bytes:sum > 0)"),
                what="allocated part",
            ),
            Recording(
                record="cluster:clio_bdev_used_bytes:deriv1h",
                expr="sum by ([[cluster]]) (node:clio_bdev_used_bytes:deriv1h)",
                what="growth, bytes a second",
            ),
            Recording(
                record="cluster:clio_bdev_read_bytes:rate5m",
                expr="sum by ([[cluster]]) (node:clio_bdev_read_bytes:rate5m)",
                what="bytes read a second",
            ),
            Recording(
                record="cluster:clio_bdev_written_bytes:rate5m",
                expr="sum by ([[cluster]]) (node:clio_bdev_written_bytes:rate5m)",
                what="bytes written a second",
            ),
            Recording(
                record="cluster:clio_health:score",
                comment=(
                    "The mean of the nodes, halved without exactly one leader (where the runtimes"
                    " say who leads)."
                ),
                expr="""
                avg by ([[cluster]]) (node:clio_health:score)
                  * on ([[cluster]])
                (
                  1 - 0.5 * (cluster:clio_node_leader:sum != bool 1)
                    or
                  0 * cluster:clio_nodes:count + 1
                )
                """,
                what="health of the cluster, 0 to 100",
            ),
        ),
    ),
    Group(
        name="clio-tiers",
        rules=(
            Recording(
                record="tier:clio_bdev_capacity_bytes:sum",
                expr="sum by ([[cluster]], type) (node_tier:clio_bdev_capacity_bytes:sum)",
                what="size of all devices of a kind",
            ),
            Recording(
                record="tier:clio_bdev_free_bytes:sum",
                expr="sum by ([[cluster]], type) (node_tier:clio_bdev_free_bytes:sum)",
                what="free in them",
            ),
            Recording(
                record="tier:clio_bdev_read_bytes:rate5m",
                expr="sum by ([[cluster]], type) (node_tier:clio_bdev_read_bytes:rate5m)",
                what="bytes read from them a second",
            ),
            Recording(
                record="tier:clio_bdev_written_bytes:rate5m",
                expr="sum by ([[cluster]], type) (node_tier:clio_bdev_written_bytes:rate5m)",
                what="bytes written to them a second",
            ),
            Recording(
                record="tier:clio_bdev_used:ratio",
                expr="1 - tier:clio_bdev_free_bytes:sum / (tier:clio_bdev_capacity_bytes:sum > 0)",
                what="allocated part of them",
            ),
        ),
    ),
    Group(
        name="clio-cluster-availability",
        interval="4m",
        comment="As in recording.yml.",
        rules=(
            Recording(
                record="cluster:clio_node_up:avg1h",
                expr="avg_over_time(cluster:clio_node_available:ratio[1h])",
                what="mean share of nodes up over an hour",
            ),
            Recording(
                record="cluster:clio_node_up:avg1d",
                expr="avg_over_time(cluster:clio_node_up:avg1h[1d:1h]) or cluster:clio_node_up:avg1h",
                what="over a day",
            ),
            Recording(
                record="cluster:clio_node_up:avg30d",
                expr="avg_over_time(cluster:clio_node_up:avg1h[30d:1h]) or cluster:clio_node_up:avg1h",
                what="over 30 days",
            ),
        ),
    ),
)
