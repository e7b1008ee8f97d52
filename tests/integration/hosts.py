"""Hosts for a test on one machine: each with a hostname, an address and shared memory of its own.

    with Hosts(directory, 3) as hosts:
        subprocess.run([*hosts.nodes[0].enter, "hostname", "-I"])

They are namespaces of the kernel (network, UTS, mount) that a sleeping process each holds, joined by a bridge
in the network of the first one: nothing appears in the machine's own, and all of it is gone with the last
process in it. Files, processes and the clock are shared. That takes root.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

from clio_lab.child import ChildProcess
from clio_web import processes
from tests.exporter_process import eventually
from tests.slurm import Host

COMMANDS: Final = ("ip", "nsenter", "unshare")

_NETWORK: Final = "10.77.0"
"""It may be the machine's too: a network namespace has addresses of its own."""
_HEAD: Final = "head"
_READY: Final = b"host is ready"
_SECONDS: Final = 30.0
_HOLD: Final = """
set -e
hostname "$1"
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind "$2" /etc/hosts
ip link set lo up
echo "$3"
exec sleep 3600
"""


class NoHostsError(Exception):
    """Hosts cannot be made here; the message says why."""


class Hosts:
    """`head`, and `count` nodes named n1, n2 and so on. All know each other's names."""

    def __init__(self, directory: Path, count: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._holders: list[ChildProcess] = []
        self._networks: dict[str, str] = {}  # the host's name by its network
        names = [_HEAD, *(f"n{number}" for number in range(1, count + 1))]
        addresses = [f"{_NETWORK}.{number}" for number in range(1, len(names) + 1)]
        self._names = directory / "hosts"
        lines = [f"{address} {name}\n" for name, address in zip(names, addresses, strict=True)]
        self._names.write_text("".join(["127.0.0.1 localhost\n", *lines]), encoding="utf-8")
        try:
            made = [self._make(name, address) for name, address in zip(names, addresses, strict=True)]
            self.head, *self.nodes = made
            self._join()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def inside(self) -> list[tuple[str, psutil.Process]]:
        """The processes on these hosts and where, whoever started them, without those that hold the hosts."""
        holders = {holder.pid for holder in self._holders}
        found = []
        for pid in psutil.pids():
            host = self._networks.get(_network(pid) or "")
            if host is not None and pid not in holders:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append((host, psutil.Process(pid)))
        return found

    def close(self) -> None:
        """End all that runs on them, and with that the hosts."""
        for _, process in self.inside():
            processes.kill(process)
        for holder in self._holders:
            holder.kill()

    def _make(self, name: str, address: str) -> Host:
        holder = ChildProcess(
            name,
            [
                "unshare", "--net", "--uts", "--mount", "--", "sh", "-c", _HOLD,
                "sh", name, str(self._names), _READY.decode(),
            ],
            log_path=self._directory / f"{name}.log",
            environment=dict(os.environ),
        )  # fmt: skip
        self._holders.append(holder)

        def ready() -> bool:
            if not holder.is_running:
                raise NoHostsError(holder.log_tail())
            return _READY in holder.log()

        eventually(f"the host {name}", ready, _SECONDS)
        network = _network(holder.pid)
        assert network is not None
        assert network != _network(os.getpid())
        self._networks[network] = name
        return Host(name, address, ("nsenter", f"--target={holder.pid}", "--net", "--uts", "--mount", "--"))

    def _join(self) -> None:
        """A bridge on the first host, with a wire from each other one."""
        bridge = "bridge"
        _run(self.head, "ip", "link", "add", bridge, "type", "bridge")
        _run(self.head, "ip", "address", "add", f"{self.head.address}/24", "dev", bridge)
        _run(self.head, "ip", "link", "set", bridge, "up")
        for host, holder in zip(self.nodes, self._holders[1:], strict=True):
            wire = f"to-{host.name}"
            # As a single request, so that the other end never shows in a third network.
            _run(
                self.head, "ip", "link", "add", wire, "type", "veth",
                "peer", "name", "eth0", "netns", str(holder.pid),
            )  # fmt: skip
            _run(self.head, "ip", "link", "set", wire, "master", bridge, "up")
            _run(host, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            _run(host, "ip", "link", "set", "eth0", "up")


def _run(host: Host, *command: str) -> None:
    done = subprocess.run(
        [*host.enter, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise NoHostsError(f"{' '.join(command)}: {done.stderr.strip()}")


def _network(pid: int) -> str | None:
    """Which network namespace a process is in; None when it has ended."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return None
