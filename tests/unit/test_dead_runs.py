"""What a killed test run has left is ended and removed by the next one, and nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clio_lab.demo.state import State
from clio_web.processes import await_end, is_alive, kill
from tests.dead_runs import MARK, recorded, remove_dead
from tests.paths import ROOT

RUN = """
import shutil, subprocess, sys
from pathlib import Path
from tests.dead_runs import recorded
base, runs = Path(sys.argv[1]), Path(sys.argv[2])
with recorded(base, runs):
    sleep = ["/bin/sleep", "300"]
    named = [sys.executable, "-c", "import time; time.sleep(300)", f"{base}/sshd_config"]
    base.mkdir(exist_ok=True)
    step = [shutil.copy("/bin/sleep", base.parent / "slurmstepd"), "300"]
    logs = [open(directory / "slurmd.log", "w") for directory in (base, base.parent)]
    none = subprocess.DEVNULL
    children = [
        subprocess.Popen(command, stdout=output, env=environment, start_new_session=True)
        for command, environment, output in (
            (sleep, None, none), (sleep, {"HOME": str(base / "n0" / "home")}, none), (named, {}, none),
            (step, {}, logs[0]), (step, {}, logs[1]), (sleep, {"HOME": str(base.parent)}, none),
        )
    ]
    print(*(child.pid for child in children), flush=True)
    input()
"""


class Run:
    """A process that runs tests: its children inherit its environment, have one of the run, are told a file
    of the run and write one; two have nothing of it."""

    def __init__(self, base: Path, runs: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(base), str(runs)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.children = [psutil.Process(int(pid)) for pid in self.process.stdout.readline().split()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def close(self) -> None:
        with self.process:
            self.kill()
        for child in self.children:
            kill(child)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path / "base", tmp_path / "runs")
    yield started
    started.close()


def test_processes_of_a_killed_run_are_ended(run: Run, tmp_path: Path) -> None:
    *ours, another_step, foreign = run.children
    run.kill()
    done = remove_dead(tmp_path / "runs")
    assert {f"(pid {child.pid})" in " ".join(done) for child in ours} == {True}
    assert all(await_end(child, 10) for child in ours)
    assert is_alive(another_step)
    assert is_alive(foreign)
    assert list((tmp_path / "runs").glob("*.json")) == []
    assert remove_dead(tmp_path / "runs") == []


def test_what_a_cluster_of_a_killed_run_has_made_is_removed(run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    record = tmp_path / "base" / "cluster" / "state.json"
    State(record).remember(directories=[str(outside)])
    run.kill()
    remove_dead(tmp_path / "runs")
    assert not outside.exists()
    assert not record.exists()


def test_a_run_under_way_is_spared(run: Run, tmp_path: Path) -> None:
    assert remove_dead(tmp_path / "runs") == []
    assert all(map(is_alive, run.children))


def test_the_next_run_begins_with_it(run: Run, tmp_path: Path) -> None:
    before = os.environ.get(MARK)
    run.kill()
    with recorded(tmp_path / "other", tmp_path / "runs"):
        assert not is_alive(run.children[0])
        assert [path.stem for path in (tmp_path / "runs").glob("*.json")] == [str(os.getpid())]
        assert os.environ[MARK] == str(tmp_path / "runs" / f"{os.getpid()}.json")
    assert os.environ.get(MARK) == before
    assert list((tmp_path / "runs").glob("*.json")) == []


def test_a_record_cut_short_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"pid": 1,')
    remove_dead(tmp_path)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_what_a_killed_run_has_mounted_is_unmounted(tmp_path: Path) -> None:
    runs, base = tmp_path / "runs", tmp_path / "base dir"
    inner, other = base / "disk", tmp_path / "disk"
    for path in (runs, inner, other):
        path.mkdir(parents=True)
    (runs / "1.json").write_text(json.dumps({"pid": os.getpid(), "created": 1.0, "basetemp": str(base)}))
    made = []
    try:
        for path in (inner, other):
            command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
            if subprocess.run(command, timeout=30, capture_output=True, check=False).returncode != 0:
                pytest.skip("nothing can be mounted here")
            made.append(path)
        assert remove_dead(runs) == [f"unmounted {inner} of a killed test run"]
        assert [path.is_mount() for path in made] == [False, True]
    finally:
        for path in made:
            subprocess.run(["umount", "-l", str(path)], timeout=30, capture_output=True, check=False)
