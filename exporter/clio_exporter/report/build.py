"""From what Prometheus answered to a report. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from clio_exporter.report.model import Plot, Report, Table, written
from clio_exporter.report.questions import ALERT, NODE, TIER, WORKER, Range, over_time
from clio_exporter.report.source import Answers
from clio_exporter.service_client import Matrix, Vector

SHOWN_WORKERS = 20
SHOWN_SERIES = 8
STRAGGLER = 0.5
"""A node that did less than this part of the median's tasks."""
_LONGEST_NUMBER = 10

_Key = tuple[str, ...]


def build(
    title: str, asked: Range, answers: Answers, *, rules: bool, marks: Sequence[tuple[float, str]] = ()
) -> Report:
    """The report; `rules` says whether our alerts were evaluated over the range."""
    get = answers.vectors.get
    tasks = _by(get("tasks"), NODE)
    samples = _by(get("samples"), NODE)
    facts = [("nodes", str(len(samples)))]
    if tasks:
        facts.append(("tasks", written(sum(tasks.values()), "count")))
    for name in ("read", "written"):
        if moved := _by(get(name), TIER):
            facts.append((f"bytes {name}", written(sum(moved.values()), "bytes")))
    if asked.interval and samples:
        share = sum(samples.values()) / (len(samples) * (asked.seconds / asked.interval))
        facts.append(("coverage", f"{written(min(1.0, share), 'share')} of the samples expected"))
    late = stragglers(tasks)
    facts.append(("stragglers", ", ".join(_node(key) for key in late) or "none"))
    tables = [_nodes(answers, asked), _tiers(answers), _workers(answers, asked)]
    if rules:
        tables.append(_alerts(get("alerts")))
    problems = list(answers.problems)
    if not rules:
        problems.append("alerts: this Prometheus has no rules of ours, so none could fire")
    plots = [
        Plot(title, unit, _series(answers.plots.get(name, [])))
        for name, (title, unit, _) in over_time(asked).items()
    ]  # fmt: skip
    shown = [plot for plot in plots if plot.series]
    return Report(
        title, asked.begin, asked.end, facts, [t for t in tables if t.rows or t.note], shown,
        [mark for mark in marks if asked.begin <= mark[0] <= asked.end], problems,
    )  # fmt: skip


def stragglers(tasks: dict[_Key, float]) -> list[_Key]:
    """Of three nodes or more, those that did less than half of the median's tasks."""
    if len(tasks) < 3:
        return []
    median = statistics.median(tasks.values())
    return sorted(key for key, value in tasks.items() if value < STRAGGLER * median)


def _nodes(answers: Answers, asked: Range) -> Table:
    names = ("tasks", "cpu", "memory", "gpu", "hbm", "answered", "samples")
    found = [_by(answers.vectors.get(name), NODE) for name in names]
    workers = _by(answers.vectors.get("worker saturated"), WORKER)
    rows = []
    for key in _keys(found):
        *values, samples = (column.get(key) for column in found)
        own = [value for worker, value in workers.items() if worker[: len(NODE)] == key]
        saturated = statistics.fmean(own) * asked.seconds if own else None
        covered = None
        if asked.interval and samples is not None:
            covered = min(1.0, samples * asked.interval / asked.seconds)
        rows.append((_node(key), *values[:5], saturated, values[5], covered))
    return Table(
        "Nodes",
        (
            "node", "tasks", "CPU peak", "memory peak", "GPU peak", "HBM peak", "saturated", "answered",
            "samples",
        ),
        ("text", "count", "share", "share", "share", "share", "seconds", "share", "share"),
        rows,
        "Saturated: time in which its workers had work, their mean. Answered: share of scrapes. Samples: of "
        "those expected.",
    )  # fmt: skip


def _tiers(answers: Answers) -> Table:
    names = ("read", "written", "capacity", "occupied")
    found = [_by(answers.vectors.get(name), TIER) for name in names]
    return Table(
        "Tiers",
        ("node", "tier", "read", "written", "capacity", "occupied, peak"),
        ("text", "text", "bytes", "bytes", "bytes", "share"),
        [
            (_node(key[:3]), key[3], *(column.get(key) for column in found))
            for key in _keys(found)
        ],
        "The runtime counts no bytes of memory tiers.",
    )  # fmt: skip


def _workers(answers: Answers, asked: Range) -> Table:
    names = ("worker tasks", "worker saturated", "worker queue")
    found = [_by(answers.vectors.get(name), WORKER) for name in names]
    busiest = sorted(_keys(found), key=lambda key: -found[1].get(key, 0.0))[:SHOWN_WORKERS]
    rows = []
    for key in busiest:
        share = found[1].get(key)
        seconds = None if share is None else share * asked.seconds
        rows.append((_node(key[:3]), key[3], found[0].get(key), seconds, found[2].get(key)))
    return Table(
        f"Workers, the {SHOWN_WORKERS} busiest",
        ("node", "worker", "tasks", "saturated", "longest queue"),
        ("text", "text", "count", "seconds", "count"),
        rows,
    )


def _alerts(vector: Vector | None) -> Table:
    found = sorted(_by(vector, ALERT).items(), key=lambda item: -item[1])
    return Table(
        "Alerts that fired",
        ("alert", "severity", "node", "for"),
        ("text", "text", "text", "seconds"),
        [(key[0], key[1], _node(key[2:]), seconds) for key, seconds in found],
        "" if found else "None.",
    )


def _by(vector: Vector | None, labels: Sequence[str]) -> dict[_Key, float]:
    """Values by these labels; NaN is no value."""
    return {
        tuple(metric.get(label, "") for label in labels): value
        for metric, value in vector or ()
        if not math.isnan(value)
    }


def _keys(columns: Iterable[Iterable[_Key]]) -> list[_Key]:
    """Every key of any column, nodes by number."""
    found = {key for column in columns for key in column}
    return sorted(found, key=lambda key: (key[0], _number(key[1]), key[2], *map(_number, key[3:])))


def _number(text: str) -> tuple[int, str]:
    return (int(text) if text.isdecimal() and len(text) < _LONGEST_NUMBER else -1, text)


def _node(key: Sequence[str]) -> str:
    cluster, node_id, hostname = key
    place = f"{cluster}/{node_id}" if cluster else node_id
    return f"{place} {hostname}".strip()


def _series(matrix: Matrix) -> dict[str, list[tuple[float, float]]]:
    """The series with the highest peaks, by what tells them apart."""
    highest = sorted(matrix, key=lambda entry: -max((v for _, v in entry[1]), default=0.0))[:SHOWN_SERIES]
    # In one order in all plots, and so in the same colours.
    keyed = {tuple(metric.get(n, "") for n in (*NODE, "type")): points for metric, points in highest}
    return {key[3] or _node(key[:3]): keyed[key] for key in _keys([keyed])}
