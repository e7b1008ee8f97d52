"""The command as a process, and bodies that come slowly."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clio_web.options import ServerLimits, WebOptions
from clio_web.server import WebServer
from tests.ports import free_port
from tests.unit.control_api.support import write_tokens


def run(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clio_control_api", "--port", "0", *arguments]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLIO_CONTROL_API_REPLY_PORT": "0"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


def test_serves_while_no_runtime_is_up_and_stops_on_a_signal(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(f"127.0.0.1:{free_port()}\n")
    process = run(tmp_path, "--hostfile", "hosts")
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening" in line)
        port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])  # type: ignore[index]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/api/topology")
        assert b'"alive":false' in connection.getresponse().read()
        connection.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--host", "0.0.0.0"], "clio-control-api token"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--hostfile", "missing"], "missing"),
        (["--port", "70000"], "port"),
        (["--tokens-file", "missing"], "tokens file"),
        (["--host", "192.0.2.55", "--tokens-file", "tokens"], "--host and --port"),
    ],
)
def test_what_keeps_it_from_starting(tmp_path: Path, arguments: list[str], text: str) -> None:
    write_tokens(tmp_path / "tokens")
    process = run(tmp_path, *arguments)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert text in error
    assert "Traceback" not in error


def test_a_slow_body_is_cut() -> None:
    bodies: list[bytes] = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", "0")])
        return []

    limits = ServerLimits(header_timeout=3.0, io_timeout=30.0)
    server = WebServer(app, WebOptions(listen_addresses=("127.0.0.1:0",)), limits=limits)
    server.start()
    try:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        with socket.create_connection(server.addresses[0], 25) as client:
            client.sendall(head + b"ab")
            client.sendall(b"cd")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert bodies == [b"abcd"]
        with socket.create_connection(server.addresses[0], 25) as client:
            client.sendall(head + b"a")
            started = time.monotonic()
            ended = b""
            with contextlib.suppress(ConnectionResetError):
                ended = client.recv(100)
            assert b"200" not in ended
            assert time.monotonic() - started < 15
        assert bodies == [b"abcd"]
    finally:
        server.stop()
