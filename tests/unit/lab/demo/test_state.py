from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from clio_lab.demo.state import ProcessRecord, State


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait(10)


def test_record_recognizes_its_process(sleeper: subprocess.Popen[bytes]) -> None:
    record = ProcessRecord.of(psutil.Process(sleeper.pid), "sleeper")
    assert record.process() == psutil.Process(sleeper.pid)
    sleeper.kill()
    sleeper.wait(10)
    assert record.process() is None


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    record = ProcessRecord.of(psutil.Process(sleeper.pid), "sleeper")
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert record.process() is None


def test_state_survives_being_written_and_read(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "deep" / "state.json"
    state = State(path)
    state.set_owner("demo")
    state.remember(addresses=["127.1.2.3"], directories=["/x"])
    state.add_process(sleeper.pid, "sleeper")
    assert State.load(path) == state


@pytest.mark.parametrize("text", ["", "[]", '{"owner": 3}', '{"processes": [{"pid": 1}]}'])
def test_a_damaged_state_is_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert State.load(path) == State(path)


def test_clean_ends_the_recorded_process(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    leftover = tmp_path / "leftover"
    leftover.mkdir()
    path = tmp_path / "state.json"
    state = State(path, directories=[str(leftover)])
    state.add_process(sleeper.pid, "sleeper")
    done = State.load(path).clean()
    assert done == [f"ended sleeper (pid {sleeper.pid}) of an earlier run"]
    assert sleeper.wait(10) == -9
    assert not leftover.exists()
    assert not path.exists()


def test_clean_spares_a_process_that_only_has_the_pid(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    now = ProcessRecord.of(psutil.Process(sleeper.pid), "sleeper")
    record = replace(now, created=now.created - 5)
    assert State(tmp_path / "state.json", processes=[record]).clean() == []
    assert sleeper.poll() is None


def test_a_process_that_ended_at_once_is_not_recorded(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    sleeper.kill()
    sleeper.wait(10)
    state = State(tmp_path / "state.json")
    state.add_process(sleeper.pid, "sleeper")
    assert state.processes == []


def test_clean_ends_a_marked_process_that_was_not_written_down(tmp_path: Path) -> None:
    state, other = State(tmp_path / "state.json"), State(tmp_path / "other.json")
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    ours = subprocess.Popen(command, env={**os.environ, **state.mark})
    theirs = subprocess.Popen(command, env={**os.environ, **other.mark})
    try:
        assert state.clean() == [f"ended process (pid {ours.pid}) of an earlier run"]
        assert ours.wait(10) == -9
        assert theirs.poll() is None
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait(10)


def test_threads_write_one_record_at_the_same_time(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    failures: list[OSError] = []
    together = threading.Barrier(4)

    def write(number: int) -> None:
        together.wait(10)
        try:
            for _ in range(100):
                state.remember(addresses=[f"127.9.9.{number}"])
                state.forget(addresses=[f"127.9.9.{number}"])
            state.remember(directories=[f"/n{number}"])
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sorted(State.load(state.path).directories) == [f"/n{number}" for number in range(4)]
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_recorded_containers_and_directories_are_removed_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$*" >>{calls}\n[ "$4" = gone ] || echo "$4"\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    state = State(tmp_path / "state.json")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    state.remember(containers=["a", "gone", "b"], directories=[str(ours)])
    state.remove_container("other")
    state.remove_container("a")
    state.remove_directory(theirs)
    state.remove_directory(ours)
    assert (ours.exists(), theirs.exists(), state.directories) == (False, True, [])
    assert State.load(state.path).containers == ["gone", "b"]
    assert state.clean() == ["removed the container b of an earlier run"]
    assert calls.read_text().split("\n")[:-1] == [f"rm --force --volumes {n}" for n in ("a", "gone", "b")]
    state.clean()
    assert len(calls.read_text().splitlines()) == 3
