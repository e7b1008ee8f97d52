"""What is run on a node: a script for /bin/sh, made from settings only, never from a request."""

from __future__ import annotations

import math
import platform
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clio_client import Generation
from clio_client.config.hostfile import check_host
from clio_client.membership import Member
from clio_control_api.settings import SshSettings, fill_placeholders

SCRIPT: Final = (Path(__file__).parent / "node_action.sh").read_text(encoding="utf-8")

STOP_LIMIT_S: Final = 40
"""How long a restart lets the runtime's own `stop` take: 2.3.2 takes 30 s to end one that hangs, and then
removes what it left in shared memory. Cut short, the next stop of that node took 30 s."""

MAX_PATIENCE_S: Final = 20
"""How long a node is asked to wait, in one go, for the end of a restart."""

_LEFTOVERS_S: Final = 10
_ID = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
_WORD = re.compile(r"[^A-Za-z0-9_.@-]", re.ASCII)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Errand:
    """Which action a script is for, and by whom it was asked for, as the node's lock shall tell others.

    Attributes:
        id: hexadecimal.
        actor: who asked.
        patience: seconds that a question for the outcome waits for the end.
    """

    id: str = "0"
    actor: str = "unknown"
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything about acting on one node that does not come from a request.

    Attributes:
        target: `host` or `host:port` that SSH connects to, for messages.
        generation: of the runtime that answers now; None when none does.
    """

    member: Member
    ssh: SshSettings
    generation: Generation | None = None

    @property
    def host(self) -> str:
        """The host SSH connects to, before ~/.ssh/config has its say."""
        return self.ssh.host or self.member.hostname

    @property
    def target(self) -> str:
        """The host, with the port where one is configured."""
        return self.host if self.ssh.port is None else f"{self.host}:{self.ssh.port}"

    def command(self, action: str) -> str:
        """The command line SSH executes; its words serve forced commands and process lists."""
        return f"exec /bin/sh -s clio-control-api {action} {self.member.node_id}"

    @property
    def restart_limit(self) -> float:
        """Seconds after which the sequence of a restart has ended, whatever happens on the node."""
        return STOP_LIMIT_S + _LEFTOVERS_S + self.ssh.start_timeout

    def script(self, action: str, errand: Errand = Errand()) -> str:
        """What the shell reads.

        Raises:
            ConfigError: the node's hostname is none (it may come from a runtime).
        """
        check_host(self.member.hostname, f"node {self.member.node_id}", None)
        if not _ID.fullmatch(errand.id):
            raise ValueError(f"not an action's id: {errand.id!r}")
        by = f"{_word(errand.actor)} {_word(platform.node())}"
        lines = [
            *(f"export {name}={self._quoted(value)}" for name, value in self.ssh.environment.items()),
            f"action={shlex.quote(action)}",
            f"id={errand.id}",
            f"by={shlex.quote(by)}",
            f"program={self._quoted(self.ssh.program or '')}",
            f"stop_limit={STOP_LIMIT_S}",
            f"start_limit={math.ceil(self.ssh.start_timeout)}",
            f"patience={math.floor(min(errand.patience, MAX_PATIENCE_S))}",
            f"client_port={self.member.address.client_port}",
            f"locks={self._quoted(self.ssh.lock_directory or '')}",
            f"log={self._quoted(self.ssh.log_file or '')}",
            f"log_name={shlex.quote(f'restart-node{self.member.node_id}.log')}",
        ]
        words = self.ssh.commands.get(action)
        lines.append(f"custom={0 if words is None else 1}")
        if words is not None:
            quoted = " ".join(self._quoted(word) for word in words)
            lines.append(f'run_custom() {{ "$1" {quoted}; }}')
        if self.ssh.directory is not None:
            directory = self._quoted(self.ssh.directory)
            lines.append(f"cd -- {directory} || exit 1")
        return "\n".join(lines) + "\n" + SCRIPT

    def describe(self, action: str) -> str:
        """What will run, in words for the confirm page."""
        words = self.ssh.commands.get(action)
        if words is not None:
            return shlex.join(self._filled(word) for word in words)
        program = self.ssh.program or (
            "chimaera (or clio_run, whichever the node has)"
            if self.generation is Generation.A
            else "clio_run (or chimaera, before 1.9.7)"
            if self.generation is None
            else "clio_run"
        )
        program = self._filled(program) if self.ssh.program else program
        if action == "shutdown":
            return f"{program} stop"
        word = {None: "start (2.3 and newer) or restart", Generation.C: "start"}.get(
            self.generation, "restart"
        )
        return f"{program} stop, then {program} {word}"

    def _quoted(self, text: str) -> str:
        return shlex.quote(self._filled(text))

    def _filled(self, text: str) -> str:
        return fill_placeholders(text, self.member.node_id, self.member.hostname, self.member.address.port)


def printable(raw: bytes) -> str:
    """A command's output as text, without colours and control characters."""
    return _CONTROL.sub("", raw.decode("utf-8", "replace"))


def _word(text: str) -> str:
    """`text` as one word that the lock's note can hold."""
    return _WORD.sub("_", text)[:64] or "unknown"
