"""The HTML report in a real browser, on paper: nothing is cut, dark or torn apart."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from clio_exporter.report import render
from clio_exporter.report.build import build
from clio_exporter.report.questions import Range, over_time
from clio_exporter.report.source import Answers
from tests.system import find_command, needs_system

pytest.importorskip("matplotlib")
pytestmark = [pytest.mark.integration, needs_system("chromium")]

NODES = 40
WIDTH = 680
"""CSS pixels of A4 between its margins: 180 mm of 96 pixels an inch."""
A4 = (595, 842)  # points

TOO_WIDE = """width => [...document.querySelectorAll("table, svg, h1, li, p")]
    .filter(element => element.getBoundingClientRect().right > width + 0.5).map(element => element.tagName)"""
STYLE = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"


def node(number: int, **more: str) -> dict[str, str]:
    return {
        "node_id": str(number),
        "hostname": f"compute-{number:04d}.partition-large.cluster.example.org",
        **more,
    }


def report() -> str:
    """Of many nodes with long names, with something in every table and plot."""
    asked = Range(1_800_000_000.0, 1_800_000_900.0, 1.0)
    nodes = [node(number) for number in range(NODES)]
    tiers = [{**labels, "type": tier} for labels in nodes for tier in ("file", "ram")]
    of_nodes = dict.fromkeys(("tasks", "cpu", "memory", "gpu", "hbm", "answered", "samples"), nodes)
    of_tiers = dict.fromkeys(("read", "written", "capacity", "occupied"), tiers)
    workers = [{**labels, "worker_id": "0"} for labels in nodes]
    of_workers = dict.fromkeys(("worker tasks", "worker saturated", "worker queue"), workers)
    alerts = {"alerts": [{"alertname": "ClioDeviceFillsUpSoon", "severity": "warning", **nodes[0]}]}
    vectors = {
        name: [(labels, 0.5) for labels in series]
        for name, series in {**of_nodes, **of_tiers, **of_workers, **alerts}.items()
    }
    points = [(asked.begin + 3 * step, 1 + math.sin(step / 20)) for step in range(300)]
    plots = {name: [(labels, points) for labels in nodes[:8]] for name in over_time(asked)}
    marks = [(asked.begin + 60, "a checkpoint with a rather long name")]
    return render.html(build("job 17 (sort) of ann", asked, Answers(vectors, plots), rules=True, marks=marks))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page as it is printed by somebody whose screen is dark."""
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_command("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        opened = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        opened.emulate_media(media="print", color_scheme="dark")
        opened.goto(path.as_uri())
        yield opened
        browser.close()


def style(page: Page, selector: str, name: str) -> Any:
    return page.evaluate(STYLE, [selector, name])


def test_nothing_is_cut_at_the_right(page: Page) -> None:
    assert page.locator("table").count() == 4
    assert page.locator("svg").count() == 6
    assert page.evaluate(TOO_WIDE, WIDTH) == []


def test_the_paper_is_white(page: Page) -> None:
    assert style(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert style(page, "body", "color") == "rgb(0, 0, 0)"
    assert style(page, ":root", "colorScheme") == "light"


def test_what_belongs_together_stays_together(page: Page) -> None:
    assert page.locator(".plot > h2 + figure > svg").count() == page.locator("svg").count()
    assert style(page, ".plot", "breakInside") == "avoid"
    assert style(page, "tbody tr", "breakInside") == "avoid"
    assert style(page, "h2", "breakAfter") == "avoid"
    assert style(page, "thead", "display") == "table-header-group"  # repeated on each page
    assert page.locator("thead").count() == page.locator("table").count()


def test_it_is_a4_and_a_plot_is_no_page(page: Page) -> None:
    made = page.pdf(prefer_css_page_size=True)
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", made)
    assert {(round(float(width)), round(float(height))) for width, height in boxes} == {A4}
    assert 4 <= len(boxes) <= 8
