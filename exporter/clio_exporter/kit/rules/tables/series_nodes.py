"""Recorded series of nodes and workers."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Group, Recording

WORKERS: Final = Group(
    name="clio-workers",
    rules=(
        Recording(
            record="node:clio_node_up:max",
            expr="max by ([[node]]) (clio_node_up)",
            what="1 if any exporter that is scraped reaches the node",
        ),
        Recording(
            record="node:clio_node_leader:max",
            expr="max by ([[node]]) (clio_node_leader)",
            what="1 if the node says that it leads",
        ),
        Recording(
            record="node:clio_node_available:bool",
            comment=(
                "As node:clio_node_up:max, from the first time on that the node was up: 0 "
                "before that would count as an outage."
            ),
            expr="""
            node:clio_node_up:max
              and
            (
              node:clio_node_up:max == 1
                or
              last_over_time(node:clio_node_available:bool[1d])
            )
            """,
            what="the same from the first time on that the node was up, for availability",
        ),
        Recording(
            record="node:clio_node_start_time_seconds:max",
            comment=(
                "Whole seconds: an exporter that starts again computes the time anew, and no runtime has restarted "
                "when it comes out a millisecond later."
            ),
            expr="round(max by ([[node]]) (clio_node_start_time_seconds))",
            what="when the runtime was started, in whole seconds",
        ),
        Recording(
            record="node:clio_workers:count",
            expr="count by ([[node]]) (max by ([[node]], worker_id) (clio_worker_running))",
            what="workers",
        ),
        Recording(
            record="node:clio_worker_tasks_processed:rate5m",
            comment="Includes the runtime's own periodic tasks, which an idle node executes too.",
            expr="""
            sum by ([[node]]) (
              max by ([[node]], worker_id) (rate(clio_worker_tasks_processed_total[5m]))
            )
            """,
            what="tasks completed a second, the runtime's own periodic ones included",
        ),
        Recording(
            record="node:clio_worker_queued_tasks:sum",
            expr="sum by ([[node]]) (max by ([[node]], worker_id) (clio_worker_queued_tasks))",
            what="tasks queued",
        ),
        Recording(
            record="node:clio_worker_blocked_tasks:sum",
            expr="sum by ([[node]]) (max by ([[node]], worker_id) (clio_worker_blocked_tasks))",
            what="tasks blocked",
        ),
        Recording(
            record="node:clio_worker_busy:ratio5m",
            comment=(
                "Share of the scrapes that found a worker at most ten idle turns of its loop "
                "after its last work, averaged over the workers. Not clio_worker_active: the "
                "scrape's own queries make idle workers active (docs/recorded-series.md)."
            ),
            expr="""
            avg by ([[node]]) (
              max by ([[node]], worker_id) (avg_over_time((clio_worker_idle_iterations <= bool 10)[5m:15s]))
            )
            """,
            what=(
                "saturation: share of scrapes that found a worker at most 10 idle turns after its last work"
            ),
        ),
        Recording(
            record="worker:clio_worker_stuck:bool10m",
            comment=(
                "1 for a worker that had work in every scrape of 10 minutes and completed none of it, else 0."
            ),
            expr="""
            max by ([[node]], worker_id) (
                clamp_max(min_over_time(clio_worker_blocked_tasks[10m]) + min_over_time(clio_worker_queued_tasks[10m]), 1)
              * (increase(clio_worker_tasks_processed_total[10m]) == bool 0)
            )
            """,
            what="1 if there was work in all scrapes of 10 min and none was completed",
        ),
        Recording(
            record="worker:clio_worker_waiting:bool5m",
            comment=(
                "A task that waits for something and asks for it again and again keeps its worker turning: with runtime 2.3.2 "
                "at most three idle turns after the last work and a pause of 10 microseconds between two, whenever one looks. A "
                "worker with work of its own completes far more tasks."
            ),
            expr="""
            max by ([[node]], worker_id) (
                (max_over_time(clio_worker_idle_iterations[5m]) <= bool 10)
              * (min_over_time(clio_worker_suspend_period_seconds[5m]) > bool 0)
              * (max_over_time(clio_worker_suspend_period_seconds[5m]) <= bool 0.00002)
              * (rate(clio_worker_tasks_processed_total[5m]) < bool [[waiting_tasks]])
            )
            """,
            what="1 if it polled for something that does not come in all scrapes of 5 min",
        ),
    ),
)

MEMORY: Final = Group(
    name="clio-memory",
    rules=(
        Recording(
            record="node:clio_node_memory_used:ratio",
            expr="max by ([[node]]) (clio_node_memory_used_ratio)",
            what="main memory in use",
        ),
        Recording(
            record="node:clio_node_memory_total_bytes:max",
            expr="max by ([[node]]) (clio_node_memory_total_bytes)",
            what="main memory",
        ),
        Recording(
            record="node:clio_node_memory_available_bytes:max",
            expr="max by ([[node]]) (clio_node_memory_available_bytes)",
            what="main memory available",
        ),
        Recording(
            record="node:clio_node_hbm_used:ratio",
            expr="max by ([[node]]) (clio_node_hbm_used_ratio)",
            what="GPU memory in use; only nodes with GPUs",
        ),
    ),
)
