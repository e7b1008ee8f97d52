"""A Prometheus that is asked for a report. Every question has a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clio_client.config.errors import ConfigError
from clio_exporter.report.questions import Range, at_the_end, over_time
from clio_exporter.service_client import Service

QUERY_SECONDS: Final = 60.0

Vector = list[tuple[dict[str, str], float]]
Matrix = list[tuple[dict[str, str], list[tuple[float, float]]]]


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
        if answer.ok:
            found = answer.data.get("result", [])
            answers.vectors[name] = [(r["metric"], float(r["value"][1])) for r in found]
        else:
            problems.append(f"{name}: {_why(answer)}")
    for name, (title, _unit, expression) in over_time(asked).items():
        answer = service.get(
            "/api/v1/query_range", query=expression,
            start=f"{asked.begin:.3f}", end=f"{asked.end:.3f}", step=str(asked.step),
        )  # fmt: skip
        if answer.ok:
            found = answer.data.get("result", [])
            answers.plots[name] = [
                (r["metric"], [(float(at), float(value)) for at, value in r["values"]]) for r in found
            ]
        else:
            problems.append(f"{title}: {_why(answer)}")
    return Answers(answers.vectors, answers.plots, problems)


def newest(url: str) -> float | None:
    """The Unix time of the newest sample; None where there is none."""
    stats: Any = Service(url, QUERY_SECONDS).get("/api/v1/status/tsdb").data.get("headStats", {})
    newest_ms = stats.get("maxTime")
    plausible = isinstance(newest_ms, int) and 0 < newest_ms < 1 << 53
    return newest_ms / 1000 if plausible else None


def rules_loaded(url: str) -> bool:
    """Whether this Prometheus has our alerts."""
    groups = Service(url, QUERY_SECONDS).get("/api/v1/rules", type="alert").data.get("groups", [])
    return any(rule.get("name", "").startswith("Clio") for group in groups for rule in group["rules"])


def _why(answer: Any) -> str:
    document = answer.document
    return document.get("error", str(answer)) if isinstance(document, dict) else str(answer)
