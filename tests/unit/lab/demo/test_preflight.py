from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from clio_lab.demo import preflight
from clio_lab.demo.errors import DemoError
from clio_lab.demo.ports import find_base_port
from clio_lab.demo.runtime_config import Capacities

GIB = 1 << 30


@pytest.mark.parametrize("nodes", [0, -1, 17])
def test_nodes_out_of_range(nodes: int) -> None:
    with pytest.raises(DemoError, match=rf"--nodes {nodes} is out of range: choose 1 to 16"):
        preflight.check_nodes(nodes)


def test_nodes_in_range() -> None:
    for nodes in (1, 4, 16):
        preflight.check_nodes(nodes)


@pytest.mark.parametrize(("base_port", "fits"), [(1023, False), (1024, True), (65502, True), (65503, False)])
def test_base_port_bounds_with_four_nodes(base_port: int, fits: bool) -> None:
    if fits:
        preflight.check_base_port(base_port, 4, 10)
    else:
        with pytest.raises(DemoError, match="choose 1024 to 65502"):
            preflight.check_base_port(base_port, 4, 10)


def test_too_little_memory_says_how_many_nodes_fit() -> None:
    available = preflight.needed_memory(2, Capacities())
    preflight.check_memory(2, Capacities(), available)
    with pytest.raises(DemoError, match="use --nodes 2"):
        preflight.check_memory(4, Capacities(), available)
    with pytest.raises(DemoError, match="free some memory"):
        preflight.check_memory(4, Capacities(), 1 << 20)


def test_available_memory_is_in_bytes() -> None:
    assert 1 << 26 < preflight.available_memory() < 1 << 50


def test_too_little_disk_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=str(tmp_path)):
        preflight.check_disk(4, Capacities(), tmp_path, GIB)
    preflight.check_disk(4, Capacities(), tmp_path, 2 * GIB)


def test_available_disk_of_a_directory_yet_to_be_made(tmp_path: Path) -> None:
    assert preflight.available_disk(tmp_path / "a" / "b") > 0


def test_a_port_in_use_is_named_with_its_process_and_a_remedy() -> None:
    base_port = find_base_port(2)
    with socket.socket() as server:
        # An earlier cluster may have left connections in TIME_WAIT there.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", base_port + 13))
        server.listen()
        with pytest.raises(DemoError) as caught:
            preflight.check_ports(base_port, 2, 10)
    message = str(caught.value)
    assert f"port {base_port + 13}" in message
    assert f"(pid {os.getpid()})" in message
    assert "another --base-port" in message
    assert "\n" not in message
    preflight.check_ports(base_port, 2, 10)


def test_the_exporters_port_in_use() -> None:
    with socket.socket() as server:
        # An earlier cluster may have left connections in TIME_WAIT there.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(DemoError, match="another --listen"):
            preflight.check_listen("127.0.0.1", server.getsockname()[1])


def test_an_address_that_is_not_of_this_machine() -> None:
    with pytest.raises(DemoError, match=r"cannot listen on 192\.0\.2\.1"):
        preflight.check_listen("192.0.2.1", 9777)


# --- ports that can be chosen -----------------------------------------------------------------------


def test_a_port_that_nobody_wanted_is_the_first_free_one() -> None:
    first = find_base_port(1)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", first))
        server.listen()
        assert preflight.choose_port(None, first, "Grafana", "--grafana-port") > first
        with pytest.raises(DemoError, match=rf"port {first}, which Grafana needs, is in use.*--grafana-port"):
            preflight.choose_port(first, 3000, "Grafana", "--grafana-port")
    assert preflight.choose_port(first, 3000, "Grafana", "--grafana-port") == first


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port: int) -> None:
    with pytest.raises(DemoError, match=f"--grafana-port {port} is no port: choose 1 to 65535"):
        preflight.choose_port(port, 3000, "Grafana", "--grafana-port")
