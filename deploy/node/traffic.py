#!/usr/bin/env python3
"""Load for the interactive cluster: writes and reads blobs on every node in turn, at little CPU.

The wheel's own `clio_cte_bench` is the client, one process a node over TCP. Left alone it runs flat out,
so it is held (SIGSTOP) and let run for a short burst, node after node. Blobs are overwritten in place, so
storage does not fill up. A node that is down is left out and tried again. A runtime remembers every client
process it ever had, so a client lives as long as its node.

Environment: CLIO_HOSTFILE (/etc/clio/hostfile), CLIO_BURST_SECONDS (0.1), CLIO_INTERVAL_SECONDS (1).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

CLIENT_PORT_OFFSET = 3
BASE_PORT = 9413
READY_LINE = b"CTE Core Benchmark"
READY_SECONDS = 30.0
RETRY_SECONDS = 15.0
LISTEN_SECONDS = 2.0
BLOBS = 400
BLOB_SIZE = "64k"


def say(text: str) -> None:
    """One line on standard output."""
    print(f"clio-traffic: {text}", flush=True)


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), 1.0):
            return True
    except OSError:
        return False


class Client:
    """One benchmark process for one node."""

    def __init__(self, host: str, port: int, directory: Path) -> None:
        self.host = host
        self.port = port
        self.log = directory / f"{host}-{port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.retry_at = 0.0

    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def connect(self, stop: threading.Event) -> None:
        """Start the process and hold it once it has connected; ends it when that takes too long."""
        now = time.monotonic()
        if now < self.retry_at:
            return
        self.retry_at = now + LISTEN_SECONDS
        if not listens(self.host, self.port + CLIENT_PORT_OFFSET):
            return
        # A client that failed is remembered by the runtime: not too many of them.
        self.retry_at = now + RETRY_SECONDS
        command = ["clio_cte_bench", "--op", "PutGet", "--threads", "1", "--depth", "1"]
        command += ["--io-size", BLOB_SIZE, "--io-count", "100000000"]
        command += ["--max-total-blobs", str(BLOBS), "--query-type", "local"]
        environment = {
            **os.environ,
            "CLIO_IPC_MODE": "TCP",
            "CLIO_SERVER_ADDR": self.host,
            "CLIO_PORT": str(self.port),
            "CLIO_WAIT_SERVER": "10",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        while not stop.wait(0.1):
            if not self.running() or time.monotonic() - now > READY_SECONDS:
                tail = self.log.read_bytes()[-300:].decode(errors="replace")
                say(f"{self.host}: no traffic, tried again in {RETRY_SECONDS:.0f} s: {tail!r}")
                self.close()
                return
            if READY_LINE in self.log.read_bytes():
                self.signal(signal.SIGSTOP)
                say(f"{self.host}: connected")
                return

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and what it has started."""
        if self.process is not None:
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            if self.process.poll() is None:
                self.signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None


def main() -> int:
    """Run until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    burst = float(os.environ.get("CLIO_BURST_SECONDS") or 0.1)
    interval = max(burst, float(os.environ.get("CLIO_INTERVAL_SECONDS") or 1))
    hostfile = Path(os.environ.get("CLIO_HOSTFILE") or "/etc/clio/hostfile")
    directory = Path("/tmp/clio-traffic")  # noqa: S108 - a container's own
    directory.mkdir(exist_ok=True)
    clients = []
    for line in hostfile.read_text(encoding="utf-8").split():
        host, _, port = line.partition(":")
        clients.append(Client(host, int(port or BASE_PORT), directory))
    say(f"{BLOB_SIZE} blobs on {len(clients)} nodes in turn, {burst} s of every {interval} s")
    try:
        while not stop.is_set():
            began = time.monotonic()
            for client in clients:
                if stop.is_set():
                    break
                # A client that lost its node retries for ever: it is of no more use.
                if client.running() and not listens(client.host, client.port + CLIENT_PORT_OFFSET):
                    say(f"{client.host}: gone")
                    client.close()
                if not client.running():
                    client.close()
                    client.connect(stop)
                    continue
                client.signal(signal.SIGCONT)
                stop.wait(burst)
                if client.running():
                    client.signal(signal.SIGSTOP)
                stop.wait(interval - burst)
            if time.monotonic() - began < interval:
                stop.wait(interval)
    finally:
        for client in clients:
            client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
