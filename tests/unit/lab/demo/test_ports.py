from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from clio_lab.demo import ports
from clio_lab.demo.addresses import cluster_address
from clio_lab.demo.errors import DemoError
from clio_lab.demo.ports import (
    PortReservation,
    busy_ports,
    cluster_ports,
    find_base_port,
    holder,
    is_free,
    require_free,
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def port_of(server: socket.socket) -> int:
    port = server.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_cluster_ports_are_three_a_node() -> None:
    assert list(cluster_ports(9413, 2, 10)) == [9413, 9414, 9416, 9423, 9424, 9426]


def test_a_listening_port_is_busy_and_free_again_after() -> None:
    # Not a port of the kernel's choice: its neighbours are in use by anybody.
    base = find_base_port(1)
    port = base + 3
    assert busy_ports(base, 1, 10) == []
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)
        assert not is_free(port, "127.0.0.1")
        assert busy_ports(base, 1, 10) == [port]
    assert is_free(port)


def test_holder_names_this_process(listener: socket.socket) -> None:
    described = holder(port_of(listener))
    assert described is not None
    assert described.endswith(f"(pid {os.getpid()})")


def test_holder_of_a_free_port_is_nobody(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    assert holder(port) is None


def test_a_port_that_somebody_holds_is_refused_at_once(listener: socket.socket) -> None:
    with pytest.raises(DemoError, match=rf"port \d+, which node 0 needs, is in use by .*pid {os.getpid()}"):
        require_free(port_of(listener), "node 0", "base port", "127.0.0.1")


def test_a_port_of_a_process_that_is_just_ending_is_waited_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel still holds the socket, but nobody can be named any more.
    monkeypatch.setattr(ports, "holder", lambda _: None)
    ending = threading.Timer(0.3, listener.close)
    ending.start()
    require_free(port_of(listener), "node 0", "base port", "127.0.0.1")
    ending.join()
    assert listener.fileno() == -1


def test_a_port_that_nobody_can_be_named_for_is_refused_in_the_end(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "holder", lambda _: None)
    monkeypatch.setattr(ports, "ENDING_SECONDS", 0.1)
    with pytest.raises(DemoError, match="is in use: stop that, or choose another base port"):
        require_free(port_of(listener), "node 0", "base port", "127.0.0.1")


def test_a_reserved_base_port_is_skipped_and_refused() -> None:
    first = find_base_port(2)
    reservation = PortReservation(first)
    try:
        assert find_base_port(2) != first
        with pytest.raises(DemoError, match=str(first)):
            PortReservation(first)
    finally:
        reservation.release()
    PortReservation(first).release()


def test_no_free_base_port_is_an_error() -> None:
    with pytest.raises(DemoError, match=r"no 2 free runs of ports in 30000\.\.30000"):
        find_base_port(2, start=30000, stop=30000)


def test_addresses_differ_by_node_and_cluster() -> None:
    assert cluster_address(9413, 0) == "127.94.13.1"
    assert cluster_address(9413, 3) == "127.94.13.4"
    assert cluster_address(21013, 0) == "127.210.13.1"
    with pytest.raises(ValueError, match="254"):
        cluster_address(9413, 254)


@pytest.mark.parametrize("base_port", [1024, 25600, 65000])
def test_every_base_port_gives_a_valid_loopback_address(base_port: int) -> None:
    packed = socket.inet_aton(cluster_address(base_port, 15))
    assert packed[0] == 127
