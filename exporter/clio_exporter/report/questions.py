"""What a report asks Prometheus: PromQL over its time range. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

NODE: Final = ("cluster", "node_id", "hostname")
TIER: Final = (*NODE, "type")
WORKER: Final = (*NODE, "worker_id")
ALERT: Final = ("alertname", "severity", *NODE)
_POINTS: Final = 300


@dataclass(frozen=True, slots=True)
class Range:
    """The time of a report.

    Attributes:
        begin, end: Unix time.
        interval: seconds between two scrapes; None where nobody knows.
        match: label matchers, for example `job_id="17"`; "" for all.
    """

    begin: float
    end: float
    interval: float | None = None
    match: str = ""

    @property
    def seconds(self) -> int:
        """Its length, at least a second."""
        return max(1, math.ceil(self.end - self.begin))

    @property
    def step(self) -> int:
        """Seconds between two points of a plot, and of what is worked out point by point."""
        return max(1, math.ceil(self.interval or 1), math.ceil(self.seconds / _POINTS))


def at_the_end(asked: Range) -> dict[str, str]:
    """Expressions that are asked at the end of the range, by name."""
    window, steps, match = f"[{asked.seconds}s]", f"[{asked.seconds}s:{asked.step}s]", asked.match

    def of(series: str, how: str, by: tuple[str, ...] = NODE) -> str:
        return f"max by ({', '.join(by)}) ({how}({series}{{{match}}}{window}))"

    tasks = of("clio_worker_tasks_processed_total", "increase", WORKER)
    firing = ",".join(filter(None, ('alertstate="firing"', match)))
    return {
        "samples": of("clio_node_up", "count_over_time"),
        "answered": of("clio_node_up", "avg_over_time"),
        "tasks": f"sum by ({', '.join(NODE)}) ({tasks})",
        "cpu": of("clio_node_cpu_utilization_ratio", "max_over_time"),
        "memory": of("clio_node_memory_used_ratio", "max_over_time"),
        "gpu": of("clio_node_gpu_utilization_ratio", "max_over_time"),
        "hbm": of("clio_node_hbm_used_ratio", "max_over_time"),
        "read": _tier(of("clio_bdev_read_bytes_total", "increase", _POOL), match, window),
        "written": _tier(of("clio_bdev_written_bytes_total", "increase", _POOL), match, window),
        "capacity": _tier(of("clio_bdev_capacity_bytes", "last_over_time", _POOL), match, window),
        "occupied": f"max_over_time(({_occupied(asked)}){steps})",
        "worker tasks": tasks,
        "worker queue": of("clio_worker_queued_tasks", "max_over_time", WORKER),
        "worker saturated": f"max by ({', '.join(WORKER)}) "
        f"(avg_over_time((clio_worker_idle_iterations{{{match}}} <= bool 10){steps}))",
        "alerts": f"max by ({', '.join(ALERT)}) (count_over_time(ALERTS{{{firing}}}{steps})) * {asked.step}",
    }


def over_time(asked: Range) -> dict[str, tuple[str, str, str]]:
    """What is plotted: title, unit and expression, by name. Rates look four scrapes or one step back."""
    back = max(asked.step, math.ceil(4 * (asked.interval or 15)))
    match = asked.match
    node = ", ".join(NODE)

    def rate(series: str, by: tuple[str, ...]) -> str:
        return f"max by ({', '.join(by)}) (rate({series}{{{match}}}[{back}s]))"

    return {
        "tasks": (
            "Tasks by node",
            "tasks/s",
            f"sum by ({node}) ({rate('clio_worker_tasks_processed_total', WORKER)})",
        ),
        "read": (
            "Bytes read by tier",
            "bytes/s",
            f"sum by (type) ({_tier(rate('clio_bdev_read_bytes_total', _POOL), match, f'[{back}s]')})",
        ),
        "written": (
            "Bytes written by tier",
            "bytes/s",
            f"sum by (type) ({_tier(rate('clio_bdev_written_bytes_total', _POOL), match, f'[{back}s]')})",
        ),
        "cpu": (
            "Processor by node",
            "share",
            f"max by ({node}) (clio_node_cpu_utilization_ratio{{{match}}})",
        ),
        "memory": ("Memory by node", "share", f"max by ({node}) (clio_node_memory_used_ratio{{{match}}})"),
        "occupied": ("Occupied by tier", "share", f"avg by (type) ({_occupied(asked)})"),
    }


_POOL: Final = (*NODE, "pool_id")


def _tier(of_pools: str, match: str, window: str) -> str:
    """The sum of what devices have, by node and tier."""
    info = f"max by ({', '.join((*_POOL, 'type'))}) (last_over_time(clio_bdev_info{{{match}}}{window}))"
    return f"sum by ({', '.join(TIER)}) ({of_pools} * on ({', '.join(_POOL)}) group_left (type) {info})"


def _occupied(asked: Range) -> str:
    match, window = asked.match, f"[{max(asked.step, 15)}s]"

    def of(series: str) -> str:
        return f"max by ({', '.join(_POOL)}) ({series}{{{match}}})"

    free, all_of_it = (
        _tier(of(series), match, window) for series in ("clio_bdev_free_bytes", "clio_bdev_capacity_bytes")
    )
    return f"1 - {free} / ({all_of_it} > 0)"
