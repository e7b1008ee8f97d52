"""Plots as SVG, by matplotlib: the only module that imports it."""

from __future__ import annotations

import datetime
import io
import itertools
import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib import dates, ticker
from matplotlib.figure import Figure

from clio_exporter.report.model import Plot, written

_INK = "#010203"
"""Stands for the page's own colour, which may be light or dark."""


def svg(plot: Plot, marks: Sequence[tuple[float, str]]) -> str:
    """The plot, as an `svg` element in the colours of the page."""
    settings = {
        "svg.fonttype": "none", "svg.hashsalt": plot.title, "font.family": "sans-serif", "font.size": 9,
        "text.parse_math": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    }  # fmt: skip
    gaps = [b - a for points in plot.series.values() for (a, _), (b, _) in itertools.pairwise(points)]
    step = min(gaps, default=0.0)
    with mpl.rc_context(settings):
        figure = Figure(figsize=(8, 2.6), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for name, points in plot.series.items():
            broken = with_gaps(points, step)
            times = [_local(at) for at, _ in broken]
            axes.plot(times, [value for _, value in broken], label=name, linewidth=1.2)
        for at, said in marks:
            axes.axvline(dates.date2num(_local(at)), color=_INK, linewidth=0.8, linestyle=":")
            axes.annotate(
                f" {said}", (dates.date2num(_local(at)), 1.0), xycoords=axes.get_xaxis_transform(),
                fontsize=7, va="bottom",
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        locator = dates.AutoDateLocator(maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        if plot.unit == "bytes/s" and (top := axes.get_ylim()[1]) > 0:
            axes.yaxis.set_major_locator(ticker.MultipleLocator(2.0 ** math.ceil(math.log2(top / 6))))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _tick(value, plot.unit)))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        text = io.StringIO()
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")


def with_gaps(points: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """The points, with one that is no number where some are missing: no line is drawn over it."""
    found: list[tuple[float, float]] = []
    for at, value in points:
        if found and at - found[-1][0] > 1.5 * step:
            found.append((found[-1][0] + step, math.nan))
        found.append((at, value))
    return found


def _tick(value: float, unit: str) -> str:
    return f"{value:g}" if unit == "tasks/s" else written(value, unit)


def _local(at: float) -> datetime.datetime:
    """Without a zone: matplotlib would show UTC."""
    return datetime.datetime.fromtimestamp(at).astimezone().replace(tzinfo=None)
