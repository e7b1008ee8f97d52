"""What a Prometheus has of the nodes: which series, when they have samples, how often it scrapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_exporter.service_client import Answer, Service

LOOK_BACK_S: Final = 1200
"""A little more than a ring remembers (1,024 s), so that the scrape before the gap is seen."""

_DURATION: Final = re.compile(r"(\d+)(ms|[smhd])")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Series:
    """A series of Prometheus; its samples' times, Unix milliseconds in order, without marks of staleness."""

    labels: Mapping[str, str]
    times: Sequence[int]


@dataclass(frozen=True, slots=True)
class Live:
    """What was found.

    Attributes:
        now: Prometheus's clock, Unix milliseconds, when it was asked.
        series: those with a sample in the last `LOOK_BACK_S`.
        intervals: of scrapes, in milliseconds, by job and instance.
    """

    now: int
    series: Sequence[Series]
    intervals: Mapping[tuple[str, str], int]

    def interval(self, series: Series) -> int | None:
        """How often this one is scraped; None where Prometheus does not scrape it (any more)."""
        job, instance = series.labels.get("job", ""), series.labels.get("instance", "")
        if (job, instance) in self.intervals:
            return self.intervals[job, instance]
        of_job = {interval for (name, _), interval in self.intervals.items() if name == job}
        return of_job.pop() if len(of_job) == 1 else None


def look(service: Service, families: Sequence[str], targets: Mapping[str, str]) -> Live:
    """Ask for the series of these families whose labels are as in ``targets``.

    Raises:
        ConfigError: Prometheus cannot be asked, or has no such series.
    """
    clock = _result(service, service.get("/api/v1/query", query="time()"))
    now = round(float(clock[1]) * 1000)
    series = []
    for family in families:
        wanted = ",".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}"
            for name, value in {"__name__": family, **targets}.items()
        )
        answer = service.get("/api/v1/query", query=f"{{{wanted}}}[{LOOK_BACK_S}s]", time=f"{now / 1000:.3f}")
        for found in _result(service, answer):
            times = [round(at * 1000) for at, _ in found["values"]]
            series.append(Series(found["metric"], times))
    if not series:
        chosen = "".join(f" with {name} {value}" for name, value in targets.items())
        raise ConfigError(
            service.url,
            f"has no live series of nodes{chosen}",
            "Let it scrape the exporter again first: what is filled goes under the labels of its series",
        )
    active = service.get("/api/v1/targets", state="active").data.get("activeTargets") or []
    intervals = {
        (target["labels"].get("job", ""), target["labels"].get("instance", "")): round(seconds * 1000)
        for target in active
        if (seconds := _seconds(str(target.get("scrapeInterval", ""))))
    }
    return Live(now, series, intervals)


def _seconds(text: str) -> float:
    """Of a duration as Prometheus writes it, 1m30s; 0 where it is none."""
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def _result(service: Service, answer: Answer) -> Any:
    found = answer.data.get("result")
    if not answer.ok or found is None:
        document = answer.document
        said = document.get("error", str(answer)) if isinstance(document, dict) else str(answer)
        raise ConfigError(
            service.url, f"does not answer as Prometheus does: {said}", "Give Prometheus's address"
        )
    return found
