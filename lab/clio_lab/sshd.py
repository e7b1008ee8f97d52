"""An sshd of our own: own configuration, host key and port, for the user that runs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clio_lab.child import ChildProcess

if TYPE_CHECKING:
    from clio_lab.demo.state import State

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_RULES = (
    "PidFile none",
    "UsePAM no",
    "StrictModes no",
    "PermitRootLogin prohibit-password",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "AllowTcpForwarding no",
)


def find_command(name: str) -> str | None:
    """Path of a command, also of one in sbin (an ordinary user's PATH lacks it); None when there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair, unless it is there; the public half is beside it as `NAME.pub`. Returns `path`."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "clio-exporter", "-a", "1"]
        subprocess.run([*command, "-f", str(path)], stdin=subprocess.DEVNULL, timeout=60, check=True)
    return path


class Sshd(ChildProcess):
    """An sshd on 127.0.0.1 that lets in, with one of `keys`, the user who runs it.

    `options` are lines of its configuration, before ours: sshd goes by the first of a kind.
    `wait_ready(sshd.missing, ...)` waits until it answers. Raises FileNotFoundError without an sshd.
    """

    def __init__(
        self,
        directory: Path,
        keys: Sequence[Path],
        port: int,
        *,
        options: Sequence[str] = (),
        state: State | None = None,
    ) -> None:
        program = find_command("sshd")
        if program is None:
            raise FileNotFoundError("no sshd here: install the package openssh-server")
        # sshd checks who may write the files: they must not be in a directory open to others.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = port
        self.host_key = make_key(directory / "host_key")
        authorized = directory / "authorized_keys"
        public = (key.with_name(f"{key.name}.pub").read_text(encoding="utf-8") for key in keys)
        authorized.write_text("".join(public), encoding="utf-8")
        authorized.chmod(0o600)
        if os.getuid() == 0:
            # sshd refuses to start as root without its privilege separation directory.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = directory / "sshd_config"
        lines = [
            f"ListenAddress 127.0.0.1:{port}",
            f'HostKey "{self.host_key}"',
            f'AuthorizedKeysFile "{authorized}"',
            *options,
            *_RULES,
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        super().__init__(
            "sshd",
            [program, "-D", "-e", "-f", str(config)],
            log_path=directory / "sshd.log",
            append=True,
            state=state,
        )

    def missing(self) -> str | None:
        """What it lacks to be ready, None when it greets."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(5)
                return None if connection.recv(4) == b"SSH-" else f"no greeting on port {self.port}"
        except OSError as error:
            return f"port {self.port}: {error}"
