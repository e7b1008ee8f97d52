"""The runbooks as a page, so that the links of alerts lead somewhere wherever the exporter runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADING = re.compile(r"(#{1,3}) +(.+?) *")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, its anchor as GitHub makes it, and the text below it."""

    level: int
    title: str
    anchor: str
    text: str


def sections(markdown: str) -> list[Section]:
    """The sections of a document, in order. What stands in code is no heading."""
    found: list[tuple[int, str, list[str]]] = []
    for line, is_code in _lines(markdown):
        heading = None if is_code else _HEADING.fullmatch(line)
        if heading:
            found.append((len(heading[1]), heading[2], []))
        elif found:
            found[-1][2].append(line)
    return [
        Section(level, title, _anchor(title), "\n".join(lines).strip("\n")) for level, title, lines in found
    ]


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    fenced = False
    for line in markdown.splitlines():
        fence = line.startswith("```")
        yield line, fenced or fence
        fenced ^= fence


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-")
