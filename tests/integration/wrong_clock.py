"""A runtime of a local cluster whose clock is wrong, by libfaketime (Debian's package `faketime`).

Only its time of day is shifted: waits and intervals go by the monotonic clock, as they do on such a host.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from clio_lab.demo.node import LocalNode

SHARED_MEMORY = Path("/dev/shm")
KEPT_RIGHT = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}


@cache
def preloaded() -> str:
    """What `faketime` lets the loader of a process with threads preload."""
    asked = subprocess.run(
        ["faketime", "-m", "-f", "+0", "printenv", "LD_PRELOAD"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return asked.stdout.strip()


def restart_with_clock(node: LocalNode, ahead: float) -> None:
    """Restart a node with a clock so many seconds ahead of the host's (behind it where negative)."""
    node.environment |= {"LD_PRELOAD": preloaded(), "FAKETIME": f"{ahead:+.0f}s", **KEPT_RIGHT}
    node.restart()


def restart_with_right_clock(node: LocalNode) -> None:
    """Restart a node with the clock of the host."""
    pid = node.pid
    for name in ("LD_PRELOAD", "FAKETIME", *KEPT_RIGHT):
        node.environment.pop(name, None)
    node.restart()
    # A process that is killed leaves what the library shares between it and its children.
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (SHARED_MEMORY / name).unlink(missing_ok=True)


@contextmanager
def wrong_clock(node: LocalNode, ahead: float) -> Iterator[None]:
    """A node whose clock is wrong for as long as the block lasts."""
    try:
        restart_with_clock(node, ahead)
        yield
    finally:
        restart_with_right_clock(node)
