"""What a Prometheus server, or what stands at its address, tells of the alerts that fire."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from clio_control_api.operations import alerts
from clio_control_api.operations.alerts import AlertsError, firing_alerts
from clio_control_api.operations.gates import Alert
from tests.ports import closed_port
from tests.prometheus import Prometheus
from tests.system import needs_system
from tests.unit.web.support import Authority, write

EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


class Server:
    """Answers every GET as it is told to."""

    def __init__(self) -> None:
        self.status, self.body, self.location = 200, b"", ""
        self.paths: list[str] = []
        self.stop = threading.Event()
        self.silent = False
        self.raw = b""
        self.drips = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                if outer.silent:
                    outer.stop.wait(30)
                    return
                if outer.raw or outer.drips:
                    self.wfile.write(outer.raw)
                    with contextlib.suppress(OSError):  # the client is gone
                        while outer.drips and not outer.stop.wait(0.02):
                            self.wfile.write(outer.drips)
                    return
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join(20)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@needs_system("prometheus")
def test_a_real_server_tells_which_alerts_fire(tmp_path: Path) -> None:
    rules = [
        {"alert": "ClioNodeDown", "expr": "vector(1)", "labels": {"cluster": "lab", "node_id": "3"}},
        {"alert": "ClioNodeHung", "expr": "vector(1)", "for": "1h", "labels": {"cluster": "lab"}},  # pending
        {"alert": "ClioControlApiDown", "expr": "vector(1)", "labels": {"scope": "control"}},
        {"alert": "ClioExporterDown", "expr": "vector(1)"},
        {"alert": "DiskFull", "expr": "vector(1)"},  # somebody else's
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    with Prometheus(tmp_path, {"rule_files": [str(path)]}) as prometheus:
        prometheus.wait_for('ALERTS{alertstate="firing"}', lambda found: len(found) == 4)
        found = sorted(firing_alerts(prometheus.url + "/", 30), key=lambda alert: alert.name)
    assert found == [
        Alert("ClioExporterDown", "ClioExporterDown()", "", None),
        Alert("ClioNodeDown", "ClioNodeDown(cluster=lab, node_id=3)", "lab", 3),
    ]


def test_no_alert_is_an_answer(server: Server) -> None:
    server.body = json.dumps(EMPTY).encode()
    assert firing_alerts(server.url, 20) == ()
    assert server.paths == ["/api/v1/query?query=ALERTS%7Balertstate%3D%22firing%22%7D"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"\xff\xfe", b"null", b"[]", b"3", b'"x"', b"{}", b"[" * 100_000,
        b'{"status": "error"}',
        b'{"status": "success"}', b'{"status": "success", "data": []}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": []}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": 3}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [3]}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": "ab"}]}}',
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error_never_no_alert(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(AlertsError, match="Prometheus"):
        firing_alerts(server.url, 20)


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}", b"HTTP/1.1 x\r\n\r\n"]
)
def test_what_is_no_whole_http_is_an_error(server: Server, raw: bytes) -> None:
    server.raw = raw
    with pytest.raises(AlertsError, match="Prometheus"):
        firing_alerts(server.url, 20)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_a_refusal_is_an_error(server: Server, status: int) -> None:
    server.status, server.body = status, json.dumps(EMPTY).encode()
    with pytest.raises(AlertsError, match=str(status)):
        firing_alerts(server.url, 20)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.status, server.location = 302, f"{server.url}/elsewhere"
    with pytest.raises(AlertsError, match="302"):
        firing_alerts(server.url, 20)
    assert len(server.paths) == 1


def test_a_huge_answer_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.body = json.dumps(EMPTY).encode()
    monkeypatch.setattr(alerts, "_MAX_ANSWER", len(server.body) - 1)
    with pytest.raises(AlertsError, match="longer than"):
        firing_alerts(server.url, 20)


def test_a_server_that_is_silent_or_gone_is_an_error_in_time(server: Server) -> None:
    server.silent = True
    began = time.monotonic()
    with pytest.raises(AlertsError, match="timed out"):
        firing_alerts(server.url, 0.3)
    assert time.monotonic() - began < 15
    with closed_port() as port, pytest.raises(AlertsError, match="refused"):
        firing_alerts(f"http://127.0.0.1:{port}", 20)


@pytest.mark.parametrize(
    "begins",
    [b"", b"HTTP/1.1 200 OK\r\nX-Drips: ", b"HTTP/1.1 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"],
    ids=["status", "head", "body", "body of a length"],
)  # fmt: skip
def test_a_server_that_sends_a_byte_now_and_then_is_an_error_in_time(server: Server, begins: bytes) -> None:
    """Each byte comes in time; without a bound for all of them the gate would wait for hours."""
    server.raw, server.drips = begins, b"x"
    began = time.monotonic()
    with pytest.raises(AlertsError, match="timed out"):
        firing_alerts(server.url, 0.5)
    assert time.monotonic() - began < 15


def test_a_server_that_sends_a_byte_now_and_then_over_tls(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.raw, server.drips = b"HTTP/1.1 200 OK\r\n\r\n", b"x"
    authority = Authority()
    certificate, key = authority.issue(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(write(tmp_path / "ca.pem", authority.pem)))
    began = time.monotonic()
    with pytest.raises(AlertsError, match="timed out"):
        firing_alerts(server.url.replace("http:", "https:"), 3.0)
    assert len(server.paths) == 1
    assert time.monotonic() - began < 30
