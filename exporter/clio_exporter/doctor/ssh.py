"""A look at the nodes over SSH, by this user's own `ssh`: log in, run `true`, try the way back to us.

Nothing is asked for and nothing is written, not even a host key. The way back is tried with bash's own TCP
connection, which is closed at once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clio_exporter.doctor.nodes import NodeLook

CONNECT_S: Final = 5
_WHOLE_S: Final = 30.0
_AT_ONCE: Final = 8
_NO_BASH: Final = (126, 127)


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to log in; None: as `~/.ssh/config` and ssh itself have it."""

    user: str | None = None
    port: int | None = None
    config: Path | None = None

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """The command line; `host` is a name or address, never an option."""
        line = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "UpdateHostKeys=no"]
        line += ["-o", "StrictHostKeyChecking=yes", "-T", "-n"]
        line += ["-F", str(self.config)] if self.config else []
        line += ["-l", self.user] if self.user else []
        line += ["-p", str(self.port)] if self.port else []
        return [*line, "--", host, *words]


@dataclass(frozen=True, slots=True)
class SshLook:
    """One node over SSH.

    Attributes:
        problem: why there was no log-in; "" where there was.
        target: address and port that the node should answer to; "" where that is not known.
        reaches: whether it reached them; None where that could not be tried.
    """

    node: NodeLook
    problem: str = ""
    target: str = ""
    reaches: bool | None = None


def look(nodes: Sequence[NodeLook], endpoints: Mapping[str, int], options: SshOptions) -> tuple[SshLook, ...]:
    """Every node, some at a time."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="clio-doctor-ssh") as pool:
        return tuple(pool.map(lambda node: _one(node, endpoints, options), nodes))


def _one(node: NodeLook, endpoints: Mapping[str, int], options: SshOptions) -> SshLook:
    host = node.member.address.host
    problem = _run(options.command(host, ["true"]))[1]
    if problem:
        return SshLook(node, problem)
    port = endpoints.get(node.dials or "")
    if port is None:
        return SshLook(node)
    # Address and port are ours: no text of anybody else's reaches the node's shell.
    tried = f"timeout {CONNECT_S} bash -c 'exec 3<>/dev/tcp/{node.dials}/{port}'"
    code, _ = _run(options.command(host, [tried]))
    return SshLook(node, "", f"{node.dials}:{port}", None if code in _NO_BASH else code == 0)


def _run(command: Sequence[str]) -> tuple[int, str]:
    """The exit status, and what was said where it is not 0."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WHOLE_S, check=False
        )
    except FileNotFoundError:
        return 255, "there is no ssh on this host"
    except subprocess.TimeoutExpired:
        return 255, f"no end within {_WHOLE_S:g} s"
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return ended.returncode, (
        said[-1] if said else f"exit status {ended.returncode}"
    ) if ended.returncode else ""
