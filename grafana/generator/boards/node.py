"""Node: everything about one node."""

from __future__ import annotations

from typing import Final

from grafana.generator import links, thresholds, variables
from grafana.generator.annotations import actions, marks, restarts
from grafana.generator.board import Board
from grafana.generator.panels import Column, Query, Section, Tile, lines, number, rows, states
from grafana.generator.queries import (
    BDEV_KEYS,
    NODE,
    actionable,
    address,
    per_device,
    per_node,
    per_worker,
    rate,
    round_trip,
    status_with_leader,
    work,
)

_NO_GPU = "No GPU reported"


def board(control_api: str) -> Board:
    """The dashboard."""
    return Board(
        uid="clio-node",
        question="Everything about one node: is it well, what do its workers and devices do.",
        variables=[variables.cluster(), variables.one_node(), variables.control_api(control_api)],
        annotations=[restarts(NODE), actions(NODE), marks()],
        sections=[
            Section("", _identity()),
            Section("Workers", _workers()),
            Section("Processor and memory", _system()),
            Section("Block devices", _devices()),
            Section("Jobs", _jobs(), collapsed=True),
            Section("GPUs", _gpus(), collapsed=True),
        ],
    )


def _identity() -> list[Tile]:
    return [
        number(
            "Status",
            "Up, degraded (up with a health score under 60), hung or down, and whether the node leads the "
            "cluster. From clio_node_up, clio_node_down_info, clio_node_leader, node:clio_health:score.",
            status_with_leader(NODE),
            mapping=thresholds.NODE_STATUS,
            width=3,
        ),
        number(
            "Why down",
            "Why the runtime does not answer (the reason of clio_node_down_info in words), or that it does "
            "(clio_node_up). Empty while nobody asks it.",
            f"max by (cluster, node_id, hostname, reason) (clio_node_down_info{{{NODE}}}) "
            f'or label_replace({per_node("clio_node_up", NODE)} == 1, "reason", "up", "", "")',
            label="reason",
            colour=thresholds.BAD,
            mapping={**thresholds.DOWN_REASON, "up": ("Node is up", thresholds.IDLE)},
            width=3,
        ),
        number(
            "Host",
            "Hostname of the node as the hostfile has it (clio_node_up).",
            per_node("clio_node_up", NODE),
            label="hostname",
            width=3,
        ),
        number(
            "IP address",
            "The IP address that the runtime reports, or the address where it is asked (clio_node_info).",
            address(NODE),
            label="ip",
            width=3,
        ),
        number(
            "Up since",
            "Time since the runtime was started (clio_node_start_time_seconds). Bad when it is short and "
            "nobody restarted it.",
            f"time() - {per_node('clio_node_start_time_seconds', NODE)}",
            unit="dtdurations",
            width=3,
            decimals=0,
            empty="No answer",
        ),
        number(
            "Sample age",
            "Time since the runtime took its last system sample (clio_node_sample_timestamp_seconds); it takes "
            "one a second. Over 2 minutes the node hangs, or clocks differ.",
            f"time() - {per_node('clio_node_sample_timestamp_seconds', NODE)}",
            unit="s",
            band=thresholds.SAMPLE_AGE,
            decimals=1,
            width=3,
            empty="No answer",
        ),
        number(
            "Round trip",
            "Time of one small question, asked alone (clio_node_round_trip_seconds). From half a second it wants "
            "a look; at 3 s, unless configured, the exporter gives up.",
            round_trip(NODE),
            unit="s",
            band=thresholds.ROUND_TRIP,
            width=3,
            empty="No answer",
        ),
        rows(
            "Actions",
            "Restart or shut down the runtime on this node: opens a page of the control API that asks first "
            "(clio_node_info).",
            [actionable(per_node("clio_node_info", NODE))],
            [
                Column("restart", "Restart", width=62, links=[links.action_from_row("restart")]),
                Column("shutdown", "Shut down", width=80, links=[links.action_from_row("shutdown")]),
                *(Column(name, name, hidden=True) for name in ("which", "cluster", "node_id", "hostname")),
            ],
            sort="hostname",
            width=3,
            height=4,
            drop=("Value",),
        ),
    ]


def _workers() -> list[Tile]:
    def over_time(title: str, text: str, expr: str, unit: str = "short", decimals: int | None = None) -> Tile:
        return lines(
            title,
            text,
            [Query(expr, "worker {{worker_id}}")],
            unit=unit,
            decimals=decimals,
            width=12,
            empty="Node reports no workers",
        )

    return [
        rows(
            "Workers now",
            "Each worker thread of the runtime (clio_worker_*). Bad: one that is stopped, or that has tasks "
            "waiting and executes none. Tasks a second are those beyond what the exporter's questions cause "
            "(clio_node_questions_total). Load is the CPU time that its tasks in hand will need by the learned "
            "cost models.",
            [
                per_worker("clio_worker_running"),
                per_worker("clio_worker_queued_tasks"),
                per_worker("clio_worker_blocked_tasks"),
                per_worker("clio_worker_periodic_tasks"),
                per_worker("clio_worker_retry_tasks"),
                work(NODE),
                per_worker("clio_worker_load"),
                per_worker("clio_worker_suspend_period_seconds"),
            ],
            [
                Column("worker_id", "Worker", width=75),
                Column("A", "Runs", width=60, cell="colour", mapping=thresholds.YES_NO),
                Column("B", "Queued", "short", 75, "colour", thresholds.QUEUED),
                Column("C", "Blocked", "short", 75),
                Column("D", "Periodic", "short", 75),
                Column("E", "Retrying", "short", 80, "colour", thresholds.ANY_IS_WORTH_A_LOOK),
                Column("F", "Tasks/s", "short", 95, decimals=0),
                Column("G", "Load", "s", 85),
                Column("H", "Idle sleep", "s", 90),
                *(Column(name, name, hidden=True) for name in ("cluster", "node_id", "hostname")),
            ],
            sort="Worker",
            descending=False,
            width=14,
            height=7,
            empty="Node reports no workers",
        ),
        states(
            "Who ran when",
            WHO_RAN_WHEN,
            [Query(worker_states(NODE), "worker {{worker_id}}")],
            thresholds.WORKER_STATE,
            width=10,
            height=7,
            empty="Node reports no workers",
        ),
        over_time(
            "Tasks queued",
            "Tasks waiting in each worker's queue (clio_worker_queued_tasks). Bad when it grows.",
            per_worker("clio_worker_queued_tasks"),
            decimals=0,
        ),
        over_time(
            "Tasks blocked",
            "Tasks of each worker that wait for others (clio_worker_blocked_tasks). Bad when it stays up while "
            "nothing is executed.",
            per_worker("clio_worker_blocked_tasks"),
            decimals=0,
        ),
        over_time(
            "Tasks executed",
            "Tasks each worker completes a second, the runtime's own periodic ones and those of scrapes included "
            "(clio_worker_tasks_processed_total).",
            rate("clio_worker_tasks_processed_total"),
            "ops",
        ),
        over_time(
            "Load",
            "CPU seconds that the tasks in hand of each worker will need, by the learned cost models "
            "(clio_worker_load). Bad when one worker has much more than the others.",
            per_worker("clio_worker_load"),
            "s",
        ),
    ]


WHO_RAN_WHEN: Final = (
    "How many tasks a second every worker completed, by tens, without those that the exporter's questions cause "
    "(clio_worker_tasks_processed_total, clio_node_questions_total). The runtime's own periodic tasks count: on "
    "an idle node too one worker looks at the network thousands of times a second. Bad: stuck (10 minutes with "
    "work and none of it completed, worker:clio_worker_stuck:bool10m) and stopped (clio_worker_running)."
)


def worker_states(matchers: str) -> str:
    """0 for at most one task a second, 1 to 4 by tens (4 has no end), 5 stuck, 6 stopped; one value a worker.

    From counters: what a worker does at the moment of a scrape, the scrape itself has caused.
    """
    stopped = f"6 * ({per_worker('clio_worker_running', matchers)} == bool 0) > 0"
    stuck = f"5 * {per_worker('worker:clio_worker_stuck:bool10m', matchers)} > 0"
    tens = f"clamp(ceil(log10(clamp_min({work(matchers)}, 0.1))), 0, 4)"
    return f"({stopped}) or ({stuck}) or {tens}"


def _system() -> list[Tile]:
    total = per_node("clio_node_memory_total_bytes", NODE)
    return [
        lines(
            "CPU",
            "Processor use of the host in the last second, and the highest second of the peak window (60 s "
            "unless configured), which a scrape alone would miss (clio_node_cpu_utilization_ratio, "
            "clio_node_cpu_utilization_peak_ratio). A busy processor is not bad.",
            [
                Query(per_node("clio_node_cpu_utilization_ratio", NODE), "CPU", thresholds.CPU),
                Query(
                    per_node("clio_node_cpu_utilization_peak_ratio", NODE),
                    "Peak",
                    thresholds.CPU,
                    dashed=True,
                ),
            ],
            unit="percentunit",
            high=1,
            empty="No answer",
        ),
        lines(
            "Memory",
            "Main memory of the host in use, the most of the peak window, and all there is "
            "(clio_node_memory_available_bytes, clio_node_memory_available_low_bytes, "
            "clio_node_memory_total_bytes).",
            [
                Query(
                    f"{total} - {per_node('clio_node_memory_available_bytes', NODE)}",
                    "Used",
                    thresholds.MEMORY,
                ),
                Query(
                    f"{total} - {per_node('clio_node_memory_available_low_bytes', NODE)}",
                    "Peak",
                    thresholds.MEMORY,
                    dashed=True,
                ),
                Query(total, "Total", thresholds.IDLE),
            ],
            unit="bytes",
            empty="No answer",
        ),
    ]


def _jobs() -> list[Tile]:
    return [
        states(
            "Whose job was here",
            "The jobs that the scheduler had on the node, each as long as it had (clio_node_job_info). Only where "
            "its prolog tells the exporter (contrib/slurm).",
            [
                Query(
                    f"max by (job_id, user, job_name) (clio_node_job_info{{{NODE}}})",
                    "{{job_id}} {{user}} {{job_name}}",
                )
            ],
            thresholds.ON_THE_NODE,
            height=6,
            empty="No jobs are told of",
        ),
    ]


def _gpus() -> list[Tile]:
    return [
        lines(
            "GPU",
            "Use of the node's GPUs, and the highest second of the peak window "
            "(clio_node_gpu_utilization_ratio, clio_node_gpu_utilization_peak_ratio). Absent without GPU.",
            [
                Query(per_node("clio_node_gpu_utilization_ratio", NODE), "GPU", thresholds.CPU),
                Query(
                    per_node("clio_node_gpu_utilization_peak_ratio", NODE),
                    "Peak",
                    thresholds.CPU,
                    dashed=True,
                ),
            ],
            unit="percentunit",
            high=1,
            empty=_NO_GPU,
        ),
        lines(
            "GPU memory",
            "High-bandwidth memory of the node's GPUs in use, the most of the peak window, and all there is "
            "(clio_node_hbm_used_bytes, clio_node_hbm_used_peak_bytes, clio_node_hbm_total_bytes). Absent "
            "without GPU.",
            [
                Query(per_node("clio_node_hbm_used_bytes", NODE), "Used", thresholds.MEMORY),
                Query(
                    per_node("clio_node_hbm_used_peak_bytes", NODE), "Peak", thresholds.MEMORY, dashed=True
                ),
                Query(per_node("clio_node_hbm_total_bytes", NODE), "Total", thresholds.IDLE),
            ],
            unit="bytes",
            empty=_NO_GPU,
        ),
    ]


def _devices() -> list[Tile]:
    none = "Node reports no block device"
    return [
        rows(
            "Block devices now",
            "Each block device of the node: kind, size, share allocated, traffic, what the runtime's learned "
            "model says of its speed (before any I/O the model's default, not a measurement), and when it is "
            "predicted to fail (clio_bdev_*). Runtimes do not count what devices in memory read and write. Over "
            "90 % allocated wants a look, and so does a failure predicted within 30 days.",
            [
                f"max by ({BDEV_KEYS}, type) (clio_bdev_info{{{NODE}}})",
                per_device("clio_bdev_capacity_bytes"),
                f"1 - {per_device('clio_bdev_free_bytes')} / ({per_device('clio_bdev_capacity_bytes')} > 0)",
                rate("clio_bdev_read_bytes_total"),
                rate("clio_bdev_written_bytes_total"),
                per_device("clio_bdev_read_latency_seconds"),
                per_device("clio_bdev_write_latency_seconds"),
                per_device("clio_bdev_iops"),
                per_device("clio_bdev_predicted_time_to_live_seconds"),
            ],
            [
                Column("pool_name", "Device"),
                Column("type", "Kind", width=70),
                Column("B", "Size", "bytes", 90),
                Column("C", "Used", "percentunit", 150, "gauge", thresholds.STORAGE_USED, low=0, high=1),
                Column("D", "Read", "binBps", 100, absent="not counted"),
                Column("E", "Written", "binBps", 100, absent="not counted"),
                Column("F", "1 MiB read", "s", 100),
                Column("G", "1 MiB write", "s", 100),
                Column("H", "Expected IOPS", "short", 125),
                Column("I", "Fails in", "dtdurations", 100, "colour", thresholds.TIME_TO_FAILURE, decimals=0),
                *(Column(name, name, hidden=True) for name in ("cluster", "node_id", "hostname", "pool_id")),
            ],
            sort="Device",
            descending=False,
            height=7,
            empty=none,
            drop=("Value #A",),
        ),
        *(
            lines(title, text, queries, unit=unit, empty=none, low=low, high=high, band=band)
            for title, text, unit, low, high, band, queries in (
                (
                    "Throughput",
                    "Bytes a second read from (up) and written to (down) each device "
                    "(clio_bdev_read_bytes_total, clio_bdev_written_bytes_total). Devices in memory are not counted "
                    "by the runtime.",
                    "binBps",
                    None,
                    None,
                    None,
                    [
                        Query(rate("clio_bdev_read_bytes_total"), "read {{pool_name}}"),
                        Query(rate("clio_bdev_written_bytes_total"), "written {{pool_name}}", below=True),
                    ],
                ),
                (
                    "I/O operations",
                    "Reads (up) and writes (down) a second of each device (clio_bdev_reads_total, "
                    "clio_bdev_writes_total). Devices in memory are not counted by the runtime.",
                    "iops",
                    None,
                    None,
                    None,
                    [
                        Query(rate("clio_bdev_reads_total"), "reads {{pool_name}}"),
                        Query(rate("clio_bdev_writes_total"), "writes {{pool_name}}", below=True),
                    ],
                ),
                (
                    "Latency by the learned model",
                    "Time of a 1 MiB read or write by the runtime's learned model "
                    "(clio_bdev_read_latency_seconds, clio_bdev_write_latency_seconds). Bad when it rises "
                    "against its own past.",
                    "s",
                    0,
                    None,
                    None,
                    [
                        Query(per_device("clio_bdev_read_latency_seconds"), "read {{pool_name}}"),
                        Query(per_device("clio_bdev_write_latency_seconds"), "write {{pool_name}}"),
                    ],
                ),
                (
                    "Share used",
                    "Allocated share of each device (clio_bdev_free_bytes, clio_bdev_capacity_bytes). From "
                    "90 % it wants a look.",
                    "percentunit",
                    0,
                    1,
                    thresholds.STORAGE_USED,
                    [
                        Query(
                            f"1 - {per_device('clio_bdev_free_bytes')} "
                            f"/ ({per_device('clio_bdev_capacity_bytes')} > 0)",
                            "{{pool_name}}",
                        )
                    ],
                ),
            )
        ),
    ]
