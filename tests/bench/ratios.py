"""The budgets of a scrape as ratios: their table, where it is kept, and what has changed. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

MARKS: Final = ("<!-- bench -->", "<!-- end of bench -->")
NOTEWORTHY: Final = 0.1
"""By how much of itself a figure may differ from the committed one without being worth a word."""

_ROW: Final = re.compile(r"^\| ([^|]+) \| ([0-9.]+)[^|]* \| (at most|at least) ([0-9.]+)[^|]* \| [^|]* \|$")


@dataclass(frozen=True)
class Figure:
    """One ratio or size, and the budget it is held to.

    Attributes:
        most: whether the budget is an upper bound; else it is a lower one.
    """

    name: str
    value: float
    budget: float
    unit: str = ""
    most: bool = True

    @property
    def holds(self) -> bool:
        """Whether it is within the budget."""
        return self.value <= self.budget if self.most else self.value >= self.budget


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| | measured | budget | |"
    yield "|---|---|---|---|"
    for figure in figures:
        bound = "at most" if figure.most else "at least"
        held = "held" if figure.holds else "missed"
        yield (
            f"| {figure.name} | {figure.value:.3g}{figure.unit} | {bound} {figure.budget:g}{figure.unit} "
            f"| {held} |"
        )


def committed(text: str) -> dict[str, float]:
    """The figures, by name, that a document has between the marks."""
    _, _, rest = text.partition(MARKS[0])
    rows = map(_ROW.match, rest.partition(MARKS[1])[0].splitlines())
    return {row[1]: float(row[2]) for row in rows if row}


def changes(figures: Iterable[Figure], before: Mapping[str, float]) -> Iterator[str]:
    """What is noteworthily better or worse than before, in words."""
    for figure in figures:
        old = before.get(figure.name)
        if old is None:
            yield f"{figure.name}: new"
        elif abs(figure.value - old) > NOTEWORTHY * old:
            better = (figure.value < old) is figure.most
            word = "better" if better else "worse"
            yield f"{figure.name}: {word}, {old:.3g} before, {figure.value:.3g} now"


def written(text: str, lines: Iterable[str]) -> str:
    """The document with these lines between the marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        raise ValueError(f"the document has no {MARKS[0]} ... {MARKS[1]}")
    inside = "\n".join(lines)
    return f"{before}{begin}\n{inside}\n{end}{after}"
