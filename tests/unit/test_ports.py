"""Free ports for tests that run at the same time."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clio_lab.demo.ports import is_free
from tests import ports
from tests.ports import closed_port, free_port


def test_nobody_is_told_the_same_port_soon() -> None:
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: free_port(), range(40)))
    assert len(set(found)) == 40
    assert all(is_free(port + more) for port in found for more in range(4))


def test_a_port_with_a_taken_one_behind_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = free_port()
    monkeypatch.setattr(ports, "_PORTS", (first + 5,))
    monkeypatch.setattr(ports, "_TURN", tmp_path / "turn")
    with socket.socket() as server:
        server.bind(("127.0.0.1", first + 8))
        server.listen()
        with pytest.raises(RuntimeError, match="no 4 free ports"):
            free_port(4)
        assert free_port(3) == first + 5


def test_a_closed_port_refuses() -> None:
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
