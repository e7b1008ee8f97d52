"""The report card: what is made of Prometheus's answers, and how it is written."""

from __future__ import annotations

import sys

import pytest

import clio_exporter.report
from clio_exporter.report import render
from clio_exporter.report.build import build, stragglers
from clio_exporter.report.model import Report, written
from clio_exporter.report.questions import Range, at_the_end, over_time
from clio_exporter.report.source import Answers, ask, newest, rules_loaded
from clio_exporter.service_client import Answer, Service

pytest.importorskip("matplotlib")

ASKED = Range(1000.0, 1100.0, 1.0)


def node(node_id: int, **more: str) -> dict[str, str]:
    return {"node_id": str(node_id), "hostname": f"n<{node_id}>", **more}


def answers() -> Answers:
    return Answers(
        {
            "samples": [(node(n), 90.0) for n in (0, 2, 10)],
            "tasks": [(node(0), 1000.0), (node(10), 1200.0), (node(2), 100.0)],
            "cpu": [(node(0), 0.5), (node(2), float("nan"))],
            "read": [(node(0, type="file"), 2048.0)],
            "occupied": [(node(0, type="ram"), 0.25)],
            "worker saturated": [(node(0, worker_id="1"), 0.4), (node(0, worker_id="0"), 0.2)],
            "worker queue": [(node(0, worker_id="1"), 7.0)],
            "alerts": [({"alertname": "ClioNodeDown", "severity": "critical", **node(2)}, 15.0)],
        },
        {"tasks": [(node(0), [(1000.0, 1.0), (1010.0, 2.0)])]},
        ["gpu: refused"],
    )


def report() -> Report:
    marks = [(1005.0, "phase | 2"), (2000.0, "later")]
    return build("job 17 <b>", ASKED, answers(), rules=True, marks=marks)


def table(title: str) -> dict[str, tuple[object, ...]]:
    return {str(row[0]): tuple(row) for t in report().tables if t.title.startswith(title) for row in t.rows}


def test_numbers_are_those_of_the_answers_and_absent_ones_stay_absent() -> None:
    rows = table("Nodes")
    assert list(rows) == ["0 n<0>", "2 n<2>", "10 n<10>"]
    assert rows["0 n<0>"][1:] == (1000.0, 0.5, None, None, None, pytest.approx(30.0), None, 0.9)
    assert rows["2 n<2>"][1:] == (100.0, None, None, None, None, None, None, 0.9)
    tiers = [tuple(row) for t in report().tables if t.title == "Tiers" for row in t.rows]
    assert tiers == [
        ("0 n<0>", "file", 2048.0, None, None, None),
        ("0 n<0>", "ram", None, None, None, 0.25),
    ]
    assert table("Workers")["0 n<0>"][1:] == ("0", None, 20.0, None)
    assert table("Alerts")["ClioNodeDown"][1:] == ("critical", "2 n<2>", 15.0)
    facts = dict(report().facts)
    assert facts == {
        "nodes": "3",
        "tasks": "2,300",
        "bytes read": "2.0 KiB",
        "coverage": "90.0 % of the samples expected",
        "stragglers": "2 n<2>",
    }
    assert [said for _, said in report().marks] == ["phase | 2"]


def test_stragglers_need_others_to_be_behind() -> None:
    assert stragglers({("", "0", "a"): 0.0, ("", "1", "b"): 9.0}) == []
    assert stragglers({("", str(n), "a"): 10.0 for n in range(5)}) == []


def test_without_rules_no_alert_is_denied() -> None:
    without = build("x", ASKED, answers(), rules=False)
    assert not [t for t in without.tables if t.title.startswith("Alerts")]
    assert any("no rules" in problem for problem in without.problems)
    none = build("x", ASKED, Answers(), rules=True)
    assert [t.note for t in none.tables if t.title.startswith("Alerts")] == ["None."]
    assert "coverage" not in dict(build("x", Range(0, 9), answers(), rules=True).facts)


def test_the_three_forms_say_the_same() -> None:
    text, markdown, page = render.text(report()), render.markdown(report()), render.html(report())
    assert ["0", "n<0>", "1,000", "50.0", "%", "-", "-"] in [line.split()[:7] for line in text.splitlines()]
    assert r"| 0 n\<0\> | 1,000 | 50.0 % | - |" in markdown
    assert r"phase \| 2" in markdown
    assert "<h1>job 17 &lt;b&gt;</h1>" in page
    assert '<td class="share">50.0 %</td>' in page
    assert page.count("<svg") == 1
    assert "phase | 2</text>" in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    for made in (text, markdown, page):
        assert "gpu: refused" in made


def test_without_matplotlib_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clio_exporter.report.plots", None)
    monkeypatch.delattr(clio_exporter.report, "plots", raising=False)
    page = render.html(report())
    assert "<svg" not in page
    assert "clio-exporter[report]" in page


def test_odd_answers_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"data": {"result": [{"metric": {}, "value": [1, "x"]}]}}'
    monkeypatch.setattr(Service, "_ask", lambda *_: Answer(200, body))
    found = ask("http://p", ASKED)
    assert (found.vectors, found.plots) == ({}, {})
    assert len(found.problems) == len(at_the_end(ASKED)) + len(over_time(ASKED))
    assert found.problems[0] == "samples: a value is not a pair of time and number"
    assert found.problems[-1].endswith("a series has no list of values")


@pytest.mark.parametrize("body", [b"1", b'{"data": {"headStats": 1, "groups": [1, {"rules": [1, {}]}]}}'])
def test_a_prometheus_that_tells_nothing_has_no_newest_sample_and_no_rules(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Service, "_ask", lambda *_: Answer(200, body))
    assert newest("http://p") is None
    assert not rules_loaded("http://p")


def test_a_node_id_that_is_no_number_of_a_node_comes_first() -> None:
    vector = [({"node_id": text}, 1.0) for text in ("7", "9" * 5000)]
    rows = build("x", ASKED, Answers({"tasks": vector}), rules=False).tables[0].rows
    assert [str(row[0])[:2] for row in rows] == ["99", "7"]


def test_questions_have_the_range_and_the_matchers() -> None:
    asked = Range(0.0, 3600.0, 1.0, 'job_id="17"')
    assert (asked.seconds, asked.step) == (3600, 12)
    assert Range(5.0, 5.0).seconds == 1
    every = [*at_the_end(asked).values(), *(expression for _, _, expression in over_time(asked).values())]
    assert all('job_id="17"' in expression for expression in every)
    assert 'clio_node_up{job_id="17"}[3600s]' in at_the_end(asked)["samples"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "bytes", "-"),
        (0.0, "bytes", "0 B"),
        (1536.0, "bytes", "1.5 KiB"),
        (2.0**60, "bytes/s", "1024.0 PiB/s"),
        (0.123, "share", "12.3 %"),
        (1234.6, "count", "1,235"),
        (61.0, "seconds", "61 s"),
        ("x", "text", "x"),
    ],
)
def test_cells(value: str | float | None, unit: str, shown: str) -> None:
    assert written(value, unit) == shown


def test_no_line_is_drawn_where_samples_are_missing() -> None:
    from clio_exporter.report.plots import with_gaps

    made = with_gaps([(0.0, 1.0), (1.0, 2.0), (5.0, 3.0)], 1.0)
    assert [at for at, _ in made] == [0.0, 1.0, 2.0, 5.0]
    assert made[2][1] != made[2][1]


def test_series_have_one_order_in_all_plots() -> None:
    points = {n: [(0.0, float(n)), (1.0, float(n))] for n in range(12)}
    found = Answers({}, {"cpu": [(node(n), points[n]) for n in (11, 3, 7, 0, 9, 8, 2, 10, 6)]})
    [plot] = build("x", ASKED, found, rules=True).plots
    assert [name.split()[0] for name in plot.series] == ["2", "3", "6", "7", "8", "9", "10", "11"]
