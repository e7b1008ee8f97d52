"""`clio-exporter top --job` on saved data and a real Prometheus: what it shows, its keys, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Sparkline, Static

from clio_client.config.errors import ConfigError
from clio_client.config.fields import Field
from clio_client.search import Search
from clio_exporter import cli
from clio_exporter.job import server, state
from clio_exporter.job.state import Job
from clio_exporter.service_client import Service
from clio_exporter.top.app import NodeList, NodeScreen, TopApp
from clio_exporter.top.frame import METRICS, Frame, Node
from clio_exporter.top.saved import Saved, moment
from clio_exporter.top.sources import SourceError
from clio_lab.simulator.process import SimulatorProcess
from tests.exporter_process import COMMAND, Scrape, clean_environment, eventually, run_exporter
from tests.ports import free_port
from tests.prometheus import promtool
from tests.system import needs_system

pytestmark = [pytest.mark.integration, needs_system("prometheus", "promtool")]

BEGAN = 1_763_800_000.0
SECONDS = 300
PER_SECOND = 25
"""Tasks of the first worker; the others do a multiple of it."""
DOWN = 200
"""Seconds after which node 2 is down."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's directory whose data go on from a scrape of three simulated nodes, at known rates."""
    root = tmp_path_factory.mktemp("saved")
    hosts = root / "hosts"
    options = ["--nodes", "3", "--workers", "2", "--bdevs", "2", "--age", "100"]
    with SimulatorProcess(*options, "--base-port", str(free_port(20)), "--hostfile", str(hosts)):
        asked = ["--hostfile", str(hosts), "--runtime.reply-port", str(free_port())]
        told = run_exporter(root, "scrape", *asked)
    assert told.returncode == 0, told.stderr
    series = [(name, labels, value) for name in METRICS for labels, value in Scrape(told.stdout).series(name)]
    assert {name for name, *_ in series} >= {"clio_node_up", "clio_bdev_info", "clio_worker_queued_tasks"}
    directory = root / "job"
    directory.mkdir()
    lines = [line for second in range(SECONDS + 1) for line in at_second(series, second)]
    history = root / "history.om"
    history.write_text("\n".join([*lines, "# EOF", ""]))
    blocks = promtool("tsdb", "create-blocks-from", "openmetrics", str(history), str(directory / state.DATA))
    assert blocks.returncode == 0, blocks.stdout + blocks.stderr
    labels = {"job_id": "17", "user": "ann", "job_name": "sort"}
    state.save(directory, Job("elsewhere", labels, 3, 1.0, BEGAN - 0.4, BEGAN + SECONDS))
    marks = [{"time": BEGAN + 60, "text": "phase 2"}, {"time": BEGAN + 120, "text": "phase 3"}]
    (directory / state.MARKS).write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    return directory


def at_second(series: list[tuple[str, dict[str, str], float]], second: int) -> Iterator[str]:
    """Samples of a moment: counters and CPU go on from the recorded values, node 2 goes down."""
    for name, labels, recorded in series:
        value = recorded
        if labels["node_id"] == "2" and second >= DOWN:
            if name != "clio_node_up":
                continue
            value = 0.0
        elif name == "clio_worker_tasks_processed_total":
            value += PER_SECOND * (1 + int(labels["worker_id"])) * second
        elif name == "clio_bdev_written_bytes_total":
            value += 4096 * second
        elif name == "clio_node_cpu_utilization_ratio":
            value = (second % 100) / 100
        pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in {**labels, "job_id": "17"}.items())
        yield f"{name}{{{pairs}}} {value!r} {BEGAN + second:.3f}"


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """A copy for each test: Prometheus writes beside its data."""
    return Path(shutil.copytree(made, tmp_path / "clio-job-17"))


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def top(*arguments: str) -> int:
    return cli.main(["top", "--once", *arguments])


def nodes_of(frame: Frame) -> dict[str, Node]:
    return {node.node_id: node for node in frame.nodes.values()}


# --- numbers ---------------------------------------------------------------------------------------------


def test_numbers_are_those_of_queries(directory: Path) -> None:
    offsets = (0.0, 3.0, 77.5, 199.0, 240.0, float(SECONDS))
    frames = {}
    with closing(Saved(directory, None)) as saved:
        for offset in offsets:
            saved.move(BEGAN + offset - saved.at)
            frames[BEGAN + offset] = saved.frame(None)
        curves = saved.curves(next(iter(frames[BEGAN].nodes)), BEGAN + 98, 2.0, 20)
    with server.opened(directory, 60) as opened:
        service = Service(f"http://127.0.0.1:{opened.port}", 30)

        def value(expression: str, at: float) -> float | None:
            found = service.get("/api/v1/query", query=expression, time=f"{at:.3f}").data["result"]
            assert len(found) <= 1, found
            return float(found[0]["value"][1]) if found else None

        for at, frame in frames.items():
            assert frame.at == at
            assert set(nodes_of(frame)) == {"0", "1", "2"}
            for number, node in nodes_of(frame).items():
                of = f'{{node_id="{number}"}}'
                assert float(node.up) == value(f"clio_node_up{of}", at)
                if not node.up:
                    continue
                free, total = (
                    value(f"clio_node_memory_{name}_bytes{of}", at) for name in ("available", "total")
                )
                assert free is not None
                assert total is not None
                assert node.cpu == value(f"clio_node_cpu_utilization_ratio{of}", at)
                assert node.memory == 1 - free / total
                assert node.queued == value(f"sum(clio_worker_queued_tasks{of})", at)
                capacity = value(f"sum(clio_bdev_capacity_bytes{of})", at)
                unused = value(f"sum(clio_bdev_free_bytes{of})", at)
                assert capacity is not None
                assert unused is not None
                assert node.fill == pytest.approx(1 - unused / capacity)
                for shown, series in (
                    (node.tasks, "clio_worker_tasks_processed_total"),
                    (node.read, "clio_bdev_read_bytes_total"),
                    (node.written, "clio_bdev_written_bytes_total"),
                ):
                    counted = value(f"sum(rate({series}{of}[4s]))", at)
                    assert shown == (None if counted is None else pytest.approx(counted)), (at, series)
    assert nodes_of(frames[BEGAN])["0"].tasks is None  # a counter has no rate at its first sample
    assert nodes_of(frames[BEGAN + 77.5])["0"].tasks == pytest.approx(3 * PER_SECOND)
    # Of its two devices the memory has no counters.
    assert nodes_of(frames[BEGAN + 77.5])["0"].written == pytest.approx(4096)
    assert [nodes_of(frames[BEGAN + at])["2"].up for at in (199, 240)] == [True, False]
    assert curves[0] == pytest.approx([(60 + 2 * n) / 100 for n in range(20)])
    assert set(curves[1]) == {nodes_of(frames[BEGAN])["0"].memory}
    assert curves[2] == pytest.approx([3.0 * PER_SECOND] * 20)


def test_a_time_without_samples_shows_no_nodes(directory: Path) -> None:
    job = state.load(directory)
    state.save(directory, Job(job.host, job.labels, 3, 1.0, job.began, BEGAN + SECONDS + 60))
    with closing(Saved(directory, None, last=True)) as saved:
        assert saved.frame(None).nodes == {}
        saved.move(-57)
        assert set(nodes_of(saved.frame(None))) == {"0", "1", "2"}


def test_once_shows_the_end_or_the_time_that_is_given(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert top("--job", str(directory)) == 0
    last = capsys.readouterr().out.splitlines()
    assert last[0] == "job 17 (sort)  2025-11-22 08:31:40 +0000  0:05:00 of 0:05:00  phase 3 -0:03:00"
    assert last[1].startswith("3 nodes: 2 up, 1 down")
    for written in ("+90s", "2025-11-22T08:28:10Z", "2025-11-22T08:28:10+00:00", f"{BEGAN + 90:.0f}"):
        assert top("--job", str(directory), "--at", written, "--search", "1-2", "--sort", "tasks") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "job 17 (sort)  2025-11-22 08:28:10 +0000  0:01:30 of 0:05:00  phase 2 -0:00:30"
        assert lines[1].startswith("3 nodes: 3 up  cpu 90%")
        assert lines[1].endswith(f"tasks/s {9 * PER_SECOND}")
        assert [line.split()[0] for line in lines[5:]] == ["1", "2"]
    assert children() == []


def test_errors(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert top(*arguments) == 2
        assert children() == []
        return capsys.readouterr().err

    job = ["--job", str(directory)]
    for outside in ("+6m", "2025-11-22T08:00:00Z", "0", str(BEGAN + SECONDS + 2)):
        problem = said(*job, "--at", outside)
        assert f"--at {outside}: is outside of the job" in problem
        assert "from 2025-11-22 08:26:40 +0000 to 2025-11-22 08:31:40 +0000, or from +0s to +300s" in problem
    for wrong in ("soon", "+soon", "nan", "inf"):
        assert "is no time" in said(*job, "--at", wrong)
    assert "--at: is given without --job" in said("--at", "+1s")
    assert "--job: is given with --from" in said(*job, "--from", "http://127.0.0.1:1")
    assert "cannot be read: No such file" in said("--job", str(tmp_path / "missing"))
    assert "cannot be read: No such file" in said("--job", str(tmp_path))
    with server.opened(directory, 60) as other:
        assert top(*job) == 2
        assert f"is open in another Prometheus (pid {other.record.pid})" in capsys.readouterr().err
    shutil.rmtree(directory / state.DATA)
    assert "has no data of Prometheus" in said(*job)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "prometheus: is not on PATH" in said(*job)


def children() -> list[psutil.Process]:
    """Prometheus servers that this process has started and that still run."""
    return [child for child in psutil.Process().children() if child.name() == "prometheus"]


def test_a_job_that_runs_is_asked_at_its_own_prometheus(tmp_path: Path) -> None:
    """While it runs, when its nodes have gone, and after its end: what was then is shown, nothing older."""
    hosts, directory = tmp_path / "hosts", tmp_path / "job"

    def shows(*expected: str) -> bool:
        told = run_exporter(tmp_path, "top", "--once", "--job", str(directory))
        assert told.returncode == 0, told.stderr
        lines = told.stdout.splitlines()
        return lines[0].startswith("job r  ") and any(map(lines[1].startswith, expected))

    with ExitStack() as simulated:
        simulated.enter_context(
            SimulatorProcess("--nodes", "2", "--base-port", str(free_port(20)), "--hostfile", str(hosts))
        )
        started = run_exporter(
            tmp_path, "job", "start", "--directory", str(directory), "--hostfile", str(hosts), "--id", "r",
            "--", "--runtime.reply-port", str(free_port()),
        )  # fmt: skip
        assert started.returncode == 0, started.stderr
        try:
            eventually("both nodes", lambda: shows("2 nodes: 2 up  cpu"))
            with closing(Saved(directory, None, last=True)) as saved:
                assert not saved.ended
                up = before = saved.end
                assert saved.end > before
                assert children() == []  # none of ours
            simulated.close()
            eventually("they are down", lambda: shows("2 nodes: 0 up, 2 refused  cpu -  queue -  tasks/s -"))
        finally:
            stopped = run_exporter(tmp_path, "job", "stop", "--directory", str(directory), "--no-report")
    assert stopped.returncode == 0, stopped.stderr
    with closing(Saved(directory, None, last=True)) as saved:
        assert saved.ended
        assert len(children()) == 1
        node = nodes_of(saved.frame(None))["0"]
        assert (node.state, node.cpu, node.memory, node.tasks, node.queued) == ("refused", *[None] * 4)
        saved.move(up - saved.at)
        assert nodes_of(saved.frame(None))["0"].up
        assert not saved.ended
    assert children() == []
    with pytest.raises(SourceError, match="the job's Prometheus"):
        saved.frame(None)


# --- keys ------------------------------------------------------------------------------------------------


Look = Callable[[TopApp], None]


def drive(
    directory: Path,
    *steps: Look | str,
    interval: float = 600,
    start: str = "",
    size: tuple[int, int] = (80, 24),
) -> None:
    """Run the screen without a terminal: press keys (texts) and look (functions) in turn."""

    async def session(saved: Saved) -> None:
        app = TopApp(saved.frame, interval, Search(), "node", saved)
        async with app.run_test(size=size) as pilot:
            await come_true(pilot, lambda: is_true(app.frame is not None))
            for step in steps:
                if isinstance(step, str):
                    await pilot.press(*step.split(" "))
                else:
                    await come_true(pilot, lambda look=step: look(app))

    chosen = moment(Field.given(start, "--at")) if start else None
    with closing(Saved(directory, chosen)) as saved:
        asyncio.run(session(saved))


async def come_true(pilot: Pilot[None], look: Callable[[], None]) -> None:
    deadline = time.monotonic() + 20
    while True:
        await pilot.pause(0.02)
        try:
            look()
        except (AssertionError, LookupError):
            if time.monotonic() > deadline:
                raise
        else:
            return


def is_true(condition: bool) -> None:
    assert condition


def text(app: TopApp, part: str) -> str:
    return str(app.screen.query_one(part, Static).render())


def at(offset: str, *more: str) -> Look:
    """The header says that moment, and the lines below are of it."""

    def look(app: TopApp) -> None:
        assert app.frame is not None
        header = text(app, "#summary").splitlines()[0]
        assert f"  {offset} of 0:05:00" in header
        hours, minutes, seconds = map(int, offset.split(":"))
        cpu = (hours * 3600 + minutes * 60 + seconds) % 100 / 100
        assert nodes_of(app.frame)["0"].cpu == cpu
        for expected in more:
            assert expected in header + text(app, "#status")

    return look


def test_keys_move_in_time(directory: Path) -> None:
    drive(
        directory,
        at("0:00:00", "job 17 (sort)", "2025-11-22 08:26:40"), "right", at("0:00:10"),
        "right right right", at("0:00:40"), "left", at("0:00:30"),
        "shift+right", at("0:01:30", "phase 2 -0:00:30"), "shift+left shift+left", at("0:00:00"),
        "end", at("0:05:00", "PAUSED", "phase 3"), "left", at("0:04:50", "PAUSED"),
        "home", at("0:00:00"), "left", at("0:00:00"),
    )  # fmt: skip


def test_it_plays_pauses_and_ends(directory: Path) -> None:
    seen: list[float] = []

    def goes_on(app: TopApp) -> None:
        assert app.frame is not None
        seen.append(app.frame.at)
        assert app.frame.at >= BEGAN + 61

    def stands(app: TopApp) -> None:
        assert app.frozen
        assert not app._asking
        assert "PAUSED" in text(app, "#status")
        seen.append(app.frame.at if app.frame else 0)

    def still_there(app: TopApp) -> None:
        assert app.frame is not None
        assert app.frame.at == seen[-1]

    def plays(app: TopApp) -> None:
        assert not app.frozen
        assert app.frame is not None
        assert app.frame.at > seen[-1]

    def from_the_beginning(app: TopApp) -> None:
        assert not app.frozen
        assert app.frame is not None
        assert BEGAN < app.frame.at < BEGAN + 20

    drive(
        directory, goes_on, "space", stands, lambda _: time.sleep(0.4), still_there, "space", plays,
        "f", stands, "f", "end", at("0:05:00", "PAUSED"), "space", from_the_beginning,
        interval=0.1, start="+1m",
    )  # fmt: skip
    assert seen == sorted(seen)


def test_a_nodes_page_shows_the_time_before(directory: Path) -> None:
    def page(cpu: int) -> Look:
        def look(app: TopApp) -> None:
            assert isinstance(app.screen, NodeScreen)
            shown = text(app, "#text")
            assert "job 17 (sort)  2025-11-22" in shown
            assert f"cpu {cpu}%" in shown
            assert re.search(rf"\n +0 +\S+ +\d+ +\d+ +{PER_SECOND} ", shown)
            curve = app.screen.query_one("#curve-cpu", Sparkline).data
            assert curve is not None
            assert list(curve)[-1] == cpu / 100
            assert len(list(curve)) == 76 if cpu == 75 else 86
            tasks = app.screen.query_one("#curve-tasks", Sparkline).data
            assert tasks is not None
            assert max(tasks) == pytest.approx(3 * PER_SECOND)

        return look

    def gone(app: TopApp) -> None:
        assert "node 2 " in text(app, "#text")
        assert "down" in text(app, "#text")

    drive(
        directory, "space", lambda app: is_true(app.frozen), "down enter", page(75), "right", page(85),
        "escape", at("0:01:25"), "down enter", lambda app: is_true(isinstance(app.screen, NodeScreen)),
        "end", gone, "escape", at("0:05:00"),
        interval=1.0, start="+75s", size=(80, 40),
    )  # fmt: skip


def test_search_takes_the_arrows_while_it_is_typed(directory: Path) -> None:
    def lines(app: TopApp) -> list[str]:
        found = app.screen_stack[0].query_one(NodeList)
        return [
            line.split()[0] for y in range(found.size.height) if (line := found.render_line(y).text).strip()
        ]

    def searched(app: TopApp) -> None:
        assert app.query_one("#search", Input).value == "1-2"
        assert lines(app) == ["1", "2"]

    def cursor(app: TopApp) -> None:
        assert app.query_one("#search", Input).cursor_position == 2

    def sorted_by_state(app: TopApp) -> None:
        assert app.sort == "state"
        assert lines(app) == ["2", "1"]

    drive(
        directory, "slash 1 minus 2", searched, "left", cursor, at("0:04:00"), "enter", "right",
        at("0:04:10"), searched, "s", sorted_by_state, start="+4m",
    )  # fmt: skip


# --- the end ---------------------------------------------------------------------------------------------


@contextmanager
def terminal(directory: Path, home: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of its own."""
    ours, its = pty.openpty()
    environment = clean_environment(home, {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"})
    process = subprocess.Popen(
        [*COMMAND, "top", "--job", str(directory)], stdin=its, stdout=its, stderr=its,
        env=environment, cwd=home.parent, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    try:
        yield process, ours
    finally:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait(10)
        os.close(ours)


def read_until(screen: int, part: bytes) -> None:
    """Read what is drawn, until a text is among it."""
    drawn, deadline = b"", time.monotonic() + 60
    while part not in drawn:
        ready, _, _ = select.select([screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, drawn[-2000:]
        drawn += os.read(screen, 65536)


def ended(process: subprocess.Popen[bytes], screen: int) -> int:
    """The status it ends with; what it draws meanwhile is taken off the terminal."""

    def look() -> bool:
        ready, _, _ = select.select([screen], [], [], 0.05)
        if ready:
            os.read(screen, 65536)  # an error (its side is closed) is tried again, until it has ended
        return process.poll() is not None

    eventually("it ends", lambda: process.poll() is not None or look(), 40)
    return process.returncode


@pytest.mark.parametrize("way", ["q", "\x03", signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_prometheus_ends_with_it(directory: Path, tmp_path: Path, way: Any) -> None:
    with terminal(directory, tmp_path / "home") as (process, screen):
        read_until(screen, b"job 17")
        (prometheus,) = psutil.Process(process.pid).children()
        assert prometheus.name() == "prometheus"
        if isinstance(way, str):
            os.write(screen, way.encode())
        else:
            process.send_signal(way)
        assert ended(process, screen) == 0
        assert not prometheus.is_running()


def test_prometheus_ends_when_it_is_interrupted_while_that_starts(directory: Path, tmp_path: Path) -> None:
    with terminal(directory, tmp_path / "home") as (process, screen):
        found: list[psutil.Process] = eventually(
            "its child", lambda: psutil.Process(process.pid).children(), 60, pause=0.005
        )
        process.send_signal(signal.SIGTERM)
        try:
            assert ended(process, screen) in (0, 130)
            assert not any(child.is_running() for child in found)
        finally:
            for child in found:
                if child.is_running():
                    child.kill()


def test_prometheus_ends_when_it_cannot_be_asked(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SourceError("nobody answers")

    monkeypatch.setattr(Saved, "_data", fails)
    assert top("--job", str(directory)) == 2
    assert "cannot be asked: nobody answers" in capsys.readouterr().err
    assert children() == []


def test_moments_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="is no time"):
        moment(Field.given("tomorrow", "--at"))
