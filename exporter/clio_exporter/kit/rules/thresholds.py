"""Where "bad" begins: the numbers that alerts, dashboards and documents share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["ratio", "seconds", "count", "factor"]

_DAY: Final = 86400
_HOUR: Final = 3600


@dataclass(frozen=True)
class Threshold:
    """A limit that can be set when rules are made.

    Attributes:
        name: how tables and options call it.
        value: in ``unit``, as it is unless set.
        meaning: what is beyond it, for the documents.
    """

    name: str
    value: float
    unit: Unit
    meaning: str


THRESHOLDS: Final = {
    threshold.name: threshold
    for threshold in (
        Threshold("flapping_outages", 2, "count", "times down in 30 minutes that are no flapping yet"),
        Threshold("flapping_restarts", 2, "count", "restarts in 30 minutes that are no flapping yet"),
        Threshold("clock_wrong", 30, "seconds", "seconds by which the clock of a node is wrong"),
        Threshold("queue_length", 100, "count", "tasks queued on a node from which growth matters"),
        Threshold("queue_growth", 0.05, "factor", "tasks a second by which a queue grows"),
        Threshold("workers_busy", 0.9, "ratio", "share of time in which the workers of a node are busy"),
        Threshold("workers_busy_queue", 10, "count", "tasks that wait on a busy node"),
        Threshold(
            "waiting_tasks", 100, "factor", "tasks a second that a worker completes while it works, not waits"
        ),
        Threshold("memory_pressure", 0.9, "ratio", "main memory in use"),
        Threshold("memory_exhausted", 0.97, "ratio", "main memory in use, critical"),
        Threshold("gpu_memory", 0.95, "ratio", "GPU memory in use"),
        Threshold("device_full", 0.9, "ratio", "allocated part of a block device"),
        Threshold("storage_full", 0.9, "ratio", "allocated part of all block devices of a node together"),
        Threshold("forecast_from", 0.5, "ratio", "allocated part of a device from which it is forecast"),
        Threshold(
            "forecast_steady",
            0.8,
            "ratio",
            "how steadily a device fills that is forecast (R² of a straight line)",
        ),
        Threshold("forecast_soon", 4 * _HOUR, "seconds", "time to full that is critical"),
        Threshold("forecast_later", 3 * _DAY, "seconds", "time to full that is a warning"),
        Threshold("latency_floor", 0.001, "seconds", "modelled latency that is never too slow"),
        Threshold("latency_factor", 3, "factor", "times the latency of the day before"),
        Threshold("failure_predicted", 30 * _DAY, "seconds", "predicted life of a device"),
        Threshold("failure_imminent", 3 * _DAY, "seconds", "predicted life of a device, critical"),
        Threshold("scrape_slow", 0.8, "ratio", "part of its timeout that a scrape takes"),
        Threshold("scrape_timeout", 10, "seconds", "timeout of a scrape where Prometheus does not report it"),
        Threshold(
            "certificate_expires", 14 * _DAY, "seconds", "time until the certificate of a service ends"
        ),
        Threshold("nodes_down_ratio", 0.25, "ratio", "share of a cluster's nodes that is down"),
        Threshold("nodes_down", 4, "count", "nodes of a cluster that are down, at least"),
    )
}


def promql(threshold: Threshold, value: float) -> str:
    """The value as it is written in an expression."""
    if threshold.unit == "seconds":
        for size in (_DAY, _HOUR):
            if value >= size and value % size == 0:
                return f"{value / size:g} * {size}"
    return f"{value:.12g}"


def words(threshold: Threshold, value: float) -> str:
    """The value as it is written in a sentence: ``90 %``, ``4 hours``, ``1 ms``."""
    if threshold.unit == "ratio":
        return f"{100 * value:g} %"
    if threshold.unit != "seconds":
        return f"{value:g}"
    for size, name in ((_DAY, "day"), (_HOUR, "hour"), (60, "minute"), (1, "second")):
        if value >= size:
            number = f"{value / size:g}"
            return f"{number} {name}" + ("" if number == "1" else "s")
    return f"{1000 * value:g} ms"
