"""A real sshd of our own: own configuration, host keys and port, for the user that runs the tests."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.system import find_command


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-a", "1", "-f", str(path)]
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=True)
    return path


class Sshd:
    """One sshd. `environment` is what every session gets; use it as a context manager."""

    def __init__(
        self,
        directory: Path,
        keys: list[Path],
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        host_key: Path | None = None,
    ) -> None:
        # sshd checks who may write the files: they must not be in a directory open to others.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.address = address
        self.port = free_port(address) if port is None else port
        self.user = getpass.getuser()
        self.log = directory / "sshd.log"
        self.host_key = host_key if host_key is not None else make_key(directory / "host_key")
        authorized = directory / "authorized_keys"
        authorized.write_text("".join(key.with_name(key.name + ".pub").read_text() for key in keys))
        authorized.chmod(0o600)
        set_env = [f'"{name}={value}"' for name, value in (environment or {}).items()]
        self.config = directory / "sshd_config"
        self.config.write_text(
            "\n".join(
                [
                    f"ListenAddress {address}:{self.port}",
                    f"HostKey {self.host_key}",
                    f"AuthorizedKeysFile {authorized}",
                    "PidFile none",
                    "UsePAM no",
                    "StrictModes no",
                    "PermitRootLogin prohibit-password",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "AllowTcpForwarding yes",
                    "MaxStartups 100",
                    "PermitUserRC no",
                    *([f"SetEnv {' '.join(set_env)}"] if set_env else []),
                    *options,
                    "",
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Sshd:
        binary = find_command("sshd")
        assert binary is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's privilege separation directory
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-D", "-e", "-f", str(self.config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection((self.address, self.port), 1) as greeting:
                    greeting.settimeout(5)
                    if greeting.recv(4) == b"SSH-":
                        return self
            except OSError:
                pass
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)

    def sessions(self) -> list[psutil.Process]:
        """Processes below sshd: connections and what runs in them (not what was detached)."""
        return psutil.Process(self.pid).children(recursive=True)

    def await_no_sessions(self, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while self.sessions():
            assert time.monotonic() < deadline, [p.cmdline() for p in self.sessions()]
            time.sleep(0.02)
