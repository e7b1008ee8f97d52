"""Free TCP ports for tests that run at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clio_lab.demo.ports import is_free

_STEP: Final = 24
_PORTS: Final = range(10_000, 20_000, _STEP)
"""Below the ephemeral ports, which any connection may have, and below those of real runtimes."""
_TURN: Final = Path(tempfile.gettempdir()) / f"clio-exporter-tests-{os.getuid()}.port"
"""Whose turn it is. Finding a port and binding it are two steps: all processes that run tests on this
machine take turns, so that none is told a port that another is about to bind."""


def free_port(count: int = 4) -> int:
    """The first of `count` (up to 24) ports in a row that nobody listens on, on any address.

    It is the turn of this one again after 400 others. A runtime needs four from its base port on, and three
    runtimes on one address need 24.
    """
    assert count <= _STEP
    with _TURN.open("a+", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = int(turn.read() or 0)
        for number in range(last + 1, last + 1 + len(_PORTS)):
            port = _PORTS[number % len(_PORTS)]
            if all(map(is_free, range(port, port + count))):
                turn.truncate(0)
                turn.write(str(number))
                return port
    raise RuntimeError(f"no {count} free ports in a row in {_PORTS}")


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections, and that nobody can take, inside the block."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
