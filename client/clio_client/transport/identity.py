"""Under which ZeroMQ identity a connection is opened: one that nobody else ever shows to the same runtime.

A runtime that is shown one identity by two living connections aborts seconds later (wire protocol,
section 1), and it keeps one dial-back for every identity and reply port it ever saw, until it ends. So the
identity must differ wherever two connections may live at once, and be the same again after a restart.
"""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path
from typing import Final

DIGEST_LENGTH: Final = 16

_ROLE: Final = re.compile(r"[a-z][a-z-]{0,19}")
_MACHINE_ID: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def routing_identity(
    reply_host: str, reply_port: int, role: str, *, host: str, local: str, endpoint: str
) -> bytes:
    """``reply host:reply port:clio-<role>-<digest>``; a runtime reads only what is before the first ``:``.

    The reply port tells the processes of one host apart, for only one can listen on it. The digest tells
    apart what may share a reply address: hosts and containers behind one address translator, and several
    addresses of one runtime.

    Args:
        reply_host: where the runtime shall dial back to.
        reply_port: the port there.
        role: which program asks, for whoever reads a runtime's log: ``exporter``, ``control-api`` ...
        host: this host's `host_mark`.
        local: our address on the route to the runtime.
        endpoint: address and port that are connected to, resolved.

    Raises:
        ValueError: the role is not a short word of lower-case letters and dashes.
    """
    if not _ROLE.fullmatch(role):
        raise ValueError(f"role {role!r}: use at most 20 lower-case letters and dashes")
    parts = (host, local, endpoint)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{reply_host}:{reply_port}:clio-{role}-{digest}".encode()


def host_mark() -> str:
    """What tells this host or container from others: its name, and its machine id where it has one."""
    return f"{socket.gethostname()} {_machine_id()}"


def _machine_id() -> str:
    for path in _MACHINE_ID:
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if text:
            return text
    return ""
