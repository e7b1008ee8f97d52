"""Alerts about workers and queues."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-work",
        rules=(
            Alert(
                name="ClioWorkerStuck",
                severity="critical",
                scope="node",
                wait="5m",
                dashboard="clio-node",
                expr="worker:clio_worker_stuck:bool10m == 1",
                summary="Worker {{ $labels.worker_id }} on [[where]] is stuck",
                description="It has had queued or blocked tasks for 10 minutes and completed none.",
                when="queued or blocked tasks in every scrape of 10 min, none completed",
            ),
            Alert(
                name="ClioQueueBacklogGrowing",
                severity="warning",
                scope="node",
                wait="15m",
                dashboard="clio-node",
                expr="""
                (node:clio_worker_queued_tasks:sum > [[queue_length]])
                  and
                (deriv(node:clio_worker_queued_tasks:sum[15m]) > [[queue_growth]])
                """,
                summary="Queues on [[where]] grow",
                description="{{ $value | humanize }} tasks wait, and more come than are completed.",
                when="over [[queue_length]] tasks queued on a node, growing by over [[queue_growth]] a second",
            ),
            Alert(
                name="ClioNodeSaturated",
                severity="warning",
                scope="node",
                wait="15m",
                dashboard="clio-scheduler",
                comment=(
                    "Busy alone is what a node is for; tasks must wait as well. More than the "
                    "queries of a scrape, which queue too."
                ),
                expr="""
                (node:clio_worker_busy:ratio5m > [[workers_busy]])
                  and
                (avg_over_time(node:clio_worker_queued_tasks:sum[5m]) > [[workers_busy_queue]])
                """,
                summary="Workers on [[where]] are saturated",
                description=(
                    "The workers are busy {{ $value | humanizePercentage }} of the time while tasks wait."
                ),
                when="workers busy over [[workers_busy|words]], over [[workers_busy_queue]] tasks queued on average",
            ),
            Alert(
                name="ClioWorkStalled",
                severity="critical",
                scope="node",
                wait="5m",
                dashboard="clio-node",
                comment=(
                    "A runtime that is deadlocked looks healthy: it answers, and completes its own periodic tasks. "
                    "What tells it is a worker that asks again and again for what does not come, while no device reads, "
                    "writes, allocates or frees."
                ),
                expr="""
                max by ([[node]]) (worker:clio_worker_waiting:bool5m) == 1
                  and
                node:clio_bdev_idle:bool5m == 1
                """,
                summary="Work on [[where]] waits, and no bytes move",
                description=(
                    "A worker has polled for something that does not come in every scrape of 5 minutes, and no block device "
                    "of the node has read, written, allocated or freed anything: clients of the node hang."
                ),
                when="a worker polls in every scrape of 5 min, completes under [[waiting_tasks]] tasks a second, no bytes move",
            ),
        ),
    ),
)
