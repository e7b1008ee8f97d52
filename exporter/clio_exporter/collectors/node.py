"""Nodes: up or down and why, who they are, CPU, memory and GPUs from the 1 Hz ring."""

from __future__ import annotations

from typing import ClassVar

from clio_client import SystemSample
from clio_exporter.collectors.base import Collector, FieldMap, FieldTable, nanos, ratio
from clio_exporter.exposition import Family, Kind, Samples, Scope, join_labels, label_text
from clio_exporter.job_map import JobsOfNodes
from clio_exporter.labels import cluster_labels, node_labels
from clio_exporter.snapshot import ClusterSnapshot, NodeSnapshot, Topic

_SYSTEM = "system_stats."

UP = Family(
    "clio_node_up", Kind.GAUGE, "1 if the runtime on the node answered this scrape, else 0.", "exporter"
)
DOWN = Family(
    "clio_node_down_info",
    Kind.INFO,
    "Why the node is down: refused, hung, unreachable, connection_lost, malformed, not_a_runtime ...",
    "exporter",
    labels=("reason",),
)
INFO = Family(
    "clio_node_info",
    Kind.INFO,
    "Where the node is asked (address, port) and, while it is up, the IP address its runtime reports "
    "and its protocol generation.",
    "hostfile, system_stats.ip_address",
    labels=("address", "port", "ip_address", "generation"),
)
PROBE_DURATION = Family(
    "clio_node_probe_duration_seconds",
    Kind.GAUGE,
    "Time the node took to answer everything this scrape asked it, or to fail.",
    "exporter",
)
ROUND_TRIP = Family(
    "clio_node_round_trip_seconds",
    Kind.GAUGE,
    "Time of one small question (worker_stats; get_host_info where collector worker is off), asked alone "
    "before the others; absent while the node does not answer.",
    "exporter",
)
QUESTIONS = Family(
    "clio_node_questions_total",
    Kind.COUNTER,
    "Questions that this exporter has put to the node; each is a task of the runtime's.",
    "exporter",
)
START_TIME = Family(
    "clio_node_start_time_seconds",
    Kind.GAUGE,
    "Unix time at which the runtime on the node was started; changes when it restarts.",
    "ClientConnect, system_stats.timestamp_ns and .wall_time_ns",
)
SAMPLE_TIMESTAMP = Family(
    "clio_node_sample_timestamp_seconds",
    Kind.GAUGE,
    "Unix time, by the node's clock, of the runtime's newest system sample; stands still when it hangs.",
    _SYSTEM + "wall_time_ns",
)
LEADER = Family(
    "clio_node_leader", Kind.GAUGE, "1 if the node is the cluster's leader, else 0.", _SYSTEM + "is_leader"
)
CPU = Family(
    "clio_node_cpu_utilization_ratio",
    Kind.GAUGE,
    "CPU utilization of the host over the last sampled second, 0 to 1.",
    _SYSTEM + "cpu_usage_pct / 100",
)
CPU_PEAK = Family(
    "clio_node_cpu_utilization_peak_ratio",
    Kind.GAUGE,
    "Highest CPU utilization of any second in the peak window (60 s unless configured), 0 to 1.",
    "max of " + _SYSTEM + "cpu_usage_pct / 100",
)
MEMORY_TOTAL = Family(
    "clio_node_memory_total_bytes", Kind.GAUGE, "Main memory of the host.", _SYSTEM + "ram_total_bytes"
)
MEMORY_AVAILABLE = Family(
    "clio_node_memory_available_bytes",
    Kind.GAUGE,
    "Main memory of the host that is available.",
    _SYSTEM + "ram_available_bytes",
)
MEMORY_AVAILABLE_LOW = Family(
    "clio_node_memory_available_low_bytes",
    Kind.GAUGE,
    "Lowest available memory of any second in the peak window.",
    "min of " + _SYSTEM + "ram_available_bytes",
)
MEMORY_USED = Family(
    "clio_node_memory_used_ratio",
    Kind.GAUGE,
    "Main memory in use as the runtime reports it, 0 to 1.",
    _SYSTEM + "ram_usage_pct / 100",
)
GPUS = Family("clio_node_gpus", Kind.GAUGE, "Number of GPUs the runtime sees.", _SYSTEM + "gpu_count")
GPU = Family(
    "clio_node_gpu_utilization_ratio",
    Kind.GAUGE,
    "GPU utilization, 0 to 1; absent on nodes without GPU.",
    _SYSTEM + "gpu_usage_pct / 100",
)
GPU_PEAK = Family(
    "clio_node_gpu_utilization_peak_ratio",
    Kind.GAUGE,
    "Highest GPU utilization of any second in the peak window, 0 to 1; absent on nodes without GPU.",
    "max of " + _SYSTEM + "gpu_usage_pct / 100",
)
HBM_TOTAL = Family(
    "clio_node_hbm_total_bytes",
    Kind.GAUGE,
    "GPU memory; absent on nodes without GPU.",
    _SYSTEM + "hbm_total_bytes",
)
HBM_USED = Family(
    "clio_node_hbm_used_bytes",
    Kind.GAUGE,
    "GPU memory in use; absent on nodes without GPU.",
    _SYSTEM + "hbm_used_bytes",
)
HBM_USED_PEAK = Family(
    "clio_node_hbm_used_peak_bytes",
    Kind.GAUGE,
    "Most GPU memory in use in any second of the peak window; absent on nodes without GPU.",
    "max of " + _SYSTEM + "hbm_used_bytes",
)
HBM_USED_RATIO = Family(
    "clio_node_hbm_used_ratio",
    Kind.GAUGE,
    "GPU memory in use as the runtime reports it, 0 to 1; absent on nodes without GPU.",
    _SYSTEM + "hbm_usage_pct / 100",
)

_JOB_FILES = "files of --collector.node.job-directory"
JOB_INFO = Family(
    "clio_node_job_info",
    Kind.INFO,
    "A job that the scheduler has on the node now; several where jobs share nodes.",
    _JOB_FILES,
    ("job_id", "user", "job_name"),
)
JOBS_LOADED = Family(
    "clio_job_map_load_success",
    Kind.GAUGE,
    "1 if the directory of jobs and every file in it could be read, else 0; the log names what could not.",
    _JOB_FILES,
    (),
    Scope.CLUSTER,
)

SAMPLE = FieldTable(
    FieldMap("wall_time_ns", SAMPLE_TIMESTAMP, nanos),
    FieldMap("is_leader", LEADER),
    FieldMap("cpu_usage_pct", CPU, ratio),
    FieldMap("ram_total_bytes", MEMORY_TOTAL),
    FieldMap("ram_available_bytes", MEMORY_AVAILABLE),
    FieldMap("ram_usage_pct", MEMORY_USED, ratio),
    FieldMap("gpu_count", GPUS),
)
_PEAKS = FieldTable(
    FieldMap("cpu_usage_pct", CPU_PEAK, ratio),
    FieldMap("ram_available_low_bytes", MEMORY_AVAILABLE_LOW),
)
GPU_SAMPLE = FieldTable(
    FieldMap("gpu_usage_pct", GPU, ratio),
    FieldMap("hbm_total_bytes", HBM_TOTAL),
    FieldMap("hbm_used_bytes", HBM_USED),
    FieldMap("hbm_usage_pct", HBM_USED_RATIO, ratio),
)
_GPU_PEAKS = FieldTable(
    FieldMap("gpu_usage_pct", GPU_PEAK, ratio),
    FieldMap("hbm_used_bytes", HBM_USED_PEAK),
)


class NodeCollector(Collector):
    """The state of every node, and of its host the newest sample and recent peaks."""

    topics = frozenset({Topic.SYSTEM})
    families: ClassVar = (
        UP,
        DOWN,
        INFO,
        PROBE_DURATION,
        ROUND_TRIP,
        QUESTIONS,
        START_TIME,
        *SAMPLE.families,
        *_PEAKS.families,
        *GPU_SAMPLE.families,
        *_GPU_PEAKS.families,
        JOB_INFO,
        JOBS_LOADED,
    )

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """Identity and state for every member; system samples for those that reported them."""
        labels = node_labels(node.member)
        newest, peaks = node.newest, node.peaks
        failure = node.failure
        samples.add(UP, labels, failure is None)
        if failure is not None:
            samples.add(DOWN, join_labels(labels, label_text({"reason": failure.reason})), 1)
        samples.add(INFO, join_labels(labels, _info_labels(node, newest)), 1)
        samples.add(PROBE_DURATION, labels, node.duration)
        if failure is None:
            samples.add(ROUND_TRIP, labels, node.round_trip)
            samples.add(QUESTIONS, labels, node.questions)
        if not node.answered(Topic.SYSTEM):
            return
        samples.add(START_TIME, labels, node.start_time)
        if newest is None:
            return
        SAMPLE.add([newest], [labels], samples)
        _PEAKS.add([peaks], [labels], samples)
        if newest.gpu_count:
            GPU_SAMPLE.add([newest], [labels], samples)
            _GPU_PEAKS.add([peaks], [labels], samples)

    def collect_cluster(self, cluster: ClusterSnapshot, samples: Samples) -> None:
        """The jobs on every member, up or down; nothing where nobody keeps them."""
        if cluster.jobs is None:
            return
        samples.add(JOBS_LOADED, cluster_labels(cluster.name), cluster.jobs.complete)
        jobs = JobsOfNodes(cluster.jobs.jobs)
        for node in cluster.nodes:
            found = {job.labels for job in jobs.of(node.member.hostname, node.member.address.host)}
            for labels in sorted(found):
                text = join_labels(node_labels(node.member), label_text(dict(labels)))
                samples.add(JOB_INFO, text, 1)


def _info_labels(node: NodeSnapshot, newest: SystemSample | None) -> str:
    generation = node.session.generation if node.session else None
    return label_text(
        {
            "address": node.member.address.host,
            "port": str(node.member.address.port),
            "ip_address": (newest.ip_address if newest else None) or "",
            "generation": generation.value if generation else "",
        }
    )
