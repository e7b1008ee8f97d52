"""What a report consists of, whatever it is written as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `units` has one of UNITS a column: text, count, share (of 1), bytes, seconds.

    A cell is None where nothing was reported.
    """

    title: str
    columns: Sequence[str]
    units: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """Values over time: series by name, points of Unix time and value."""

    title: str
    unit: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Report:
    """A report of the time from `begin` to `end` (Unix time).

    Attributes:
        facts: name and value, the value a text.
        marks: moments that were marked.
        problems: questions that could not be asked, and why.
    """

    title: str
    begin: float
    end: float
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    plots: Sequence[Plot]
    marks: Sequence[tuple[float, str]] = ()
    problems: Sequence[str] = field(default_factory=tuple)


def written(value: str | float | None, unit: str) -> str:
    """A cell for people; "-" for what was not reported."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "seconds":
        return f"{value:,.0f} s"
    if unit in ("bytes", "bytes/s"):
        return _bytes(value) + ("/s" if unit == "bytes/s" else "")
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    size, prefix = value, ""
    for prefix in ("", "Ki", "Mi", "Gi", "Ti", "Pi"):
        if abs(size) < 1024 or prefix == "Pi":
            break
        size /= 1024
    return f"{size:.0f} B" if not prefix else f"{size:.1f} {prefix}B"
