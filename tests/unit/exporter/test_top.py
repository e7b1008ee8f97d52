"""`clio-exporter top`: frames, lines, the screen by textual's test driver, the command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual import events
from textual.css.query import NoMatches
from textual.pilot import Pilot
from textual.widgets import Input, Static

from clio_client.search import Search, parse_search
from clio_exporter import cli
from clio_exporter.collectors.reference import all_families
from clio_exporter.top import frame, view
from clio_exporter.top.app import NodeList, NodeScreen, TopApp
from clio_exporter.top.frame import Frame, Node, Worker, read_frame
from clio_exporter.top.sources import SourceError
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import ExporterProcess
from tests.ports import closed_port, free_port

TEXT = """\
# HELP clio_node_up x
# TYPE clio_node_up gauge
clio_node_up{site="a, } b",node_id="0",hostname="n\\"0"} 1
clio_node_up{site="a, } b",node_id="1",hostname="n1"} 0
clio_node_down_info{node_id="1",hostname="n1",reason="hung"} 1
clio_node_info{node_id="0",hostname="n\\"0",address="n0",port="9413",ip_address="10.0.0.7",generation="C"} 1
clio_node_leader{node_id="0",hostname="n\\"0"} 1
clio_node_start_time_seconds{node_id="0",hostname="n\\"0"} 100
clio_node_cpu_utilization_ratio{node_id="0",hostname="n\\"0"} 0.5
clio_node_memory_total_bytes{node_id="0",hostname="n\\"0"} 1000
clio_node_memory_available_bytes{node_id="0",hostname="n\\"0"} 100
clio_worker_active{node_id="0",hostname="n\\"0",worker_id="0"} 1
clio_worker_queued_tasks{node_id="0",hostname="n\\"0",worker_id="0"} 2
clio_worker_tasks_processed_total{node_id="0",hostname="n\\"0",worker_id="0"} PROCESSED
clio_bdev_info{node_id="0",hostname="n\\"0",pool_id="7.0",pool_name="ram::x",type="ram"} 1
clio_bdev_capacity_bytes{node_id="0",hostname="n\\"0",pool_id="7.0",pool_name="ram::x"} 1048576
clio_bdev_free_bytes{node_id="0",hostname="n\\"0",pool_id="7.0",pool_name="ram::x"} 524288
clio_bdev_read_bytes_total{node_id="0",hostname="n\\"0",pool_id="7.0",pool_name="ram::x"} 0
clio_bdev_written_bytes_total{node_id="0",hostname="n\\"0",pool_id="7.0",pool_name="ram::x"} WRITTEN
clio_other{node_id="9"} 1
"""


def text(processed: int = 100, written: int = 0) -> str:
    return TEXT.replace("PROCESSED", str(processed)).replace("WRITTEN", str(written))


def by_id(found: Frame) -> dict[str, Node]:
    return {node.node_id: node for node in found.nodes.values()}


def many(count: int) -> Frame:
    nodes = [
        Node("", str(n), f"host{n:04}", up=n != 3, reason="hung" if n == 3 else "") for n in range(count)
    ]
    for node in nodes:
        if node.up:
            node.cpu = int(node.node_id) / count
            node.workers["0"] = Worker(
                active=True, queued=1, blocked=0, processed=5, rate=float(node.node_id)
            )
    return Frame(1.0, {node.key: node for node in nodes})


# --- frames ----------------------------------------------------------------------------------------------


def test_what_is_read_are_names_of_metrics() -> None:
    assert set(frame._READERS) <= {family.name for family in all_families()}


def test_a_frame() -> None:
    found = by_id(read_frame(text(), 5.0))
    assert set(found) == {"0", "1"}
    node = found["0"]
    assert (node.hostname, node.state, node.cpu, node.memory) == ('n"0', "leader", 0.5, 0.9)
    assert (node.queued, node.blocked, node.fill) == (2, None, 0.5)
    assert (node.tasks, node.traffic, node.gpu) == (None, None, None)
    assert (found["1"].state, found["1"].cpu, found["1"].tasks) == ("hung", None, None)


def test_lines_that_cannot_be_read_tell_nothing() -> None:
    odd = (
        'clio_node_up{node_id="0"} one\nclio_node_up{node_id="5"} 1\nclio_worker_active{node_id="5"} 1\n'
        'clio_bdev_capacity_bytes{node_id="5"} 1\nclio_bdev_info{node_id="5",pool_id="1.0"} 1\n'
        "clio_node_up{} \n"
    )
    (node,) = read_frame(odd, 1.0).nodes.values()
    assert (node.node_id, node.up, node.workers) == ("5", True, {})
    assert [device.kind for device in node.devices.values()] == [""]


@pytest.mark.parametrize("number", ["²", "x", "", "9" * 5000])
def test_an_id_that_is_no_number_is_found_by_no_number(number: str) -> None:
    found = read_frame(f'clio_node_up{{node_id="{number}",hostname="n7"}} 1\n', 1.0)
    assert view.chosen(found, parse_search("0-999999999"), "node") == []
    assert len(view.chosen(found, parse_search("n7"), "node")) == 1


def test_rates_are_those_of_the_counters_between_two_frames() -> None:
    first = read_frame(text(100, 0), 5.0)
    node = by_id(read_frame(text(150, 4096), 7.0, first))["0"]
    assert (node.tasks, node.read, node.written, node.traffic) == (25, 0, 2048, 2048)


def test_a_missed_frame_costs_no_rate() -> None:
    first = read_frame(text(100, 0), 5.0)
    missed = read_frame('clio_node_up{node_id="0",hostname="n\\"0"} 0\n', 7.0, first)
    assert by_id(missed)["0"].tasks is None
    node = by_id(read_frame(text(180, 4096), 9.0, missed))["0"]
    assert (node.tasks, node.written) == (20, 1024)
    assert by_id(read_frame(text(180, 4096), 70.0, missed))["0"].tasks is None


def test_after_a_restart_there_is_no_rate() -> None:
    first = read_frame(text(100), 5.0)
    assert by_id(read_frame(text(10), 7.0, first))["0"].tasks is None
    again = text(1000).replace("} 100\n", "} 200\n")
    assert by_id(read_frame(again, 7.0, first))["0"].tasks is None


def test_what_is_no_number_is_not_told() -> None:
    told = by_id(read_frame(text().replace("} 0.5\n", "} NaN\n").replace("} 524288", "} +Inf"), 1.0))["0"]
    assert (told.cpu, told.fill, told.memory) == (None, None, 0.9)


def test_search_by_number_name_and_address() -> None:
    node = by_id(read_frame(text(), 1.0))["0"]
    for meant in ("0", "0-3", "n0", "10.0.0", ""):
        assert node.is_meant(parse_search(meant)), meant
    for other in ("1", "n1"):
        assert not node.is_meant(parse_search(other)), other


# --- lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "short", "binary"),
    [
        (None, "-", "-"), (0, "0", "0"), (7, "7", "7"), (999, "999", "999"), (1000, "1.0k", "1000"),
        (15_300, "15.3k", "14.9K"), (153_000, "153k", "149K"), (2**30, "1.1G", "1.0G"), (1e20, "1e5E", ""),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, short: str, binary: str) -> None:
    if value is not None and value > 1e19:
        assert len(view.number(value)) <= 7
    else:
        assert (view.number(value), view.size(value)) == (short, binary)
        assert max(len(view.number(value)), len(view.size(value))) <= 5


@pytest.mark.parametrize("width", [80, 111, 112, 200])
def test_a_row_is_as_wide_as_the_terminal(width: int) -> None:
    node = by_id(read_frame(text(), 1.0))["0"]
    line = "".join(part for part, _ in view.row(node, width))
    assert len(line) == width
    assert len(view.heading(width)) <= width
    assert all(len(part) <= width for part, _ in view.summary(read_frame(text(), 1.0), width))


@pytest.mark.parametrize(
    ("cluster", "number", "shown"),
    [("", "7", "7"), ("a", "12", "a/12"), ("demo", "0", "dem/0"), ("demo", "102", "d/102"),
     ("demo", "1023", "1023"), ("demo", "10234", "10234")],
)  # fmt: skip
def test_a_number_is_shown_in_full(cluster: str, number: str, shown: str) -> None:
    cells = view.row(Node(cluster, number, "n"), 80)
    assert cells[0][0].split() == [shown]


def test_bars_are_ascii_and_bounded() -> None:
    assert view.bar(0.5, 4) == "##.."
    assert (view.bar(-1, 4), view.bar(9, 4), view.bar(None, 4)) == ("....", "####", "    ")


def test_orders_put_the_highest_first_and_the_unknown_last() -> None:
    found = many(6)
    assert [n.node_id for n in view.chosen(found, Search(), "node")] == ["0", "1", "2", "3", "4", "5"]
    assert [n.node_id for n in view.chosen(found, Search(), "cpu")] == ["5", "4", "2", "1", "0", "3"]
    assert view.chosen(found, Search(), "state")[0].node_id == "3"
    assert [n.node_id for n in view.chosen(found, parse_search("2-4"), "tasks")] == ["4", "2", "3"]
    for sort in view.SORTS:
        assert len(view.chosen(found, Search(), sort)) == 6


def test_a_printed_frame() -> None:
    lines = view.printed(
        read_frame(text(150, 4096), 7.0, read_frame(text(), 5.0)), Search(), "node", 80
    ).splitlines()
    assert lines[0] == "2 nodes: 1 up, 1 hung  cpu 50%  queue 2  tasks/s 25"
    assert lines[1] == "ram 50% of 1.0M r 0/s w 2.0K/s"
    assert lines[3].split()[0] == "NODEv"
    assert lines[4].split() == [
        "0",
        'n"0',
        "leader",
        "##..",
        "50%",
        "####",
        "90%",
        "-",
        "1",
        "2",
        "25",
        "50%",
        "2.0K",
    ]
    assert lines[5].split() == ["1", "n1", "hung", "-", "-", "-", "-", "-", "-", "-", "-"]
    assert max(map(len, lines)) <= 80


def test_details_of_a_node() -> None:
    lines = "\n".join(view.detail(by_id(read_frame(text(), 1.0))["0"]))
    assert "ram::x" in lines
    assert "leader" in lines


# --- the screen ------------------------------------------------------------------------------------------


class Frames:
    """Frames on demand; `problem` makes the next ones fail."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0
        self.problem = ""

    def __call__(self, before: Frame | None) -> Frame:
        self.asked += 1
        if self.problem:
            raise SourceError(self.problem)
        return many(self.count)


Drive = Callable[[TopApp, object], object]


def drive(frames: Frames, *steps: Callable[[TopApp], object] | str, size: tuple[int, int] = (80, 24)) -> None:
    """Run the app without a terminal: press keys (texts) and look (functions) in turn."""

    async def session() -> None:
        app = TopApp(frames, 0.05, Search(), "node")
        async with app.run_test(size=size) as pilot:
            await come_true(pilot, lambda: _is(app.frame is not None or bool(app.problem)))
            for step in steps:
                if isinstance(step, str):
                    await pilot.press(*step.split(" "))
                else:
                    await come_true(pilot, lambda look=step: look(app))

    asyncio.run(session())


async def come_true(pilot: Pilot[None], look: Callable[[], object]) -> None:
    """Wait until `look` no longer fails: the app answers a key in its own tasks, after `press` returned."""
    deadline = time.monotonic() + 10
    while True:
        await pilot.pause(0.02)
        try:
            look()
        except (AssertionError, LookupError, NoMatches):
            if time.monotonic() > deadline:
                raise
        else:
            return


def shown(app: TopApp) -> list[str]:
    """The lines of the list that are in sight."""
    nodes = app.screen_stack[0].query_one(NodeList)
    return [nodes.render_line(y).text for y in range(nodes.size.height)]


def test_a_thousand_nodes_are_drawn_as_far_as_they_are_in_sight() -> None:
    def top(app: TopApp) -> None:
        assert shown(app)[0].split()[:3] == ["0", "host0000", "up"]
        assert len(shown(app)) == 20
        assert all(len(line) == 80 for line in shown(app))

    def bottom(app: TopApp) -> None:
        assert shown(app)[-1].split()[0] == "999"

    def second(app: TopApp) -> None:
        assert app.query_one(NodeList).cursor == 20

    drive(Frames(1000), top, "end", bottom, "home pagedown down", second)


def test_keys() -> None:
    frames = Frames(30)

    def sorted_by_state(app: TopApp) -> None:
        assert app.sort == "state"
        assert shown(app)[0].split()[0] == "3"

    def opened(app: TopApp) -> None:
        assert isinstance(app.screen, NodeScreen)

    def closed(app: TopApp) -> None:
        assert not isinstance(app.screen, NodeScreen)

    def frozen(app: TopApp) -> None:
        assert app.frozen

    def searched(app: TopApp) -> None:
        assert [line.split()[0] for line in shown(app) if line.strip()] == ["4", "5"]

    def all_again(app: TopApp) -> None:
        assert len([line for line in shown(app) if line.strip()]) == 20

    drive(frames, "s", sorted_by_state, "enter", opened, "escape", closed, "f", frozen, "f")
    drive(frames, "slash 4 minus 5", searched, "enter", searched, "slash", "escape", all_again)
    drive(frames, "slash 4 minus", lambda app: _is_in(app.mistyped, "neither a node id nor a range"))


def test_an_answer_that_comes_while_the_app_ends_is_left_alone() -> None:
    async def session() -> None:
        app = TopApp(Frames(3), 60, Search(), "node")
        async with app.run_test() as pilot:
            await app.screen.query("*").remove()
            await pilot.pause()
            app._arrived(many(3))
            app._failed("nobody answers")
        assert not app.screen_stack
        app._arrived(many(3))
        app._failed("nobody answers")

    asyncio.run(session())


def test_a_frame_that_comes_while_a_node_is_being_opened_is_shown_there() -> None:
    async def session() -> None:
        app = TopApp(Frames(3), 60, Search(), "node")
        async with app.run_test() as pilot:
            await come_true(pilot, lambda: _is(app.frame is not None))
            opened = NodeScreen(list(many(3).nodes)[1], app._look, "")
            app.push_screen(opened)
            app._arrived(many(3))

            def shows_it() -> None:
                _is_in(str(opened.query_one("#text", Static).render()), "host0001")

            await come_true(pilot, shows_it)

    asyncio.run(session())


def test_what_comes_together_with_the_slash_is_searched() -> None:
    found: list[str] = []

    async def session() -> None:
        app = TopApp(Frames(9), 0.05, Search(), "node")
        async with app.run_test() as pilot:
            for key, character in (("slash", "/"), ("4", "4")):
                app.post_message(events.Key(key, character))
            await come_true(pilot, lambda: _is(bool(app.query_one("#search", Input).value)))
            found.append(app.query_one("#search", Input).value)

    asyncio.run(session())
    assert found == ["4"]


def _is_in(text: str, part: str) -> None:
    assert part in text


def _is(condition: bool) -> None:
    assert condition


def test_a_frozen_screen_asks_nothing() -> None:
    frames = Frames(3)
    counts: list[int] = []

    async def session() -> None:
        app = TopApp(frames, 0.02, Search(), "node")
        async with app.run_test() as pilot:
            await pilot.press("f")
            await come_true(pilot, lambda: _is(app.frozen and not app._asking))
            counts.append(frames.asked)
            await pilot.pause(0.3)
            counts.append(frames.asked)

    asyncio.run(session())
    assert counts[0] == counts[1]


def test_a_source_that_fails_leaves_the_last_frame() -> None:
    frames = Frames(3)

    async def session() -> None:
        app = TopApp(frames, 0.02, Search(), "node")
        async with app.run_test() as pilot:
            await come_true(pilot, lambda: _is(app.frame is not None))
            frames.problem = "nobody there"
            await come_true(pilot, lambda: _is(app.problem == "nobody there"))
            assert shown(app)[0].split()[0] == "0"

    asyncio.run(session())


def test_q_leaves() -> None:
    async def session() -> None:
        app = TopApp(Frames(3), 0.05, Search(), "node")
        async with app.run_test() as pilot:
            await pilot.press("q")
            await come_true(pilot, lambda: _is(not app.is_running or app._exit))

    asyncio.run(session())


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[str]:
    port = free_port()
    with SimulatorProcess(
        "--nodes",
        "3",
        "--base-port",
        str(port),
        "--address",
        "127.96.8.1",
        "--age",
        "50",
        "--fault",
        "1=refused",
    ) as process:
        yield ",".join(f"127.96.8.{i}:{port}" for i in (1, 2, 3))
        assert process.stats()["violations"] == {}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_once_from_the_nodes_and_from_an_exporter(
    nodes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = ["top", "--once", "--interval", "0.5"]
    asked = ["--nodes", nodes, "--generation", "C", "--runtime.reply-port", "0"]
    assert cli.main([*once, *asked]) == 0
    direct = capsys.readouterr().out.splitlines()
    with ExporterProcess(tmp_path, "--nodes", nodes, "--generation", "C") as exporter:
        assert cli.main([*once, "--from", f"http://{exporter.address}", "--search", "0-1"]) == 0
    remote = capsys.readouterr().out.splitlines()
    for lines in (direct, remote):
        assert lines[0].startswith("3 nodes: 2 up, 1 refused")
        assert lines[4].split()[:3] == ["0", "127.96.8.1", "leader"]
        assert lines[5].split()[:4] == ["1", "127.96.8.2", "refused", "-"]
        rate = lines[4].split()[-3]
        assert rate not in ("-", "0")
    assert (len(direct), len(remote)) == (7, 6)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with closed_port() as port:
        assert cli.main(["top", "--once", "--from", f"http://127.0.0.1:{port}"]) == 1
        assert "refused" in capsys.readouterr().err
    assert cli.main(["top", "--once", "--search", "3-1", "--from", "http://h"]) == 2
    assert "reversed" in capsys.readouterr().err
    assert cli.main(["top", "--from", "http://127.0.0.1:1"]) == 2
    assert "--once" in capsys.readouterr().err


def test_only_the_live_view_needs_textual() -> None:
    code = (
        "import sys; import clio_exporter.cli, clio_exporter.top.command; sys.exit('textual' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
