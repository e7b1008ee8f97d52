"""A report as text, Markdown and one HTML page."""

from __future__ import annotations

import time
from importlib.resources import files

import jinja2
from markupsafe import Markup

from clio_exporter.report.model import Report, Table, written

NO_PLOTS = "Plots need matplotlib: pip install 'clio-exporter[report]'"


def text(report: Report) -> str:
    """For a terminal or a job's output."""
    lines = [report.title, "=" * len(report.title), *_head(report), ""]
    for table in report.tables:
        lines += [table.title, *_aligned(table), *([table.note] if table.note else []), ""]
    lines += [f"{clock(at)}  {said}" for at, said in report.marks]
    lines += [f"not known: {problem}" for problem in report.problems]
    return "\n".join(lines).rstrip() + "\n"


def markdown(report: Report) -> str:
    """Markdown, as GitHub writes tables."""
    lines = [f"# {_escaped(report.title)}", "", *(f"- {_escaped(line)}" for line in _head(report)), ""]
    for table in report.tables:
        align = ["---" if unit == "text" else "---:" for unit in table.units]
        lines += [f"## {table.title}", ""]
        if table.rows:
            rows = [[_escaped(cell) for cell in row] for row in cells(table)]
            lines += ["| " + " | ".join(row) + " |" for row in (table.columns, align, *rows)] + [""]
        lines += [table.note, ""] if table.note else []
    if report.marks:
        lines += ["## Marks", "", *(f"- {clock(at)} {_escaped(said)}" for at, said in report.marks), ""]
    lines += [f"- not known: {_escaped(problem)}" for problem in report.problems]
    return "\n".join(lines).rstrip() + "\n"


def html(report: Report) -> str:
    """One page that needs nothing else; with plots where matplotlib is installed."""
    try:
        from clio_exporter.report import plots

        drawn = [(plot.title, Markup(plots.svg(plot, report.marks))) for plot in report.plots]  # noqa: S704 - matplotlib escapes texts
        note = ""
    except ImportError:
        drawn, note = [], NO_PLOTS
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files(__package__) / "page.html").read_text(encoding="utf-8"))
    return template.render(
        report=report, head=_head(report), drawn=drawn, note=note, cells=cells, clock=clock, zip=zip
    )


def cells(table: Table) -> list[list[str]]:
    """The rows as texts."""
    return [[written(cell, unit) for cell, unit in zip(row, table.units, strict=True)] for row in table.rows]


def clock(at: float) -> str:
    """A Unix time, here."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def _head(report: Report) -> list[str]:
    seconds = report.end - report.begin
    span = f"{clock(report.begin)} to {clock(report.end)} ({seconds:,.0f} s)"
    return [span, *(f"{name}: {value}" for name, value in report.facts)]


def _aligned(table: Table) -> list[str]:
    rows = [list(table.columns), *cells(table)]
    if len(rows) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if unit == "text" else cell.rjust(width)
            for cell, width, unit in zip(row, widths, table.units, strict=True)
        ).rstrip()
        for row in rows
    ]


def _escaped(cell: str) -> str:
    """A text that Markdown takes for nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in cell)
