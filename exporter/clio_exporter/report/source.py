"""A Prometheus that is asked for a report. Every question has a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_exporter.report.questions import Range, at_the_end, over_time
from clio_exporter.service_client import Matrix, OddAnswerError, Service, Vector, rules_by_name

QUERY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What Prometheus said, by the names of the questions; `problems` of those that it did not answer."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    plots: dict[str, Matrix] = field(default_factory=dict)
    problems: Sequence[str] = ()


def ask(url: str, asked: Range) -> Answers:
    """Ask all questions of a report.

    Raises:
        ConfigError: Prometheus cannot be asked at all.
    """
    service = Service(url, QUERY_SECONDS)
    alive = service.get("/api/v1/query", query="1", time=f"{asked.end:.3f}")
    if not alive.ok or not alive.data:
        raise ConfigError(url, f"does not answer as Prometheus does: {alive}", "Give Prometheus's address")
    answers, problems = Answers(), []
    for name, expression in at_the_end(asked).items():
        answer = service.get("/api/v1/query", query=expression, time=f"{asked.end:.3f}")
        try:
            answers.vectors[name] = answer.vector()
        except OddAnswerError as error:
            problems.append(f"{name}: {error}")
    for name, (title, _unit, expression) in over_time(asked).items():
        answer = service.get(
            "/api/v1/query_range", query=expression,
            start=f"{asked.begin:.3f}", end=f"{asked.end:.3f}", step=str(asked.step),
        )  # fmt: skip
        try:
            answers.plots[name] = answer.matrix()
        except OddAnswerError as error:
            problems.append(f"{title}: {error}")
    return Answers(answers.vectors, answers.plots, problems)


def newest(url: str) -> float | None:
    """The Unix time of the newest sample; None where there is none."""
    stats: Any = Service(url, QUERY_SECONDS).get("/api/v1/status/tsdb").data.get("headStats")
    newest_ms = stats.get("maxTime") if isinstance(stats, dict) else None
    return newest_ms / 1000 if isinstance(newest_ms, int) and 0 < newest_ms < 1 << 53 else None


def rules_loaded(url: str) -> bool:
    """Whether this Prometheus has our alerts."""
    answer = Service(url, QUERY_SECONDS).get("/api/v1/rules", type="alert")
    return any(name.startswith("Clio") for name in rules_by_name(answer))
