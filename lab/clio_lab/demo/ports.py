"""Which ports a runtime needs, whether they are free, and who holds them."""

from __future__ import annotations

import atexit
import contextlib
import errno
import random
import socket
from collections import deque
from collections.abc import Iterator

import psutil

from clio_client.address import PORT_OFFSETS
from clio_lab.demo.errors import DemoError
from clio_web.processes import wait_for

ENDING_SECONDS = 20.0
_FOUND_KEPT = 4


def is_free(port: int, address: str = "0.0.0.0") -> bool:  # noqa: S104 - probes, does not listen
    """Whether a server could listen on `address`:`port` now (connections in TIME_WAIT do not count)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            # Two sockets with SO_REUSEADDR can bind one port; only one of them can listen.
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def busy_ports(base_port: int, nodes: int, port_step: int) -> list[int]:
    """Return those of a cluster's ports that something listens on already, in order."""
    return [port for port in cluster_ports(base_port, nodes, port_step) if not is_free(port)]


def cluster_ports(base_port: int, nodes: int, port_step: int) -> Iterator[int]:
    """Yield every port that `nodes` runtimes from `base_port` on need, in order."""
    for index in range(nodes):
        for offset in PORT_OFFSETS:
            yield base_port + index * port_step + offset


class PortReservation:
    """Keeps other clusters of ours off a base port, from before the runtimes bind until they ended.

    Looking for a free port and binding it are two steps; a name in the kernel's abstract socket
    namespace closes the gap between processes of this package and vanishes with its owner. `purpose`
    tells names apart: who has found a port free is not who runs a cluster there.
    """

    def __init__(self, base_port: int, purpose: str = "cluster") -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(f"\0clio-exporter-{purpose}-{base_port}")
        except OSError:
            self._socket.close()
            raise DemoError(
                f"another local cluster uses base port {base_port}: stop it or choose another base port"
            ) from None

    def release(self) -> None:
        """Give the base port free; may be called more than once."""
        self._socket.close()


# What was found last: nobody else is told the same before whoever asked has had the time to use it.
_found: deque[PortReservation] = deque()


@atexit.register
def _release_found() -> None:
    while _found:
        _found.popleft().release()


def find_base_port(nodes: int, *, start: int = 21013, stop: int = 31000, port_step: int = 10) -> int:
    """Return a base port from which `nodes` runtimes find all their ports free now.

    The range ends below the ephemeral ports. Several processes that ask at the same time get different
    ports. Raises DemoError when nothing is free.
    """
    candidates = range(start, stop, max(100, nodes * port_step))
    for base_port in random.sample(candidates, len(candidates)):
        with contextlib.suppress(DemoError):
            found = PortReservation(base_port, "found")
            if _is_unused(base_port, nodes, port_step):
                _found.append(found)
                while len(_found) > _FOUND_KEPT:
                    _found.popleft().release()
                return base_port
            found.release()
    raise DemoError(f"no {nodes} free runs of ports in {start}..{stop}: stop something that listens there")


def _is_unused(base_port: int, nodes: int, port_step: int) -> bool:
    if busy_ports(base_port, nodes, port_step):
        return False
    try:
        PortReservation(base_port).release()
    except DemoError:
        return False
    return True


def require_free(port: int, user: str, choice: str, address: str = "0.0.0.0") -> None:  # noqa: S104 - as above
    """Raise DemoError, naming who listens, unless `address`:`port`, which `user` needs, is free.

    `choice` is what can be chosen otherwise. A process that is ending cannot be looked into any more
    a moment before the kernel closes its sockets: a port that nobody can be named for gets up to
    `ENDING_SECONDS`.
    """
    wait_for(lambda: is_free(port, address) or holder(port) is not None, ENDING_SECONDS)
    if not is_free(port, address):
        by = holder(port)
        raise DemoError(
            f"port {port}, which {user} needs, is in use{f' by {by}' if by else ''}: "
            f"stop that, or choose another {choice}"
        )


def holder(port: int) -> str | None:
    """Return `name (pid N)` of the process that listens on `port`, None when the system does not tell.

    Other users' processes cannot be looked into without privileges.
    """
    for connection in psutil.net_connections("tcp"):
        listens = (
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        if listens and connection.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None
