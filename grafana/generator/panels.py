"""Panels with this project's defaults, and how they are laid out.

Every function takes the title and a description (what is shown, from which metric, what is bad) and returns
a `Tile`. ``empty`` says when a panel may rightly have no data; Grafana shows it instead of "No data", and
the check of a rendered dashboard lists it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    nodegraph,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.generator import variables
from grafana.generator.thresholds import IDLE, Band, Mapping, as_property, config, mappings, nothing, plain

COLUMNS: Final = 24
MOST_TILES: Final = 5000
TILE_TEXT: Final = 11
LINES_HEIGHT: Final = 9
"""Room for a graph and three lines of its legend."""

_LITTLE: Final = {
    "short": 1,
    "s": 0.001,
    "bytes": 1024,
    "binBps": 1024,
    "ops": 1,
    "iops": 1,
    "reqps": 1,
    "cps": 1,
    "percentunit": 0.01,
}
"""How far the axis of a quantity without maximum reaches at least; Grafana would draw one that is always 0 up to 100."""


@dataclass(frozen=True)
class Query:
    """A PromQL query and the name its series have in the legend (``{{label}}`` is filled in).

    Attributes:
        below: drawn below the axis, without a minus in the legend, which a negated expression would have.
    """

    expr: str
    legend: str = ""
    colour: str | None = None
    dashed: bool = False
    unit: str | None = None
    right_axis: bool = False
    below: bool = False


@dataclass(frozen=True)
class Tile:
    """A panel and the room it takes, in Grafana's grid of 24 columns; whole lines where it is repeated."""

    panel: Any
    width: int
    height: int
    empty: str | None = None
    repeated: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and the panels below it, from left to right.

    Attributes:
        collapsed: closed until somebody opens it: what is about hardware or modules that most clusters lack.
    """

    title: str
    tiles: Sequence[Tile]
    collapsed: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        source: label, or letter of the query whose value it is.
        cell: ``text``, ``gauge`` (a bar), ``background`` or ``colour`` (by mapping or threshold).
        hidden: in the data, for links, but not shown.
        absent: shown in grey where there is no value; empty cells are left empty otherwise.
    """

    source: str
    title: str
    unit: str | None = None
    width: int | None = None
    cell: str = "text"
    band: Band | None = None
    mapping: Mapping | None = None
    links: Sequence[builders.DashboardLink] = ()
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    hidden: bool = False
    absent: str | None = None


def _dress(
    panel: Any, title: str, description: str, unit: str | None, empty: str | None, band: Band | None
) -> Any:
    panel = panel.title(title).description(description).datasource(variables.DATASOURCE)
    if unit is not None:
        panel = panel.unit(unit)
    if empty is not None:
        panel = panel.no_value(empty)
    return panel.thresholds(config(band) if band is not None else plain())


def _target(query: Query, ref: str, kind: str) -> prometheus_builders.Dataquery:
    built = prometheus_builders.Dataquery().datasource(variables.DATASOURCE).ref_id(ref).expr(query.expr)
    if kind == "range":
        return built.range().legend_format(query.legend or "__auto")
    if kind == "instant":
        return built.instant().legend_format(query.legend or "__auto")
    return built.instant().format(PromQueryFormat.TABLE)


def _with_targets(panel: Any, queries: Iterable[Query], kind: str) -> Any:
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(_target(query, ref, kind))
    return panel


def _property(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)


def _fixed(colour: str) -> models.DynamicConfigValue:
    return _property("color", {"mode": "fixed", "fixedColor": colour})


def _colour(mode: str, fixed: str | None = None) -> builders.FieldColor:
    colour = builders.FieldColor().mode(models.FieldColorModeId(mode))
    return colour.fixed_color(fixed) if fixed else colour


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _texts(label: str) -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(True).limit(4).fields(f"/^{label}$/")


def _counted(unit: str, decimals: int | None) -> str:
    """Whole numbers are written out: 1,600 instead of 2 K."""
    return "locale" if unit == "short" and decimals == 0 else unit


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "short",
    band: Band | None = None,
    mapping: Mapping | None = None,
    label: str | None = None,
    colour: str | None = None,
    empty: str | None = None,
    width: int = 3,
    height: int = 4,
    decimals: int | None = None,
    trend: bool = False,
    links: Sequence[builders.DashboardLink] = (),
) -> Tile:
    """One big number; or the text of a `label`, of each series there is. `colour` is for what is never judged."""
    panel = _dress(stat.Panel(), title, description, _counted(unit, decimals), empty, band)
    panel = _with_targets(panel, [Query(expr)], "table" if label else "range" if trend else "instant")
    reduced = _last() if label is None else _texts(label)
    panel = (
        panel.reduce_options(reduced)
        .graph_mode(common_models.BigValueGraphMode.AREA if trend else common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .text_mode(common_models.BigValueTextMode.VALUE)
        .justify_mode(common_models.BigValueJustifyMode.AUTO)
        .orientation(common_models.VizOrientation.AUTO)
        .color_scheme(_colour("thresholds"))
        .data_links(list(links))
    )
    if colour is not None:
        panel = panel.thresholds(plain(colour))
    mapped = mappings(mapping) if mapping is not None else []
    # Without data at all too: the colour of a number would say that it is well.
    panel = panel.mappings([*mapped, nothing(empty or "No data")])
    if decimals is not None:
        panel = panel.decimals(decimals)
    return Tile(panel, width, height, empty)


def tiles(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "short",
    band: Band | None = None,
    mapping: Mapping | None = None,
    height: int = 5,
    links: Sequence[builders.DashboardLink] = (),
    empty: str | None = None,
) -> Tile:
    """A map of nodes: one coloured tile a node, by node id, named by the label ``name``; a panel each ``$block``."""
    panel = _dress(stat.Panel(), title, description, "none", empty, band)
    panel = _with_targets(panel, [Query(expr)], "table")
    # Prometheus sorts by the text of labels: 1, 10, 100, 2. The panel shows every field that is a number: the
    # id has to be text again after it was sorted as one.
    for step in (_converted("node_id", "number"), _sorted("node_id"), _converted("node_id", "string")):
        panel = panel.with_transformation(step)
    panel = (
        panel.reduce_options(
            common.ReduceDataOptions().calcs(["lastNotNull"]).values(True).limit(MOST_TILES).fields("")
        )
        # Fixed, for the panel's own choice cuts the ids of some hundred nodes off.
        .text(common.VizTextDisplayOptions().title_size(TILE_TEXT).value_size(TILE_TEXT))
        .display_name("${__data.fields.name}")
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.BACKGROUND_SOLID)
        .text_mode(common_models.BigValueTextMode.NAME)
        .justify_mode(common_models.BigValueJustifyMode.CENTER)
        .orientation(common_models.VizOrientation.AUTO)
        .color_scheme(_colour("thresholds"))
        .mappings([nothing(empty or "No data")])
        .data_links(list(links))
    )
    # Of the value alone: ids would be shown with the unit and mapped too.
    properties = [_property("unit", unit)]
    if mapping is not None:
        properties.append(_property("mappings", mappings(mapping)))
    panel = panel.override_by_name("Value", properties)
    panel = panel.repeat("block").repeat_direction("h").max_per_row(2)
    return Tile(panel, COLUMNS // 2, height, empty, repeated=True)


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "percentunit",
    band: Band | None = None,
    low: float | None = 0,
    high: float | None = 1,
    mapping: Mapping | None = None,
    mapped: str = "A",
    repeat: str | None = None,
    per_row: int = 4,
    width: int = 8,
    height: int = 7,
    links: Sequence[builders.DashboardLink] = (),
    overrides: Sequence[tuple[str, list[models.DynamicConfigValue]]] = (),
    empty: str | None = None,
) -> Tile:
    """Horizontal bars, one a series; `mapping` and `overrides` are by letter of the query."""
    panel = _dress(bargauge.Panel(), title, description, unit, empty, band)
    panel = _with_targets(panel, queries, "instant")
    panel = (
        panel.reduce_options(_last())
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .value_mode(common_models.BarGaugeValueMode.TEXT)
        .name_placement(common_models.BarGaugeNamePlacement.LEFT)
        .show_unfilled(True)
        .min_viz_height(16)
        .max_viz_height(26)
        .text(common.VizTextDisplayOptions().title_size(13).value_size(13))
        .color_scheme(_colour("thresholds") if band else _colour("fixed", "blue"))
        .data_links(list(links))
    )
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if mapping is not None:
        panel = panel.override_by_query(mapped, [_property("mappings", mappings(mapping))])
    for ref, properties in overrides:
        panel = panel.override_by_query(ref, properties)
    if repeat is not None:
        panel = panel.repeat(repeat).repeat_direction("h").max_per_row(per_row)
    return Tile(panel, width, height, empty, repeated=repeat is not None)


def override(name: str, value: object) -> models.DynamicConfigValue:
    """A property of a field, for `bars`."""
    return _property(name, value)


def _legend(*, highest_first: bool) -> common.VizLegendOptions:
    """Last value and maximum. Of many of a kind, only three have room: the highest; the rest is scrolled to."""
    legend = (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    return legend.sort_by("Last *").sort_desc(True) if highest_first else legend


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    band: Band | None = None,
    show_band: bool = True,
    low: float | None = 0,
    high: float | None = None,
    stacked: bool = False,
    points: bool = False,
    decimals: int | None = None,
    width: int = 12,
    height: int = LINES_HEIGHT,
    colours: dict[str, str] | None = None,
    links: Sequence[builders.DashboardLink] = (),
    empty: str | None = None,
) -> Tile:
    """Lines over time with a legend of last value and maximum; `colours` are by name of the series."""
    # Filled areas of many lines hide each other.
    named = ["{{" in query.legend for query in queries]
    alike = named.count(True) == 1 or (all(named) and not any(query.dashed for query in queries))
    several = len(queries) > 1 or "{{" in queries[0].legend
    panel = _dress(timeseries.Panel(), title, description, _counted(unit, decimals), empty, band)
    panel = _with_targets(panel, queries, "range")
    panel = (
        panel.draw_style(common_models.GraphDrawStyle.LINE)
        # Of a stack only the areas count: the line of one that is 0 would run along the others.
        .line_width(0 if stacked else 1)
        .line_interpolation(common_models.LineInterpolation.LINEAR)
        .fill_opacity(60 if stacked else 0 if several else 8)
        .show_points(common_models.VisibilityMode.ALWAYS if points else common_models.VisibilityMode.NEVER)
        .span_nulls(False)
        .color_scheme(_colour("palette-classic"))
        .legend(_legend(highest_first=alike))
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .data_links(list(links))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    # Grafana draws the line of a threshold in the colour above it, which misleads where low is bad.
    if band is not None and show_band and not band.low_is_bad:
        style = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    elif unit in _LITTLE:
        panel = panel.axis_soft_max(_LITTLE[unit])
    if decimals is not None:
        panel = panel.decimals(decimals)
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [_fixed(colour)])
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        properties = []
        if query.colour is not None:
            properties.append(_fixed(query.colour))
        if query.dashed:
            properties.append(_property("custom.lineStyle", {"fill": "dash", "dash": [6, 6]}))
            properties.append(_property("custom.fillOpacity", 0))
        if query.unit is not None:
            properties.append(_property("unit", query.unit))
        if query.right_axis:
            properties.append(_property("custom.axisPlacement", "right"))
        if query.below:
            properties.append(_property("custom.transform", common_models.GraphTransform.NEGATIVE_Y))
        if properties:
            panel = panel.override_by_query(ref, properties)
    return Tile(panel, width, height, empty)


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    mapping: Mapping,
    *,
    width: int = COLUMNS,
    height: int = LINES_HEIGHT,
    empty: str | None = None,
) -> Tile:
    """A row of coloured states over time a series."""
    panel = _dress(statetimeline.Panel(), title, description, "short", empty, None)
    panel = _with_targets(panel, queries, "range")
    panel = (
        panel.show_value(common_models.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(85)
        .line_width(0)
        # With colours by threshold Grafana would show the thresholds' bands instead of the mapped states.
        .color_scheme(_colour("fixed", IDLE))
        .mappings(mappings(mapping))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return Tile(panel, width, height, empty)


def _transformation(name: str, **options: object) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)


def _converted(name: str, kind: str) -> models.DataTransformerConfig:
    conversion = {"targetField": name, "destinationType": kind}
    return _transformation("convertFieldType", conversions=[conversion], fields={})


def _sorted(name: str) -> models.DataTransformerConfig:
    return _transformation("sortBy", fields={}, sort=[{"field": name}])


_CELLS: Final[dict[str, dict[str, object]]] = {
    "gauge": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
    "background": {"type": "color-background", "mode": "basic"},
    "colour": {"type": "color-text"},
}


def rows(
    title: str,
    description: str,
    queries: Sequence[str],
    columns: Sequence[Column],
    *,
    sort: str,
    descending: bool = True,
    width: int = COLUMNS,
    height: int = 10,
    empty: str | None = None,
    drop: Sequence[str] = (),
) -> Tile:
    """A sortable table: one row a set of labels, one column a label or query (letters A, B, ...).

    All queries must keep the same labels, or rows fall apart; `drop` names labels that are not shown.
    """
    panel = _dress(table.Panel(), title, description, None, empty, None)
    panel = _with_targets(panel, [Query(expr) for expr in queries], "table")
    single = len(queries) == 1

    def source(column: Column) -> str:
        if column.source not in ascii_uppercase:
            return column.source
        return "Value" if single else f"Value #{column.source}"

    if not single:
        panel = panel.with_transformation(_transformation("merge"))
    shown = {source(column) for column in columns}
    unused = {"Time", *drop} | (
        {"Value"} if single else {f"Value #{r}" for r in ascii_uppercase[: len(queries)]}
    )
    panel = panel.with_transformation(
        _transformation(
            "organize",
            excludeByName=dict.fromkeys(sorted(unused - shown), True),
            indexByName={source(column): index for index, column in enumerate(columns)},
            renameByName={source(column): column.title for column in columns},
        )
    )
    panel = (
        panel.show_header(True)
        .cell_height(common_models.TableCellHeight.SM)
        .align(common_models.FieldTextAlignment.AUTO)
        .sort_by([common.TableSortByFieldState().display_name(sort).desc(descending)])
    )
    for column in columns:
        properties = _column(column)
        if properties:
            panel = panel.override_by_name(column.title, properties)
    return Tile(panel, width, height, empty)


def _column(column: Column) -> list[models.DynamicConfigValue]:
    # The text for an empty table would otherwise fill empty cells too.
    found = [_property("noValue", "")]
    if column.hidden:
        found.append(_property("custom.hidden", True))
    if column.unit is not None:
        found.append(_property("unit", column.unit))
    if column.width is not None:
        found.append(_property("custom.width", column.width))
    if column.decimals is not None:
        found.append(_property("decimals", column.decimals))
    if column.low is not None:
        found.append(_property("min", column.low))
    if column.high is not None:
        found.append(_property("max", column.high))
    if column.cell in _CELLS:
        found.append(_property("custom.cellOptions", _CELLS[column.cell]))
    if column.band is not None:
        found.append(as_property(column.band))
        found.append(_property("color", {"mode": "thresholds"}))
    elif column.cell == "gauge":
        found.append(_fixed("blue"))
    # Beside the empty bar, which alone would look like 0 %.
    absent = column.absent or ("n/a" if column.cell == "gauge" else None)
    if absent is not None:
        found.append(_property("mappings", [nothing(absent)]))
    if column.mapping is not None or column.cell == "background":
        found.append(_property("custom.align", "left"))
    if column.cell == "text" and column.unit is None and not column.links and not column.hidden:
        # The whole of a text that is too long for its cell opens by a click.
        found += [_property("custom.filterable", True), _property("custom.inspect", True)]
    if column.mapping is not None:
        found.append(_property("mappings", mappings(column.mapping)))
        if column.band is None:
            found.append(_property("color", {"mode": "thresholds"}))
    if column.links:
        found.append(_property("links", [link.build() for link in column.links]))
    return found


def graph(
    title: str,
    description: str,
    nodes: str,
    edges: str,
    *,
    unit: str = "short",
    width: int = COLUMNS,
    height: int = 12,
    empty: str | None = None,
) -> Tile:
    """A graph of nodes and edges.

    `nodes` has the labels ``id``, ``title`` and perhaps ``subtitle``, ``color`` and ``mainstat``, the text
    in the circle (the panel writes numbers with two decimals, whatever they are); `edges` has ``id``,
    ``source`` and ``target``.
    """
    panel = _dress(nodegraph.Panel(), title, description, unit, empty, None)
    panel = _with_targets(panel, [Query(nodes), Query(edges)], "table")
    return Tile(panel, width, height, empty)
