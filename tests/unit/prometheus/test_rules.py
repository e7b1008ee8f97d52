"""What promtool does not check: that rules fit the exporter, its documents and their own tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.promql import lint
from tests.unit.prometheus.rulefiles import (
    LEVELS,
    PROMETHEUS,
    ROOT,
    RULE_FILES,
    TEST_FILES,
    Rule,
    alerts,
    chosen,
    linted,
    load,
    matchers,
    metrics,
    recordings,
    rule_tests,
    rules,
    untested_alerts,
    untested_recordings,
)
from tests.unit.test_repository import anchors

DASHBOARDS = {
    "clio-topology", "clio-node", "clio-pools", "clio-config",
    "clio-scheduler", "clio-storage", "clio-health", "clio-exporter",
}  # fmt: skip
SEVERITIES = {"critical", "warning", "info"}
SCOPES = {"node", "cluster", "exporter", "control"}
IMMEDIATE = {"ClioNodeFlapping", "ClioControlActionFailed"}
"""Alerts without `for`: they look back over a window by themselves."""

SERIES_IN_TEMPLATE = re.compile(r"[a-z_]+:[a-z0-9_:]+|clio_[a-z0-9_]+")


def by_name(rule: Rule) -> str:
    return rule.name + "".join(f"-{value}" for value in rule.labels.values() if not rule.is_alert)


# --- expressions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules(), ids=by_name)
def test_expression_has_no_mistake_the_linter_knows(rule: Rule) -> None:
    assert linted(rule).problems == []


@pytest.mark.parametrize("rule", recordings(), ids=by_name)
def test_name_of_a_recorded_series_says_its_level(rule: Rule) -> None:
    level, _, rest = rule.name.partition(":")
    assert re.fullmatch(r"clio_[a-z0-9_]+:[a-z0-9_]+", rest), rule.name
    assert linted(rule).labels == LEVELS[level], rule.name


def test_recorded_series_are_recorded_once() -> None:
    seen = [(rule.name, tuple(sorted(rule.labels.items()))) for rule in recordings()]
    assert len(seen) == len(set(seen))


def test_group_names_are_unique() -> None:
    groups = [group["name"] for path in RULE_FILES for group in load(path)["groups"]]
    assert len(groups) == len(set(groups))


def test_all_rule_files_are_loaded_and_tested_here() -> None:
    assert sorted((PROMETHEUS / "rules").glob("*.yml")) == sorted(RULE_FILES)


def test_rules_about_clusters_need_the_series_of_nodes_only() -> None:
    """So that they can be on another server than the nodes, as in examples/prometheus-global.yml."""
    for path in RULE_FILES:
        for group in load(path)["groups"]:
            for rule in group["rules"]:
                selected = lint(rule["expr"], metrics()).metrics
                of_nodes = {name for name in selected if re.match("(node|node_tier|cluster|tier):", name)}
                if path.stem.endswith("-cluster"):
                    assert selected - of_nodes <= {"up"}, rule
                else:
                    assert not {name for name in selected if re.match("(cluster|tier):", name)}, rule


# --- alerts -----------------------------------------------------------------------------------------------


def test_alert_names_are_unique() -> None:
    names = [rule.name for rule in alerts()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"Clio[A-Z][A-Za-z0-9]+", name) for name in names)


@pytest.mark.parametrize("rule", alerts(), ids=by_name)
def test_alert_has_severity_scope_and_patience(rule: Rule) -> None:
    assert rule.labels["severity"] in SEVERITIES
    assert rule.labels["scope"] in SCOPES
    assert set(rule.labels) == {"severity", "scope"}
    assert ("for" in rule.document) != (rule.name in IMMEDIATE)


@pytest.mark.parametrize("rule", alerts(), ids=by_name)
def test_alert_carries_the_labels_that_routing_and_links_need(rule: Rule) -> None:
    labels = linted(rule).labels
    assert labels is not None
    if rule.labels["scope"] == "node":
        assert labels >= {"cluster", "node_id", "hostname"}
        assert not labels & {"job", "instance"}, "the alert would change when the exporter moves"
    if rule.labels["scope"] == "cluster":
        assert "node_id" not in labels


@pytest.mark.parametrize("rule", alerts(), ids=by_name)
def test_annotations_use_labels_and_metrics_that_exist(rule: Rule) -> None:
    labels = linted(rule).labels or frozenset()
    assert set(rule.annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    for text in rule.annotations.values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, text
        for template in re.findall(r"\{\{.*?\}\}", text, re.DOTALL):
            assert set(SERIES_IN_TEMPLATE.findall(template)) <= set(metrics()), template


@pytest.mark.parametrize("rule", alerts(), ids=by_name)
def test_alert_links_to_its_runbook_and_a_dashboard(rule: Rule) -> None:
    runbook = "{{ $externalLabels.docs_url }}/runbooks.md#" + rule.name.lower()
    assert rule.annotations["runbook_url"] == runbook
    link = rule.annotations["dashboard_url"]
    match = re.fullmatch(r"\{\{ \$externalLabels\.grafana_url \}\}/d/([a-z-]+)(\?.*)?", link)
    assert match, link
    assert match[1] in DASHBOARDS
    variables = dict(re.findall(r"[?&]var-(\w+)=\{\{ \$labels\.(\w+) \| urlquery \}\}", link))
    expected = {"node": {"cluster": "cluster", "node": "node_id"}, "cluster": {"cluster": "cluster"}}
    assert variables == expected.get(rule.labels["scope"], {})


# --- runbooks ---------------------------------------------------------------------------------------------

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")


def runbook_sections() -> dict[str, str]:
    parts = re.split(r"^## +(Clio\w+) *$", RUNBOOKS, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert sorted(runbook_sections()) == sorted(rule.name for rule in alerts())
    assert {rule.name.lower() for rule in alerts()} <= anchors(RUNBOOKS)


@pytest.mark.parametrize("rule", alerts(), ids=by_name)
def test_runbook_says_what_to_know(rule: Rule) -> None:
    section = runbook_sections()[rule.name]
    for heading in ("**Means.**", "**Look at.**", "**Do.**", "**Noise when.**", "**Tried.** Silent "):
        assert heading in section, heading
    queries = re.findall(r"^```promql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert queries, "an exact query"
    for query in queries:
        for expression in query.strip().split("\n\n"):
            assert lint(expression, metrics()).problems == [], expression
    uid = re.search(r"/d/([a-z-]+)", rule.annotations["dashboard_url"])
    assert uid
    assert f"`{uid[1]}`" in section, "the dashboard that the alert links to"


# --- docs/alerting.md, docs/recorded-series.md --------------------------------------------------------------

ALERTING = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8")
SERIES = (ROOT / "docs" / "recorded-series.md").read_text(encoding="utf-8")


def test_documented_alerts_are_the_alerts() -> None:
    rows = re.findall(
        r"^\| \[(Clio\w+)\]\(runbooks.md#(\w+)\) \| (\w+) \| .+ \| ([\w ]+) \|$", ALERTING, re.M
    )
    assert rows == [
        (rule.name, rule.name.lower(), rule.labels["severity"], rule.document.get("for", "at once"))
        for rule in alerts()
    ]


def test_documented_series_are_the_recorded_series() -> None:
    rows = re.findall(r"^\| `([a-z_]+:[a-z0-9_:]+)` \| .+ \|$", SERIES, re.M)
    assert rows == list(dict.fromkeys(rule.name for rule in recordings()))


def test_every_alert_has_been_seen() -> None:
    """By a fault, with the seconds until it fired, or in series of promtool that make it fire."""
    table = ALERTING.split("<!-- rules: seen -->")[1].split("<!-- end of rules -->")[0]
    rows = re.findall(r"^\| (Clio\w+) \| (.+?) \| *(\d*) ?\| *(.*?) ?\|$", table, re.M)
    assert [row[0] for row in rows] == [rule.name for rule in alerts()]
    firing = {
        (path.name, check["alertname"])
        for path in TEST_FILES
        for test in load(path)["tests"]
        for check in test.get("alert_rule_test", ())
        if check.get("exp_alerts")
    }
    for alert, how, seconds, besides in rows:
        file = how.removeprefix("promtool: ")
        if how == file:
            assert seconds, alert
            assert besides == "nothing" or re.fullmatch(r"(Clio\w+ \((held back|meant)\)(, )?)+", besides), (
                alert
            )
        else:
            assert (file, alert) in firing


def test_no_alert_has_fired_on_a_healthy_cluster() -> None:
    table = ALERTING.split("<!-- rules: silent -->")[1].split("<!-- end of rules -->")[0]
    rows = re.findall(r"^\| (\d+ \w+ nodes) \| (.+) \| (\d+) \| (\w+) \|$", table, re.M)
    assert {row[0] for row in rows} == {"4 real nodes", "500 simulated nodes"}
    assert {row[3] for row in rows} == {"none"}


def test_documented_parts_of_the_health_score_are_its_parts() -> None:
    table = SERIES.split("## Health score")[1].split("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.M)
    assert rows[1:] == [rule.labels["component"] for rule in recordings() if rule.labels]


# --- their tests ------------------------------------------------------------------------------------------


def test_every_alert_has_a_test_that_fires_and_one_that_does_not() -> None:
    assert untested_alerts((rule.name for rule in alerts()), rule_tests()) == []


def test_every_recorded_series_has_a_value_test() -> None:
    assert untested_recordings((rule.name for rule in recordings()), rule_tests()) == []


def test_every_part_of_the_health_score_has_a_value_test() -> None:
    parts = {rule.labels["component"] for rule in recordings() if rule.labels}
    expected = [
        sample["labels"]
        for test in rule_tests()
        for check in test.get("promql_expr_test", ())
        for sample in check.get("exp_samples", ())
    ]
    assert {
        part for part in parts if not any(f'component="{part}"' in labels for labels in expected)
    } == set()


def test_series_in_rule_tests_exist() -> None:
    """A test with a misspelt series would show that nothing fires, for a wrong reason."""
    for test in rule_tests():
        for series in test["input_series"]:
            assert lint(series["series"], metrics()).problems == [], test["name"]


GOOD: dict[str, Any] = {
    "input_series": [{"series": "x"}],
    "alert_rule_test": [{"alertname": "A", "exp_alerts": [{}]}],
}
QUIET: dict[str, Any] = {
    "input_series": [{"series": "x"}],
    "alert_rule_test": [{"alertname": "A", "exp_alerts": []}],
}
EMPTY: dict[str, Any] = {"input_series": [], "alert_rule_test": [{"alertname": "A", "exp_alerts": []}]}


@pytest.mark.parametrize(
    ("tests", "missing"),
    [
        ([GOOD, QUIET], []),
        ([GOOD], ["A: no test in which it does not fire"]),
        ([GOOD, EMPTY], ["A: no test in which it does not fire"]),
        ([QUIET], ["A: no test in which it fires"]),
        ([], ["A: no test in which it fires", "A: no test in which it does not fire"]),
    ],
)
def test_a_missing_alert_test_is_found(tests: list[Mapping[str, Any]], missing: list[str]) -> None:
    assert untested_alerts(["A"], tests) == missing


def test_a_missing_value_test_is_found() -> None:
    name = "cluster:clio_nodes:count"
    valued = {"promql_expr_test": [{"expr": f"round({name})", "exp_samples": [{"value": 1}]}]}
    empty = {"promql_expr_test": [{"expr": name, "exp_samples": []}]}
    assert untested_recordings([name], [valued]) == []
    assert untested_recordings([name], [empty]) == [name]


# --- Alertmanager -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inhibition", load(PROMETHEUS / "alertmanager.yml")["inhibit_rules"], ids=str)
def test_inhibitions_name_alerts_and_labels_that_exist(inhibition: Mapping[str, Any]) -> None:
    sources, targets = chosen(inhibition["source_matchers"]), chosen(inhibition["target_matchers"])
    assert sources
    assert targets
    assert not {rule.name for rule in sources} & {rule.name for rule in targets}
    for rule in (*sources, *targets):
        assert set(inhibition.get("equal", ())) <= (linted(rule).labels or frozenset()), rule.name
    for label, operator, value in matchers(inhibition["source_matchers"]):
        if label == "alertname" and operator in ("=", "=~"):
            assert {rule.name for rule in sources} == set(value.split("|"))


def test_a_node_that_is_down_holds_back_all_that_follows_from_it() -> None:
    held = {
        rule.name
        for inhibition in load(PROMETHEUS / "alertmanager.yml")["inhibit_rules"]
        if any("ClioNodeDown" in text for text in inhibition["source_matchers"])
        for rule in chosen(inhibition["target_matchers"])
    }
    of_nodes = {rule.name for rule in alerts() if rule.labels["scope"] == "node"}
    assert held == of_nodes - {"ClioNodeDown", "ClioNodeHung"}
