"""Alerts about workers, queues and learned costs."""

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
                name="ClioCostModelBadlyOff",
                severity="info",
                scope="node",
                wait="1h",
                dashboard="clio-scheduler",
                comment=(
                    "Only models that still learn: one that is not in use keeps its error for "
                    "ever and does no harm."
                ),
                expr="""
                (max by ([[node]], pool_id, pool_name, method, model) (clio_method_cost_error_ratio) > [[cost_error]])
                  and
                (max by ([[node]], pool_id, pool_name, method, model) (changes(clio_method_cost_coefficient[1h])) > 0)
                """,
                summary="Cost model of {{ $labels.method }} on [[where]] is badly off",
                description=(
                    "The {{ $labels.model }} cost that the scheduler expects of {{ $labels.method"
                    " }} in pool {{ $labels.pool_name }} ({{ $labels.pool_id }}) is wrong by {{ "
                    "$value | humanizePercentage }} on average, and the model is in use."
                ),
                when="mean error over [[cost_error|words]], model still learning",
            ),
        ),
    ),
)
