"""What a cluster must not leave behind, looked up in the system itself."""

from __future__ import annotations

from pathlib import Path

from clio_lab.demo import addresses
from clio_lab.demo.ports import busy_ports
from clio_web.processes import with_environment


def processes(user: str) -> list[int]:
    """Ids of all processes that were started for a cluster: they have its USER value."""
    return sorted(process.pid for process in with_environment("USER", user))


def leftovers(user: str, base_port: int, nodes: int, port_step: int = 10) -> list[str]:
    """Everything a cluster left outside its directory, described; empty when it left nothing."""
    own = {addresses.cluster_address(base_port, index) for index in range(nodes)}
    return [
        *(f"process {pid}" for pid in processes(user)),
        *(f"port {port}" for port in busy_ports(base_port, nodes, port_step)),
        *(f"address {address}" for address in sorted(own & addresses.configured())),
        *(str(path) for path in Path("/tmp").glob(f"*_{user}")),
    ]
