"""From sections of panels to a dashboard: positions, ids, variables, links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from grafana.generator import links, variables
from grafana.generator.panels import COLUMNS, Section, Tile


@dataclass(frozen=True)
class Board:
    """A dashboard before it is built.

    Attributes:
        uid: stable identity, also its file name.
        question: what the dashboard answers, in one sentence.
        actions: links to what can be done, after those to the other dashboards.
    """

    uid: str
    question: str
    sections: Sequence[Section]
    variables: Sequence[Builder[models.VariableModel]]
    annotations: Sequence[Builder[models.AnnotationQuery]] = ()
    actions: Sequence[builders.DashboardLink] = ()
    span: str = "now-30m"
    tags: Sequence[str] = field(default=(links.TAG,))


def build(board: Board) -> models.Dashboard:
    """The dashboard. Panels flow from left to right; ids count up in reading order."""
    builder = (
        builders.Dashboard(f"CLIO / {links.TITLES[board.uid]}")
        .uid(board.uid)
        .description(board.question)
        .tags(list(board.tags))
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(board.span, "now")
        .timepicker(builders.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m", "15m"]))
        .refresh("5s")
        .editable()
        .links([*links.navigation(board.uid), *board.actions])
        .variables([variables.datasource(), *board.variables])
        .annotations(list(board.annotations))
    )
    top = 0
    number = 0
    for section in board.sections:
        row = None
        if section.title:
            number += 1
            row = builders.Row(section.title).id(number).grid_pos(models.GridPos(h=1, w=COLUMNS, x=0, y=top))
            top += 1
        number, bottom, placed = _place(section.tiles, number, top)
        if row is not None and section.collapsed:
            # Grafana has the panels of a closed row inside it, and what follows right below.
            for panel in placed:
                row = row.with_panel(panel)
            builder = builder.with_row(row)
            continue
        if row is not None:
            builder = builder.with_row(row)
        for panel in placed:
            builder = builder.with_panel(panel)
        top = bottom
    return builder.build()


def _place(tiles: Sequence[Tile], number: int, top: int) -> tuple[int, int, list[Any]]:
    placed = []
    left = 0
    row_height = 0
    for tile in tiles:
        width = COLUMNS if tile.repeated else tile.width
        if left + width > COLUMNS:
            left = 0
            top += row_height
            row_height = 0
        number += 1
        # The builder positions a panel at 0, 0 itself; only the very first one is there, and it stays.
        position = models.GridPos(h=tile.height, w=tile.width, x=left, y=top)
        placed.append(tile.panel.id(number).grid_pos(position))
        left += width
        row_height = max(row_height, tile.height)
    return number, top + row_height, placed


def expected_empty(board: Board) -> dict[int, str]:
    """Ids of panels that may rightly have no data, with the reason."""
    found = {}
    number = 0
    for section in board.sections:
        number += 1 if section.title else 0
        for tile in section.tiles:
            number += 1
            if tile.empty is not None:
                found[number] = tile.empty
    return found
