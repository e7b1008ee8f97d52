"""What a cluster must not leave behind, looked up in the system itself."""

from __future__ import annotations

from pathlib import Path

from exporter.demo import addresses
from exporter.demo.ports import busy_ports


def processes(user: str) -> list[int]:
    """Ids of all processes that were started for a cluster: they have its USER value."""
    wanted = f"USER={user}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            continue
    return sorted(found)


def leftovers(user: str, base_port: int, nodes: int, port_step: int = 10) -> list[str]:
    """Everything a cluster left outside its directory, described; empty when it left nothing."""
    own = {addresses.cluster_address(base_port, index) for index in range(nodes)}
    return [
        *(f"process {pid}" for pid in processes(user)),
        *(f"port {port}" for port in busy_ports(base_port, nodes, port_step)),
        *(f"address {address}" for address in sorted(own & addresses.configured())),
        *(str(path) for path in Path("/tmp").glob(f"*_{user}")),
    ]
