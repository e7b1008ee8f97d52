"""What is checked before the demo starts anything: each problem is one line with its remedy."""

from __future__ import annotations

from pathlib import Path

import psutil

from clio_client.address import HIGHEST_PORT, PORT_OFFSETS
from clio_lab.demo.errors import DemoError
from clio_lab.demo.ports import cluster_ports, is_free, require_free
from clio_lab.demo.runtime_config import Capacities

MAX_NODES = 16
LOOPBACK = "127.0.0.1"

# Resident memory as measured: a 2.3.2 runtime with two threads, one traffic client, the exporter.
RUNTIME_MIB = 330
CLIENT_MIB = 25
EXPORTER_MIB = 150
MONITORING_MIB = 150  # Prometheus and Alertmanager in the first hour; Grafana takes as much again
LOGS_MIB = 64

_MIB = 1024 * 1024


def check_nodes(nodes: int) -> None:
    """Raise DemoError unless the number of nodes is one that a machine can be expected to run."""
    if not 1 <= nodes <= MAX_NODES:
        raise DemoError(f"--nodes {nodes} is out of range: choose 1 to {MAX_NODES}")


def check_base_port(base_port: int, nodes: int, port_step: int) -> None:
    """Raise DemoError unless all ports of the cluster are valid, unprivileged numbers."""
    last = base_port + (nodes - 1) * port_step + max(PORT_OFFSETS)
    if base_port < 1024 or last > HIGHEST_PORT:
        raise DemoError(
            f"--base-port {base_port} needs the ports {base_port} to {last}: choose 1024 to "
            f"{HIGHEST_PORT - last + base_port}"
        )


def needed_memory(nodes: int, capacities: Capacities) -> int:
    """Bytes of memory that the whole demo takes once its RAM devices are full."""
    node = RUNTIME_MIB + CLIENT_MIB + capacities.ram_device + capacities.ram_tier
    return (nodes * node + EXPORTER_MIB + MONITORING_MIB) * _MIB


def check_memory(nodes: int, capacities: Capacities, available: int) -> None:
    """Raise DemoError when `available` bytes do not hold the demo."""
    needed = needed_memory(nodes, capacities)
    if available < needed:
        fitting = max((n for n in range(nodes) if needed_memory(n, capacities) <= available), default=0)
        remedy = f"use --nodes {fitting}" if fitting else "free some memory"
        raise DemoError(
            f"{nodes} nodes need about {needed // _MIB} MiB of memory, "
            f"{available // _MIB} MiB are available: {remedy}"
        )


def available_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    return psutil.virtual_memory().available


def check_disk(nodes: int, capacities: Capacities, directory: Path, available: int) -> None:
    """Raise DemoError when `available` bytes do not hold the demo's device files and logs."""
    needed = (nodes * capacities.disk_at_most + LOGS_MIB) * _MIB
    if available < needed:
        raise DemoError(
            f"{nodes} nodes need about {needed // _MIB} MiB of disk, {directory} has "
            f"{available // _MIB} MiB: free some space, use fewer --nodes or another --dir"
        )


def available_disk(directory: Path) -> int:
    """Return the bytes that we may write in `directory`, or where it would be made."""
    while not directory.exists():
        directory = directory.parent
    return psutil.disk_usage(str(directory)).free


def check_ports(base_port: int, nodes: int, port_step: int) -> None:
    """Raise DemoError when something listens on a port that the cluster needs."""
    for port in cluster_ports(base_port, nodes, port_step):
        require_free(port, "the cluster", "--base-port")


def choose_port(wanted: int | None, default: int, user: str, option: str) -> int:
    """Return the port that `user` gets on loopback: the wanted one, else a free one from `default` on.

    Raises DemoError when the wanted one is in use or no port, or none of ten from `default` on is free.
    """
    if wanted is None:
        ports = range(default, default + 10)
        free = next((port for port in ports if is_free(port, LOOPBACK)), None)
        if free is None:
            raise DemoError(
                f"{user}: ports {ports[0]} to {ports[-1]} are all in use: choose another with {option}"
            )
        return free
    if not 1 <= wanted <= HIGHEST_PORT:
        raise DemoError(f"{option} {wanted} is no port: choose 1 to {HIGHEST_PORT}")
    try:
        require_free(wanted, user, option, LOOPBACK)
    except OSError as error:
        raise DemoError(f"{option} {wanted}: {error.strerror}: choose another") from None
    return wanted


def check_listen(host: str, port: int) -> None:
    """Raise DemoError when the exporter could not listen on `host`:`port`."""
    try:
        require_free(port, "the exporter", "--listen address", host)
    except OSError as error:
        raise DemoError(
            f"cannot listen on {host}: {error.strerror}: choose another --listen address"
        ) from None
