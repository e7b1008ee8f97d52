"""Processes that somebody else has started: when they have ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from clio_web import processes

# The first thread ends (exit, not exit_group), the second lives on: what a runtime looks like while it ends.
FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.fixture
def half_ended() -> Iterator[psutil.Process]:
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        process = psutil.Process(child.pid)
        assert processes.wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE, 30)
        yield process
        child.kill()


def test_one_whose_first_thread_alone_has_ended_still_runs(half_ended: psutil.Process) -> None:
    assert processes.is_alive(half_ended)
    assert not processes.await_end(half_ended, 0)


def test_it_has_ended_with_its_last_thread(half_ended: psutil.Process) -> None:
    processes.kill(half_ended)
    assert half_ended.status() == psutil.STATUS_ZOMBIE, "nobody has reaped it"
    assert not processes.is_alive(half_ended)


def test_it_is_found_by_id_and_start_time(half_ended: psutil.Process) -> None:
    began = half_ended.create_time()
    assert processes.find(half_ended.pid, began) == half_ended
    assert processes.find(half_ended.pid, began - 60) is None
    assert processes.end(half_ended, 10)
    assert processes.find(half_ended.pid, began) is None
