"""Frames of a job: the cluster as it was at a moment, asked of a Prometheus on what `job start` has kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field, parse_duration
from clio_exporter.job import marks, server, state
from clio_exporter.moments import read_moment
from clio_exporter.report import source
from clio_exporter.service_client import Answer, OddAnswerError, Service
from clio_exporter.top.frame import COUNTERS, METRICS, Frame, Key, Sample, key_of, put_rate, read_nodes
from clio_exporter.top.sources import SourceError

_T = TypeVar("_T")

START_SECONDS: Final = 60.0
"""What Prometheus may take to serve: it reads what a killed job has written ahead."""
_QUERY_SECONDS: Final = 30.0
_SCRAPES: Final = 4
"""Rates look so many scrapes back, as in the report; a node that told nothing for as long is not shown."""
_TITLE: Final = 30
_FIRST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A time of a job, as somebody wrote it: Unix time, or seconds from the job's beginning."""

    text: str
    seconds: float
    from_begin: bool = False


def moment(value: Field) -> Moment:
    """Read `--at`. Raises `ConfigError`."""
    text = value.text()
    if text.startswith("+") and (offset := parse_duration(text[1:])) is not None:
        return Moment(text, offset, from_begin=True)
    try:
        return Moment(text, read_moment(text))
    except ValueError:
        raise value.refusal(
            "no time", "Write it as 2026-11-21T14:00:00Z, in Unix seconds, or as +2m from the beginning"
        ) from None


class Saved:
    """A job's frames at a moment that can be moved: a `Source` and a `Player`.

    A job that still runs is asked at its own Prometheus, and its last moment is now. On the data of any other
    a Prometheus is started, which `close` ends.
    """

    def __init__(self, directory: Path, start: Moment | None, *, last: bool = False) -> None:
        """Show `start`; without one the first moment, or the last one.

        Raises:
            ConfigError: there is no job, its data cannot be asked, or `start` is outside of it.
        """
        self._job = state.load(directory)
        self._directory = directory
        self._runs = server.running_prometheus(self._job) is not None
        self._back = max(1, round(1000 * _SCRAPES * self._job.interval)) / 1000
        with ExitStack() as opening:
            url = opening.enter_context(server.asked(directory, self._job, START_SECONDS))
            self._service = Service(url, _QUERY_SECONDS)
            end = time.time() if self._runs else self._job.ended or source.newest(url)
            if end is None:
                raise ConfigError(str(directory), "has no samples", "Look into its logs for the reason")
            self._end = max(end, self._job.began)
            try:
                self._begin = self._first()
            except SourceError as error:
                raise ConfigError(str(directory), f"cannot be asked: {error}", "Look into its logs") from None
            self.at = self._end if last else self._begin
            if start is not None:
                self.at = self._meant(start)
            self._held = opening.pop_all()

    @property
    def end(self) -> float:
        """The last moment there is, Unix time."""
        return time.time() if self._runs else self._end

    @property
    def ended(self) -> bool:
        """Whether the last moment is shown, and no later one will come."""
        return not self._runs and self.at >= self._end

    def move(self, seconds: float) -> None:
        """Go to another moment of the job."""
        self.at = min(max(self.at + seconds, self._begin), self.end)

    def frame(self, _before: Frame | None) -> Frame:
        """The cluster at the moment that is shown. Raises `SourceError`."""
        at = self.at
        told = {
            key_of(labels)
            for _, labels, sampled in self._ask("timestamp(clio_node_up)", at)
            if at - sampled <= self._back
        }
        samples = self._ask(f'{{__name__=~"{"|".join(METRICS)}"}}', at)
        nodes = read_nodes(sample for sample in samples if key_of(sample[1]) in told)
        for counter in COUNTERS:
            for _, labels, rate in self._ask(f"rate({counter}[{self._window}])", at):
                put_rate(nodes, counter, labels, rate)
        return Frame(at, nodes, title=self._title(at))

    def curves(self, key: Key, at: float, step: float, count: int) -> Sequence[Sequence[float]]:
        """A node's processor, memory and tasks a second. Raises `SourceError`."""
        names = zip(("cluster", "node_id", "hostname"), key, strict=True)
        node = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in names)
        begin = max(self._begin, at - (count - 1) * step)
        return [
            self._ask_range(expression, begin, at, step)
            for expression in (
                f"clio_node_cpu_utilization_ratio{{{node}}}",
                f"1 - clio_node_memory_available_bytes{{{node}}} / clio_node_memory_total_bytes{{{node}}}",
                f"sum(rate(clio_worker_tasks_processed_total{{{node}}}[{self._window}]))",
            )
        ]

    def close(self) -> None:
        """End the Prometheus that was started."""
        self._held.close()

    @property
    def _window(self) -> str:
        return f"{self._back * 1000:.0f}ms"

    def _first(self) -> float:
        """When the first scrape was: nothing is known of the moments before."""
        began, step = self._job.began, max(0.1, self._job.interval)
        until = min(self._end, began + max(_FIRST_SECONDS, 10 * step))
        found = self._query_range("min(timestamp(clio_node_up))", began, until, step)
        # A damaged answer may say any time.
        return min(max(found[0][1], began), self._end) if found else began

    def _meant(self, start: Moment) -> float:
        at = self._begin + start.seconds if start.from_begin else start.seconds
        if not self._begin <= at <= self.end:
            # The last digits of a time that somebody copied are no error.
            if self._begin - 1 < at < self.end + 1:
                return min(max(at, self._begin), self.end)
            raise ConfigError(
                f"--at {start.text}", "is outside of the job",
                f"Give a time from {_written(self._begin)} to {_written(self.end)}, "
                f"or from +0s to +{int(self.end - self._begin)}s",
            )  # fmt: skip
        return at

    def _title(self, at: float) -> str:
        who = self._job.title
        title = (
            f"{who if len(who) <= _TITLE else who[: _TITLE - 2] + '..'}  {_written(at)}  "
            f"{_clock(at - self._begin)} of {_clock(self.end - self._begin)}"
        )
        passed = [mark for mark in marks.read(self._directory) if mark.time <= at]
        return f"{title}  {passed[-1].text} -{_clock(at - passed[-1].time)}" if passed else title

    def _ask(self, expression: str, at: float) -> list[Sample]:
        """An instant vector."""
        found = self._data(Answer.vector, "/api/v1/query", query=expression, time=f"{at:.3f}")
        return [(labels.get("__name__", ""), labels, value) for labels, value in found]

    def _ask_range(self, expression: str, begin: float, end: float, step: float) -> list[float]:
        return [value for _, value in self._query_range(expression, begin, end, step)]

    def _query_range(
        self, expression: str, begin: float, end: float, step: float
    ) -> list[tuple[float, float]]:
        """Times and values of the one series of an expression; empty where there is none."""
        found = self._data(
            Answer.matrix, "/api/v1/query_range",
            query=expression, start=f"{begin:.3f}", end=f"{end:.3f}", step=f"{step:.3f}",
        )  # fmt: skip
        points = found[0][1] if found else []
        return [(at, value) for at, value in points if math.isfinite(value)]

    def _data(self, read: Callable[[Answer], _T], path: str, **query: str) -> _T:
        answer = self._service.get(path, **query)
        try:
            if answer.ok:
                return read(answer)
            problem = str(answer)
        except OddAnswerError as error:
            problem = str(error)
        raise SourceError(f"the job's Prometheus ({self._service.url}): {problem}")


def _written(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:02:05."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
