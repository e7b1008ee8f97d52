"""What a Prometheus has of the nodes: which series, when they have samples, how often it scrapes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from clio_client.config.errors import ConfigError
from clio_exporter.service_client import Answer, OddAnswerError, Service, text_labels

_T = TypeVar("_T")

LOOK_BACK_S: Final = 1200
"""A little more than a ring remembers (1,024 s), so that the scrape before the gap is seen."""

_DURATION: Final = re.compile(r"([0-9]{1,9})(ms|[smhd])")
_DURATIONS: Final = re.compile(rf"(?:{_DURATION.pattern})+")
_LATEST: Final = 2.0**40
"""Seconds; a clock that is beyond has another unit, or none."""
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
    now = round(_read(service, service.get("/api/v1/query", query="time()"), _moment) * 1000)
    series = []
    for family in families:
        wanted = ",".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}"
            for name, value in {"__name__": family, **targets}.items()
        )
        answer = service.get("/api/v1/query", query=f"{{{wanted}}}[{LOOK_BACK_S}s]", time=f"{now / 1000:.3f}")
        for labels, samples in _read(service, answer, Answer.matrix):
            series.append(Series(labels, [round(at * 1000) for at, _ in samples]))
    if not series:
        chosen = "".join(f" with {name} {value}" for name, value in targets.items())
        raise ConfigError(
            service.url,
            f"has no live series of nodes{chosen}",
            "Let it scrape the exporter again first: what is filled goes under the labels of its series",
        )
    intervals = {}
    for target in service.get("/api/v1/targets", state="active").rows("activeTargets") or ():
        if seconds := _seconds(str(target.get("scrapeInterval", ""))):
            labels = text_labels(target.get("labels"))
            intervals[labels.get("job", ""), labels.get("instance", "")] = round(seconds * 1000)
    return Live(now, series, intervals)


def _seconds(text: str) -> float:
    """Of a duration as Prometheus writes it, 1m30s; 0 where it is none."""
    if not _DURATIONS.fullmatch(text):
        return 0.0
    return sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def _moment(answer: Answer) -> float:
    now = answer.scalar()
    if not 0 < now < _LATEST:
        raise OddAnswerError(f"its clock says {now:g}")
    return now


def _read(service: Service, answer: Answer, read: Callable[[Answer], _T]) -> _T:
    try:
        return read(answer)
    except OddAnswerError as error:
        said = str(error) if answer.data else answer.error
    raise ConfigError(service.url, f"does not answer as Prometheus does: {said}", "Give Prometheus's address")
