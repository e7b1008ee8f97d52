"""What is checked before the demo starts anything: each problem is one line with its remedy."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.demo.errors import DemoError
from exporter.demo.ports import PORT_OFFSETS, cluster_ports, holder, is_free
from exporter.demo.runtime_config import Capacities

MAX_NODES = 16

# Resident memory as measured: a 2.3.2 runtime with two threads, one traffic client, the exporter.
RUNTIME_MIB = 330
CLIENT_MIB = 25
EXPORTER_MIB = 150
LOGS_MIB = 64

_MIB = 1024 * 1024


def check_nodes(nodes: int) -> None:
    """Raise DemoError unless the number of nodes is one that a machine can be expected to run."""
    if not 1 <= nodes <= MAX_NODES:
        raise DemoError(f"--nodes {nodes} is out of range: choose 1 to {MAX_NODES}")


def check_base_port(base_port: int, nodes: int, port_step: int) -> None:
    """Raise DemoError unless all ports of the cluster are valid, unprivileged numbers."""
    last = base_port + (nodes - 1) * port_step + max(PORT_OFFSETS)
    if base_port < 1024 or last > 65535:
        raise DemoError(
            f"--base-port {base_port} needs the ports {base_port} to {last}: choose 1024 to "
            f"{65535 - last + base_port}"
        )


def needed_memory(nodes: int, capacities: Capacities) -> int:
    """Bytes of memory that the whole demo takes once its RAM devices are full."""
    node = RUNTIME_MIB + CLIENT_MIB + capacities.ram_device + capacities.ram_tier
    return (nodes * node + EXPORTER_MIB) * _MIB


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


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return MemAvailable in bytes (proc(5))."""
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise DemoError(f"no MemAvailable in {meminfo}: a Linux kernel of 3.14 or newer is needed")


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
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def check_ports(base_port: int, nodes: int, port_step: int) -> None:
    """Raise DemoError when something listens on a port that the cluster needs."""
    for port in cluster_ports(base_port, nodes, port_step):
        if not is_free(port):
            raise DemoError(
                f"port {port}, which the cluster needs, is in use{_by(port)}: "
                "stop that, or choose another --base-port"
            )


def check_listen(host: str, port: int) -> None:
    """Raise DemoError when the exporter could not listen on `host`:`port`."""
    try:
        free = is_free(port, host)
    except OSError as error:
        raise DemoError(
            f"cannot listen on {host}: {error.strerror}: choose another --listen address"
        ) from None
    if not free:
        raise DemoError(
            f"port {port}, which the exporter needs, is in use{_by(port)}: "
            "stop that, or choose another --listen address"
        )


def _by(port: int) -> str:
    name = holder(port)
    return f" by {name}" if name else ""
