"""The committed dashboards: true to the metrics, consistent, and fit to be looked at."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest
import yaml

from grafana.generator.rules import RECORDED
from grafana.generator.thresholds import IDLE
from tests.promql import lint
from tests.unit.grafana import boards
from tests.unit.grafana.boards import (
    ROOT,
    UIDS,
    Promql,
    all_queries,
    expand,
    load,
    name_of,
    panels,
    promql_of_variable,
)
from tests.unit.grafana.promql import LabelError, calls, labels, selectors
from tests.unit.prometheus.rulefiles import metrics

QUERIES = all_queries()
RULES = ROOT / "prometheus" / "rules"
NODE_SEARCH = "clio-node-search"
NO_RULES = "prometheus/rules is not part of this tree"


def parsed(query: Promql) -> promql_parser.Expr:
    return promql_parser.parse(expand(query.text))


def test_every_dashboard_is_there_once() -> None:
    assert [load(uid)["uid"] for uid in UIDS] == list(UIDS)
    assert len({load(uid)["title"] for uid in UIDS}) == len(UIDS)
    assert {path.stem for path in boards.DIRECTORY.iterdir()} == set(UIDS)


def test_what_is_drawn_below_the_axis_is_no_negative_number() -> None:
    """A negated expression would write -209 KiB/s in the legend."""
    mirrored = {}
    for uid in UIDS:
        for panel in panels(uid):
            below = {
                override["matcher"]["options"]
                for override in panel["fieldConfig"]["overrides"]
                if {"id": "custom.transform", "value": "negative-Y"} in override["properties"]
            }
            if below or "(down)" in panel.get("description", ""):
                mirrored[panel["title"]] = below
                assert not [t["expr"] for t in panel["targets"] if t["expr"].startswith("-")]
    assert mirrored == {title: {"B"} for title in ("Throughput", "I/O operations", "Bytes by tier")}


def test_that_there_is_no_number_is_said_in_grey() -> None:
    """Else in the colour of 0, which says that all is well."""
    for uid in UIDS:
        for panel in panels(uid):
            if panel["type"] == "stat":
                absent = [
                    m["options"]
                    for m in panel["fieldConfig"]["defaults"]["mappings"]
                    if m["type"] == "special"
                ]
                assert [(m["match"], m["result"]["color"]) for m in absent] == [("null+nan", IDLE)], panel[
                    "title"
                ]


# --- Queries -------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.where)
def test_metrics_and_labels_exist(query: Promql) -> None:
    there = labels(parsed(query))
    named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert named <= there, f"legend {query.legend!r} of {sorted(there)}"


@pytest.mark.parametrize(
    "expr",
    [
        "clio_node_upp",
        'clio_node_up{nodeid="1"}',
        "sum by (pool) (clio_bdev_free_bytes)",
        "clio_node_up * on (node_id, type) group_left () clio_bdev_info",
        'label_replace(clio_node_up, "a", "$1", "hostnam", "(.*)")',
        "clio_bdev_free_bytes * on (node_id, pool_id) group_left (kind) clio_bdev_info",
    ],
)
def test_the_check_of_labels_finds_mistakes(expr: str) -> None:
    with pytest.raises(LabelError):
        labels(promql_parser.parse(expr))


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.where)
def test_rates_are_taken_over_the_rate_interval(query: Promql) -> None:
    raw = re.findall(r"\b(rate|irate|increase)\(([^\[]*)\[([^\]]*)\]", query.text)
    windows = {window for _, _, window in raw}
    # A variable is asked without a step of its own, so it has no rate interval either.
    assert windows <= ({"5m"} if "$busiest" in query.where else {"$__rate_interval"})
    for call in calls(parsed(query)):
        if call.func.name in ("rate", "increase"):
            for name, _ in selectors(call):
                assert name.endswith(("_total", "_sum", "_count")), f"{name} is no counter"


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.where)
def test_a_node_that_two_exporters_see_counts_once(query: Promql) -> None:
    """`max by` before any sum, and one row or line of each thing; docs/alerting.md says so."""
    # Each exporter's own questions are added up: a runtime answers all of them.
    one = "max by (cluster, node_id, hostname) (clio_node_up)"
    text = re.sub(r"rate\(clio_node_questions_total\{[^}]*\}\[[^]]*\]\)", one, expand(query.text))
    assert [p for p in lint(text, metrics()).problems if "counts a node twice" in p] == []
    shown = labels(promql_parser.parse(text))
    assert (
        query.where.split("$")[-1] in ("cluster", "node", "job", "match")
        or not {"node_id", "instance"} <= shown
    )


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.where)
def test_selectors_follow_the_selection(query: Promql) -> None:
    """Every selector is bound to the chosen cluster, or where the metric has none to the chosen job."""
    if query.where.split("$")[-1] in ("cluster", "job"):
        return
    for name, selector in selectors(parsed(query)):
        if name == "clio_node_up" and query.text.count("0 * max(clio_node_up)"):
            continue  # one series that stands for the exporter
        if name == "clio_annotation_timestamp_seconds":
            continue  # of a job as a whole, which no page selects
        bound = {matcher.name for matcher in selector.matchers.matchers}
        wanted = "cluster" if "cluster" in labels(selector) else "job"
        assert wanted in bound, f"{name}{bound}"


def test_recorded_series_are_those_of_the_rules() -> None:
    if not RULES.is_dir():
        pytest.skip(NO_RULES)
    recorded = {rule["record"] for rule in boards.rules(RULES) if "record" in rule}
    assert RECORDED.keys() - recorded == set()
    used = {name for query in QUERIES for name, _ in selectors(parsed(query)) if ":" in name}
    assert used == RECORDED.keys(), "grafana/generator/rules.py lists what no dashboard uses"


# --- Panels --------------------------------------------------------------------

ALL_PANELS = [(uid, panel) for uid in UIDS for panel in panels(uid)]


def tables() -> list[Any]:
    return [x for x in ALL_PANELS if x[1]["type"] == "table"]


def by_column(panel: Any) -> dict[str, dict[str, Any]]:
    """Properties of each column, by the title that is shown."""
    (organize,) = [t for t in panel["transformations"] if t["id"] == "organize"]
    found: dict[str, dict[str, Any]] = {t: {} for t in organize["options"]["renameByName"].values()}
    for override in panel["fieldConfig"]["overrides"]:
        properties = {p["id"]: p["value"] for p in override["properties"]}
        found.setdefault(override["matcher"]["options"], {}).update(properties)
    return found


def panel_ids(value: Any) -> str:
    return f"{value['id']}" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("uid", "panel"), ALL_PANELS, ids=panel_ids)
def test_panels_explain_themselves(uid: str, panel: Any) -> None:
    assert re.search(r"[A-Za-z]{3}", panel["title"])
    text = panel["description"]
    assert len(text) > 40
    assert text.endswith(".")
    assert re.search(r"clio_\w+|ALERTS|\bup\b|scrape_\w+|process_\w+", text), "names no metric"
    defaults = panel["fieldConfig"]["defaults"]
    overrides = [p for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
    assert defaults.get("unit") or any(p["id"] == "unit" for p in overrides) or panel["type"] == "table"
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(refs) == len(set(refs))


def test_metrics_named_in_descriptions_exist() -> None:
    known = {name for query in QUERIES for name, _ in selectors(parsed(query))}
    for uid, panel in ALL_PANELS:
        used = {n for t in panel["targets"] for n, _ in selectors(promql_parser.parse(expand(t["expr"])))}
        for name in re.findall(
            r"(?<![\w:])(?:\w+:)?clio_[a-z_]+[a-z](?::\w+)?(?![\w*])", panel["description"]
        ):
            assert {name, f"{name}_sum"} & (used | known), f"{name_of(uid, panel)}: {name}"


@pytest.mark.parametrize(("uid", "panel"), ALL_PANELS, ids=panel_ids)
def test_values_have_a_unit(uid: str, panel: Any) -> None:
    """In tables by column, elsewhere for the panel."""
    if panel["type"] != "table":
        assert panel["fieldConfig"]["defaults"]["unit"]
        return
    (organize,) = [t for t in panel["transformations"] if t["id"] == "organize"]
    renamed = organize["options"]["renameByName"]
    by_name = by_column(panel)
    for source, title in renamed.items():
        if source.startswith("Value"):
            properties = by_name[title]
            assert "unit" in properties or "mappings" in properties, f"{name_of(uid, panel)}: {title}"


@pytest.mark.parametrize(("uid", "panel"), tables(), ids=panel_ids)
def test_columns_exist(uid: str, panel: Any) -> None:
    there = {"Time"}
    for target in panel["targets"]:
        there |= labels(promql_parser.parse(expand(target["expr"])))
        there.add("Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}")
    (organize,) = [t for t in panel["transformations"] if t["id"] == "organize"]
    options = organize["options"]
    assert options["renameByName"].keys() <= there
    assert options["excludeByName"].keys() <= there
    # What is neither shown nor dropped would show under its raw name.
    assert there - options["renameByName"].keys() - options["excludeByName"].keys() == set()
    titles = list(options["renameByName"].values())
    assert len(titles) == len(set(titles))
    assert panel["options"]["sortBy"][0]["displayName"] in titles


@pytest.mark.parametrize(("uid", "panel"), tables(), ids=panel_ids)
def test_tables_fit_a_screen_of_1400_pixels(uid: str, panel: Any) -> None:
    """No column, and no link of an action, is out of sight; a column without a width takes Grafana's 150."""
    shown = [column for column in by_column(panel).values() if not column.get("custom.hidden")]
    needed = sum(column.get("custom.width", 150) for column in shown)
    room = panel["gridPos"]["w"] * (1400 - 32) / 24 - 25  # gap, border and padding of a panel
    assert needed <= room, name_of(uid, panel)


@pytest.mark.parametrize(("uid", "panel"), tables(), ids=panel_ids)
def test_an_empty_bar_in_a_table_says_that_it_is_no_zero(uid: str, panel: Any) -> None:
    for title, column in by_column(panel).items():
        if column.get("custom.cellOptions", {}).get("type") == "gauge":
            matches = [m["options"].get("match") for m in column["mappings"]]
            assert "null+nan" in matches, f"{name_of(uid, panel)}: {title}"


@pytest.mark.parametrize(
    ("uid", "panel"), [x for x in ALL_PANELS if x[1]["type"] == "timeseries"], ids=panel_ids
)
def test_the_axis_of_what_is_always_zero_is_not_drawn_up_to_100(uid: str, panel: Any) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert "max" in defaults or "axisSoftMax" in defaults["custom"], name_of(uid, panel)


@pytest.mark.parametrize("uid", UIDS)
def test_panels_do_not_overlap(uid: str) -> None:
    for grid in boards.grids(uid):
        taken: dict[tuple[int, int], int] = {}
        for panel in grid:
            at = panel["gridPos"]
            assert at["x"] >= 0
            assert at["x"] + at["w"] <= 24
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert (x, y) not in taken, f"{name_of(uid, panel)} on {taken[x, y]}"
                    taken[x, y] = panel["id"]
    ids = [panel["id"] for panel in panels(uid, rows=True)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("uid", UIDS)
def test_no_gap_is_left_in_a_row_of_panels(uid: str) -> None:
    """Rows are filled: every line of the grid that has panels is covered to the right edge."""
    for grid in boards.grids(uid):
        covered: dict[int, int] = {}
        for panel in grid:
            if panel.get("repeat"):
                continue
            at = panel["gridPos"]
            for y in range(at["y"], at["y"] + at["h"]):
                covered[y] = covered.get(y, 0) + at["w"]
        assert {y: width for y, width in covered.items() if width != 24} == {}


@pytest.mark.parametrize("uid", UIDS)
def test_what_most_clusters_lack_is_in_closed_rows_at_the_end(uid: str) -> None:
    closed = [bool(panel.get("collapsed")) for panel in load(uid)["panels"] if panel["type"] == "row"]
    assert closed == sorted(closed)
    for panel in load(uid)["panels"]:
        if panel.get("collapsed"):
            assert all("noValue" in inner["fieldConfig"]["defaults"] for inner in panel["panels"])


# --- Dashboards ----------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_dashboards_have_what_lint_rules_ask(uid: str) -> None:
    board = load(uid)
    assert re.fullmatch(r"clio-[a-z]+", board["uid"])
    assert board["title"].startswith("CLIO / ")
    assert board["description"]
    assert board["tags"] == ["clio"]
    assert board["refresh"] == "5s"
    assert board["timezone"] == "browser"
    assert board["editable"] is True
    assert board.get("id") is None
    assert board["panels"]
    assert board["schemaVersion"] <= 39, "newer than Grafana 10.4"


@pytest.mark.parametrize("uid", UIDS)
def test_dashboards_link_to_each_other(uid: str) -> None:
    found = [link for link in load(uid)["links"] if link["url"].startswith("/d/")]
    assert {link["url"].removeprefix("/d/") for link in found} == set(UIDS) - {uid}
    assert all(link["includeVars"] and link["keepTime"] for link in found)


@pytest.mark.parametrize("uid", UIDS)
def test_data_links_lead_somewhere(uid: str) -> None:
    names = {variable["name"] for variable in boards.variables(uid)}
    for url in re.findall(r'"url": "([^"]+)"', json.dumps(load(uid))):
        assert re.match(
            r"/d/clio-[a-z]+|\$\{control_api\}/nodes/\$\{[\w.]+\}/(restart|shutdown)\$\{__data\.fields\.which\}$"
            r"|\$\{control_api\}/operations/(restart|shutdown)\?",
            url,
        ), url
        if target := re.match(r"/d/(clio-\w+)\?", url):
            assert target[1] in UIDS
            assert "${__url_time_range}" in url
            assert "${datasource:queryparam}" in url
            given = set(re.findall(r"var-(\w+)=", url)) | set(re.findall(r"\$\{(\w+):queryparam\}", url))
            assert given <= {variable["name"] for variable in boards.variables(target[1])}
        used = set(re.findall(r"\$\{([a-z]\w*)", url))
        assert used <= names, url


@pytest.mark.parametrize("uid", UIDS)
def test_fields_that_links_use_are_in_the_frame(uid: str) -> None:
    for panel in panels(uid):
        text = json.dumps(panel["fieldConfig"])
        used = set(re.findall(r"\$\{__(?:data\.fields|field\.labels)\.(\w+)\}", text))
        there = set[str]()
        for target in panel["targets"]:
            there |= labels(promql_parser.parse(expand(target["expr"])))
        assert used <= there, name_of(uid, panel)
        if "cluster" in used:
            # A cluster without a name has no label; the link would keep the placeholder.
            assert all('"cluster", "All", "cluster", ""' in t["expr"] for t in panel["targets"][:1])


def test_only_panels_of_grafana_itself() -> None:
    shipped = {"stat", "table", "bargauge", "timeseries", "state-timeline", "nodeGraph", "row"}
    assert {panel["type"] for uid in UIDS for panel in panels(uid, rows=True)} <= shipped


# --- Variables -----------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_variables_chain(uid: str) -> None:
    """Each uses only variables before it, and those before it decide what it offers."""
    seen: list[str] = []
    for variable in boards.variables(uid):
        text = json.dumps(variable.get("query", "")) if variable["type"] == "query" else ""
        used = set(re.findall(r"\$\{?([a-z]\w*)", text))
        assert used <= set(seen), f"${variable['name']} uses {used}"
        if variable["name"] in ("node", "match", "card", "busiest"):
            assert "cluster" in used
        if variable["name"] == "card" or (variable["name"] == "node" and "match" in seen):
            assert "match" in used
        if variable["type"] == "query" and variable["name"] != "match":
            assert variable["datasource"]["uid"] == "${datasource}"
        seen.append(variable["name"])
    assert seen[0] == "datasource"
    assert "cluster" in seen
    text = json.dumps(load(uid)["panels"]) + json.dumps(load(uid)["links"])
    for name in seen:
        assert re.search(rf"\$\{{?{name}\b", text + json.dumps(boards.variables(uid))), f"${name} is not used"


@pytest.mark.parametrize("uid", UIDS)
def test_all_selects_series_without_a_cluster_label(uid: str) -> None:
    (cluster,) = [v for v in boards.variables(uid) if v["name"] == "cluster"]
    assert cluster["allValue"] == ".*"
    assert cluster["includeAll"]
    assert cluster["current"]["value"] == ["$__all"]


def test_the_cards_show_the_worst_nodes_first() -> None:
    (card,) = [v for v in boards.variables("clio-topology") if v["name"] == "card"]
    assert card["query"]["query"].startswith("query_result(bottomk(")
    assert card["sort"] == 0, "Grafana would sort by name what Prometheus has sorted by state"


def test_every_variable_in_a_query_exists() -> None:
    for query in QUERIES:
        names = {v["name"] for v in boards.variables(query.uid)} | boards.BUILT_IN.keys()
        used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", query.text))
        assert used <= names, query.where


def test_the_search_falls_back_to_all_nodes() -> None:
    (match,) = [v for v in boards.variables("clio-topology") if v["name"] == "match"]
    assert match["current"]["value"] == ".*"
    assert match["datasource"]["uid"] == "${search_source}"
    assert not match.get("multi"), "the value is a regular expression and must not be escaped"
    assert not match.get("includeAll")


# --- Provisioning --------------------------------------------------------------


def provisioned(kind: str) -> Any:
    files = list((ROOT / "grafana" / "provisioning" / kind).glob("*.yaml"))
    assert len(files) == 1
    return yaml.safe_load(files[0].read_text(encoding="utf-8"))


def test_provisioned_data_sources() -> None:
    sources = {source["uid"]: source for source in provisioned("datasources")["datasources"]}
    assert set(sources) == {"clio-prometheus", NODE_SEARCH}
    assert all(source["type"] == "prometheus" for source in sources.values())
    assert [source["uid"] for source in sources.values() if source.get("isDefault")] == ["clio-prometheus"]
    (chooser,) = [v for v in boards.variables("clio-topology") if v["name"] == "datasource"]
    assert chooser["query"] == "prometheus"
    pattern, flags = re.fullmatch(r"/(.*)/(i?)", chooser["regex"]).groups()  # type: ignore[union-attr]
    offered = [s["name"] for s in sources.values() if re.search(pattern, s["name"], re.I if flags else 0)]
    assert offered == [sources["clio-prometheus"]["name"]]
    (chooser,) = [v for v in boards.variables("clio-topology") if v["name"] == "search_source"]
    assert chooser["regex"] == "/node search/i"
    assert "node search" in sources[NODE_SEARCH]["name"]


def test_provisioned_dashboards() -> None:
    (provider,) = provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    assert provider["folder"] == "CLIO"
    assert provider["options"]["path"].endswith("/dashboards")


def test_the_home_dashboard_is_topology() -> None:
    settings = (ROOT / "grafana" / "grafana.ini").read_text(encoding="utf-8")
    assert re.search(r"^default_home_dashboard_path = \S*/clio-topology\.json$", settings, re.MULTILINE)


@pytest.mark.parametrize(
    ("query", "inner"),
    [
        ('label_values(a{b="c"}, d)', 'a{b="c"}'),
        ("query_result(topk(1, a))", "topk(1, a)"),
        ("label_values(d)", None),
    ],
)
def test_reading_of_variables(query: str, inner: str | None) -> None:
    assert promql_of_variable(query) == inner
