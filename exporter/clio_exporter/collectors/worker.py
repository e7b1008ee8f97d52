"""Worker threads: what they do, what waits for them, what they have done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from clio_exporter.collectors.base import Collector, FieldMap, FieldTable, micros
from clio_exporter.exposition import Family, Kind, Samples, join_labels, label_text
from clio_exporter.labels import node_labels
from clio_exporter.snapshot import NodeSnapshot, Topic

_WORKER = ("worker_id",)


def _load(value: float) -> float:
    """Seconds; adding and taking away rounded costs leaves an idle worker a little below 0, which means 0."""
    return max(0.0, micros(value))


def _family(name: str, kind: Kind, text: str, field: str) -> Family:
    return Family(f"clio_worker_{name}", kind, text, f"worker_stats.{field}", _WORKER)


_FIELDS = FieldTable(
    FieldMap(
        "is_running", _family("running", Kind.GAUGE, "1 if the worker thread runs, else 0.", "is_running")
    ),
    FieldMap(
        "is_active",
        _family("active", Kind.GAUGE, "1 if the worker was executing tasks when asked, else 0.", "is_active"),
    ),
    FieldMap(
        "num_queued_tasks",
        _family("queued_tasks", Kind.GAUGE, "Tasks waiting in the worker's queue.", "num_queued_tasks"),
    ),
    FieldMap(
        "num_blocked_tasks",
        _family(
            "blocked_tasks",
            Kind.GAUGE,
            "Tasks of the worker that wait for others; tasks that hang are not among them.",
            "num_blocked_tasks",
        ),
    ),
    FieldMap(
        "num_periodic_tasks",
        _family("periodic_tasks", Kind.GAUGE, "Periodic tasks the worker runs.", "num_periodic_tasks"),
    ),
    FieldMap(
        "num_retry_tasks",
        _family("retry_tasks", Kind.GAUGE, "Tasks the worker will try again.", "num_retry_tasks"),
    ),
    FieldMap(
        "num_tasks_processed",
        _family(
            "tasks_processed_total", Kind.COUNTER, "Tasks the worker has executed.", "num_tasks_processed"
        ),
    ),
    FieldMap(
        "idle_iterations",
        _family(
            "idle_iterations",
            Kind.GAUGE,
            "Turns of the worker's loop in a row that found no work; starts again at 0 when it finds some.",
            "idle_iterations",
        ),
    ),
    FieldMap(
        "suspend_period_us",
        _family(
            "suspend_period_seconds",
            Kind.GAUGE,
            "How long the worker currently sleeps when it has no work.",
            "suspend_period_us / 10^6",
        ),
        micros,
    ),
    FieldMap(
        "load",
        _family(
            "load",
            Kind.GAUGE,
            "CPU seconds that the worker's tasks in hand will need, by the learned cost models.",
            "load / 10^6, at least 0",
        ),
        _load,
    ),
)


class WorkerCollector(Collector):
    """The worker threads of every node. They come and go at run time; only those reported now have series."""

    topics = frozenset({Topic.WORKERS})
    families: ClassVar = _FIELDS.families

    def collect_node(self, node: NodeSnapshot, samples: Samples) -> None:
        """One set of samples a worker."""
        numbers = [worker.worker_id for worker in node.workers]
        labels = node.kept.get("workers", numbers, lambda: _labels(node, numbers))
        _FIELDS.add(node.workers, labels, samples)


def _labels(node: NodeSnapshot, numbers: Sequence[int | None]) -> list[str]:
    of_node = node_labels(node.member)
    return [join_labels(of_node, label_text({"worker_id": str(number)})) for number in numbers]
