"""The control API as a part of `clio-exporter demo`, found by an entry point (clio_exporter.demo_components).

Where sshd is installed, one of the demo's own is started on a free loopback port, for the user who runs the
demo and with a key made for it, so that shutdown and restart work as on a real cluster.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from exporter.demo.cluster import LocalCluster
from exporter.demo.errors import DemoError, InterruptedStartError
from exporter.demo.ports import is_free
from exporter.demo.stack import clean_environment, tail
from exporter.demo.state import ProcessRecord, State, kill_record

PORT: Final = 5000
REPLY_PORT: Final = 9788
_TIMEOUT: Final = 30.0
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"


class ControlApiComponent:
    """The control API, with an sshd for its actions, as processes of their own."""

    name = "control API"

    def __init__(self, cluster: LocalCluster, state: State, interrupt: threading.Event) -> None:
        self._cluster = cluster
        self._state = state
        self._interrupt = interrupt
        self._directory = cluster.root / "control-api"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = PORT
        self.log_path = self._directory / "control-api.log"

    @property
    def where(self) -> str:
        """The topology."""
        return f"control API http://127.0.0.1:{self.port}/api/topology"

    def start(self, progress: Callable[[str], None]) -> None:
        """Start both and wait until the API answers."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port = next((p for p in range(PORT, PORT + 10) if is_free(p, "127.0.0.1")), 0)
        if not self.port:
            raise DemoError(f"ports {PORT} to {PORT + 9} are all in use: stop what uses one of them")
        progress(f"starting the control API on 127.0.0.1:{self.port}")
        ssh_port = self._start_sshd(progress)
        settings = self._directory / "control-api.yaml"
        settings.write_text(yaml.safe_dump(self._settings(ssh_port), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "control_api", f"--config={settings}", f"--port={self.port}"]
        process = self._spawn(command, self.log_path, self.name)
        self._await(process, self.log_path, self._answers)

    def stop(self) -> None:
        """End both, and the runtimes that were started over SSH."""
        while self._processes:
            process = self._processes.pop()
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            self._state.remove_process(process.pid)
        for node in self._cluster.nodes:
            for pid in started_elsewhere(node.config_path, node.pid):
                with contextlib.suppress(ProcessLookupError):
                    kill_record(ProcessRecord.of(pid, f"runtime node {node.index}"), 5.0)

    def health(self) -> str | None:
        """Say when one of them ended."""
        for process in self._processes:
            if process.poll() is not None:
                return f"a process ended with exit code {process.returncode}, see {self._directory}"
        return None

    # --- parts ------------------------------------------------------------------------------------

    def _settings(self, ssh_port: int | None) -> dict[str, Any]:
        cluster = self._cluster
        entry = {"name": "demo", "runtime_config": str(cluster.root / "n{node_id}" / "clio.yaml")}
        if cluster.hostfile is not None:
            entry["hostfile"] = str(cluster.hostfile)
        exporter = self._directory / "exporter.yaml"
        exporter.write_text(yaml.safe_dump({"clusters": [entry]}, sort_keys=False), encoding="utf-8")
        ssh: dict[str, Any] = {
            "host": "127.0.0.1",
            "program": str(cluster.install.program),
            "agent": False,
            "key_file": str(self._directory / "id"),
        }
        if ssh_port is not None:
            ssh["port"] = ssh_port
        nodes = {
            str(node.index): {"environment": dict(node.environment), "directory": str(node.directory)}
            for node in cluster.nodes
        }
        return {
            "exporter_config": str(exporter),
            "reply_port": REPLY_PORT,
            "state_dir": str(self._directory),
            "ssh": ssh,
            "clusters": {"demo": {"nodes": nodes}},
        }

    def _start_sshd(self, progress: Callable[[str], None]) -> int | None:
        path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
        sshd, keygen = shutil.which("sshd", path=path), shutil.which("ssh-keygen", path=path)
        if sshd is None or keygen is None:
            progress("no sshd here (package openssh-server): the control API can read but not act")
            return None
        port = next((p for p in range(5022, 5122) if is_free(p, "127.0.0.1")), None)
        if port is None:
            raise DemoError("ports 5022 to 5121 are all in use: stop what uses one of them")
        directory = self._directory
        for name in ("id", "host_key"):
            if not (directory / name).exists():
                subprocess.run(
                    [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(directory / name)],
                    stdin=subprocess.DEVNULL, timeout=60, check=True,
                )  # fmt: skip
        if os.getuid() == 0:
            # sshd refuses to start as root without its privilege separation directory.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = directory / "sshd_config"
        lines = [
            f"ListenAddress 127.0.0.1:{port}",
            f"HostKey {directory / 'host_key'}",
            f"AuthorizedKeysFile {directory / 'id.pub'}",
            f"AllowUsers {getpass.getuser()}",
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "AllowTcpForwarding no",
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        log = directory / "sshd.log"
        process = self._spawn([sshd, "-D", "-e", "-f", str(config)], log, "sshd")
        self._await(process, log, lambda: not is_free(port, "127.0.0.1"))
        return port

    def _spawn(self, command: list[str], log_path: Path, role: str) -> subprocess.Popen[bytes]:
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**clean_environment(os.environ), **self._state.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        self._state.add_process(process.pid, role)
        return process

    def _await(self, process: subprocess.Popen[bytes], log_path: Path, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT
        while not condition():
            if process.poll() is not None or time.monotonic() >= deadline:
                ended = "ended" if process.poll() is not None else f"is not ready after {_TIMEOUT:.0f} s"
                raise DemoError(f"the {self.name} {ended}; see {log_path}, last lines:\n{tail(log_path)}")
            if self._interrupt.is_set():
                raise InterruptedStartError(f"stopped while the {self.name} was starting")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/-/healthy")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def started_elsewhere(config: Path, own: int | None) -> list[int]:
    """Runtimes with this configuration in their environment, except the cluster's own child."""
    wanted = f"CLIO_SERVER_CONF={config}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        if (
            wanted in environment
            and (b"start" in arguments or b"restart" in arguments)
            and int(entry.name) != own
        ):
            found.append(int(entry.name))
    return found
