from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.demo.state import ProcessRecord, State, start_ticks


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait(10)


def test_record_recognizes_its_process(sleeper: subprocess.Popen[bytes]) -> None:
    record = ProcessRecord.of(sleeper.pid, "sleeper")
    assert record.is_alive()
    sleeper.kill()
    sleeper.wait(10)
    assert not record.is_alive()


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    record = ProcessRecord.of(sleeper.pid, "sleeper")
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not record.is_alive()


def test_state_survives_being_written_and_read(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "deep" / "state.json"
    state = State(
        path, owner=ProcessRecord.of(os.getpid(), "demo"), addresses=["127.1.2.3"], directories=["/x"]
    )
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


@pytest.mark.parametrize("difference", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_clean_spares_a_process_that_only_has_the_pid(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], difference: dict[str, object]
) -> None:
    record = replace(ProcessRecord.of(sleeper.pid, "sleeper"), **difference)  # type: ignore[arg-type]
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
    assert start_ticks(sleeper.pid) is None


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
