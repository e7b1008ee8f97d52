"""Processes, whoever started them: found by id and start time or by their environment, watched and ended.

psutil compares the start time that it has noted before it sends a signal, so a pid that another
process has got meanwhile is spared; only between this comparison and the signal a pid could still
change hands, and the kernel gives pids out in turn.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import time
from collections.abc import Callable

import psutil

_STEP_SECONDS = 0.02
_CLOCK_SECONDS = 2.0
"""A process's start is reckoned from the time of the boot, which follows corrections of the clock."""


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs (also paused); one that ended and was not reaped yet does not.

    One whose first thread has ended before others does: they still hold its sockets.
    """
    try:
        return process.is_running() and (
            process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
        )
    except psutil.NoSuchProcess:
        return False


def find(pid: int, started: float) -> psutil.Process | None:
    """The process of this id that began at this Unix time; None when it has ended or the id is another's."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - started) < _CLOCK_SECONDS and is_alive(process):
            return process
    return None


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Return the running processes that were started with the environment variable `name` at `value`.

    Other users' processes cannot be looked into without privileges: they are not among them.
    """
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or somebody else's
            # Not from process_iter: its handles are kept, and remember the program from before an exec.
            process = psutil.Process(pid)
            if process.environ().get(name) == value and is_alive(process):
                found.append(process)
    return found


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; no effect on a process that has ended. Raises PermissionError for another user's."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise PermissionError(errno.EPERM, f"process {process.pid} is another user's") from None


def ask_to_end(process: psutil.Process) -> None:
    """SIGTERM, which a paused process would not see: it is resumed. No effect on one that has ended."""
    send(process, signal.SIGCONT)
    send(process, signal.SIGTERM)


def await_end(process: psutil.Process, seconds: float) -> bool:
    """Wait until it has ended, up to `seconds`; return whether it has."""
    return wait_for(lambda: not is_alive(process), seconds)


def kill(process: psutil.Process, seconds: float = 10.0) -> None:
    """SIGKILL, and wait for the end, up to `seconds`. No effect on a process that has ended."""
    send(process, signal.SIGKILL)
    await_end(process, seconds)


def end(process: psutil.Process, seconds: float) -> bool:
    """SIGTERM; SIGKILL when it still runs `seconds` later. Whether it ended without the latter."""
    ask_to_end(process)
    if await_end(process, seconds):
        return True
    kill(process)
    return False


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds, up to `seconds`; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP_SECONDS)
    return True
