"""The confirm page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from clio_lab.simulator.process import SimulatorProcess
from tests.integration.sshd import Sshd, make_key
from tests.ports import free_port
from tests.system import find_command, needs_system
from tests.unit.control_api.support import TOKENS, Api, control_api

pytestmark = [pytest.mark.integration, needs_system("sshd", "chromium")]

SHOTS = os.environ.get("CLIO_SCREENSHOTS")
"""Directory that receives screenshots, for looking at them."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=find_command("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[SimulatorProcess, str]]:
    port = free_port()
    with SimulatorProcess("--nodes", "3", "--base-port", str(port)) as process:
        yield process, "".join(f"127.96.0.{i + 1}:{port}\n" for i in range(3))


@pytest.fixture
def api(tmp_path: Path, simulator: tuple[SimulatorProcess, str]) -> Iterator[Api]:
    """A served control API with tokens. "Restarting" node 1 makes the simulated node come back anew."""
    key = make_key(tmp_path / "id")
    order = tmp_path / "order"
    command = tmp_path / "clio_run"
    command.write_text(
        f"#!/bin/sh\ncase $1 in --help) echo '  start  Start' ;; start) : >{order} ;; "
        "stop) echo 'asked the runtime to stop' ;; esac\n"
    )
    command.chmod(0o755)
    process, hosts = simulator
    stop = threading.Event()

    def obey() -> None:
        while not stop.wait(0.05):
            if order.exists():
                order.unlink()
                process.restart_node(1)

    obeying = threading.Thread(target=obey)
    with Sshd(tmp_path / "sshd", [key]) as sshd:
        ssh = {
            "host": "127.0.0.1", "port": sshd.port, "key_file": str(key), "program": str(command),
            "agent": False, "environment": {"HOME": str(tmp_path)},
        }  # fmt: skip
        settings = {"ssh": ssh, "dashboard_url": "http://127.0.0.1:9/d/clio"}
        with control_api(tmp_path, hosts, tokens=True, **settings) as built:
            built.built.server.start()
            obeying.start()
            try:
                yield built
            finally:
                stop.set()
                obeying.join(10)
                built.built.server.stop()


def address(api: Api) -> str:
    return f"http://127.0.0.1:{api.built.server.addresses[0][1]}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def shot(page: Page, name: str) -> None:
    """Light and dark, wide and on a phone; nothing may be wider than the screen."""
    for scheme in ("light", "dark"):
        for kind, width in (("wide", 1100), ("phone", 360)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 760})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            if SHOTS:
                page.screenshot(path=str(Path(SHOTS) / f"{name}-{scheme}-{kind}.png"), full_page=True)


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_log_in_restart_and_see_it_succeed(api: Api, page: Page) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{address(api)}/nodes/1/restart?back=http%3A%2F%2F127.0.0.1%3A9%2Fd%2Fclio%3Fvar-node%3D1")
    expect(page).to_have_title("Log in - CLIO control")
    shot(page, "login")
    log_in(page, "clio_wrong")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    log_in(page, TOKENS["anna"][1])
    expect(page.get_by_role("heading")).to_have_text("Restart node 1?")
    expect(page.get_by_role("main")).to_contain_text("127.96.0.2")
    expect(page.get_by_role("main")).to_contain_text("answers")
    expect(page.get_by_role("main")).to_contain_text("clio_run start")
    expect(page.get_by_role("main")).not_to_contain_text("or restart")
    expect(page.get_by_role("main")).to_contain_text("@127.0.0.1, port")
    shot(page, "confirm")
    page.get_by_role("button", name="Restart node 1").click()
    expect(page.locator("#outcome")).to_contain_text("answers again", timeout=30_000)
    shot(page, "success")
    assert page.get_by_role("link", name="Back to the dashboard").first.get_attribute("href") == (
        "http://127.0.0.1:9/d/clio?var-node=1"
    )
    assert next(e for e in api.audit() if e["event"] == "end")["actor"] == "anna"
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{address(api)}/nodes/1/restart")
    expect(page).to_have_title("Log in - CLIO control")
    # The refused log-in answers 401, which the browser reports; nothing else may be.
    assert all("401" in text for text in problems), problems


def test_failure_is_shown_with_what_the_command_said(api: Api, page: Page, tmp_path: Path) -> None:
    says = "[ $1 = --help ] || { echo 'pool <7> is busy' >&2; exit 9; }"
    (tmp_path / "clio_run").write_text(f"#!/bin/sh\n{says}\n")
    page.goto(f"{address(api)}/nodes/2/shutdown")
    log_in(page, TOKENS["anna"][1])
    page.get_by_role("button", name="Shut down node 2").click()
    expect(page.get_by_role("alert")).to_contain_text("exit code 9: pool <7> is busy")
    expect(page.get_by_role("link", name="Try again")).to_be_visible()
    shot(page, "failure")


def test_a_viewer_is_told_what_is_missing(api: Api, page: Page) -> None:
    page.goto(f"{address(api)}/nodes/1/shutdown")
    log_in(page, TOKENS["vera"][1])
    expect(page.get_by_role("alert")).to_contain_text("vera is a viewer; this needs the role operator")
    shot(page, "forbidden")
    page.get_by_role("button", name="Log out").click()
    log_in(page, TOKENS["anna"][1])
    expect(page.get_by_role("heading")).to_have_text("Logged in")


def test_a_forged_post_from_another_site_fails(api: Api, page: Page) -> None:
    target = f"{address(api)}/nodes/1/shutdown"
    page.goto(target)
    log_in(page, TOKENS["anna"][1])
    expect(page.get_by_role("heading")).to_have_text("Shut down node 1?")

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            form = f'<form method=post action="{target}"><button>prize</button></form>'
            body = f'{form}<a href="{target}">link</a>'
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            return

    # Another site to the browser: localhost is not 127.0.0.1.
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        page.goto(f"http://localhost:{evil.server_address[1]}/")
        page.get_by_role("button", name="prize").click()
        expect(page.get_by_role("alert")).to_contain_text("cross-site request refused")
        # A plain link, as in a dashboard, leads to the page, log-in included.
        page.goto(f"http://localhost:{evil.server_address[1]}/")
        page.get_by_role("link", name="link").click()
        expect(page.get_by_role("heading")).to_have_text("Shut down node 1?")
        evil.shutdown()
    assert [line["event"] for line in api.audit()] == ["refused"]


def test_progress_is_shown_while_it_runs(api: Api, page: Page, tmp_path: Path) -> None:
    (tmp_path / "clio_run").write_text(
        f"#!/bin/sh\n[ $1 = --help ] || while [ ! -e {tmp_path}/go ]; do sleep 0.1; done\n"
    )
    page.goto(f"{address(api)}/nodes/0/shutdown")
    log_in(page, TOKENS["anna"][1])
    page.get_by_role("button", name="Shut down node 0").click()
    expect(page.get_by_role("status")).to_contain_text("running the command")
    shot(page, "progress")
    page.goto(f"{address(api)}/nodes/0/restart")
    expect(page.get_by_role("alert")).to_contain_text("A shutdown by anna is under way")
    expect(page.get_by_role("link", name="Cancel")).to_be_visible()
    shot(page, "busy")
    page.get_by_role("link", name="See how it goes").click()
    (tmp_path / "go").touch()
    expect(page.locator("#outcome")).to_contain_text("succeeded", timeout=20_000)


def test_a_rolling_restart_from_its_plan_to_its_end(api: Api, page: Page, tmp_path: Path) -> None:
    """Live by events; the page of one that has ended is drawn by the server."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(address(api))
    shot(page, "index")
    page.goto(f"{address(api)}/operations/restart?nodes=1&wait=20")
    log_in(page, TOKENS["anna"][1])
    expect(page.get_by_role("heading").first).to_have_text("Restart node after node?")
    expect(page.get_by_role("link", name="Cancel")).to_be_visible()
    page.get_by_label("Why").fill("a new kernel")
    shot(page, "operation-plan")
    page.get_by_role("button", name="Restart 1 node").click()
    expect(page.locator("#state")).to_have_text("running")
    expect(page.locator("[data-node='1'] .step")).not_to_have_text("waiting")
    shot(page, "operation-running")
    expect(page.locator("#state")).to_have_text("succeeded", timeout=60_000)
    expect(page.get_by_role("main")).to_contain_text("a new kernel")
    shot(page, "operation-succeeded")
    page.get_by_role("link", name="All operations").click()
    expect(page.get_by_role("main")).to_contain_text("1 of 1 nodes")
    shot(page, "operations")
    assert problems == []


def test_an_operation_without_scripts_is_followed_and_aborted(
    api: Api, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "clio_run").write_text(
        f"#!/bin/sh\n[ $1 = --help ] || while [ ! -e {tmp_path}/go ]; do sleep 0.1; done\nexit 7\n"
    )
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"{address(api)}/operations/shutdown?nodes=0-1")
        log_in(page, TOKENS["anna"][1])
        page.get_by_role("button", name="Shut down 2 nodes").click()
        expect(page.locator("[data-node='1'] .step")).to_have_text("acting", timeout=20_000)
        page.get_by_role("button", name="Abort").click()
        expect(page.locator("#state")).to_have_text("aborting")
        (tmp_path / "go").touch()
        # The page loads itself anew.
        expect(page.locator("#state")).to_have_text("failed", timeout=30_000)
        expect(page.locator("[data-node='0'] .step")).to_have_text("skipped")
    finally:
        context.close()
