from __future__ import annotations

import base64
import datetime as dt
import http.client
import socket
import ssl
from pathlib import Path

import bcrypt
import pytest

from clio_web.options import ServerLimits
from clio_web.server import WebServer
from clio_web.tls import first_end
from tests.unit.web.conftest import Start
from tests.unit.web.support import TEXT, Authority, client_context, read_to_end, write

PATIENCE = 60.0
"""Seconds that nothing here takes, except where it never comes."""

TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
VERIFY = TLS + "  client_ca_file: ca.pem\n  client_auth_type: "


@pytest.fixture
def web(tmp_path: Path, authority: Authority) -> Path:
    """A web configuration file beside a server certificate; the test writes its text."""
    authority.issue(tmp_path, "server")
    write(tmp_path / "ca.pem", authority.pem)
    return write(tmp_path / "web.yml", TLS)


def get(server: WebServer, context: ssl.SSLContext, **headers: str) -> tuple[int, bytes]:
    port = server.addresses[0][1]
    connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
    there = ("127.0.0.1", port)
    connection._create_connection = lambda *_args: socket.create_connection(there, timeout=PATIENCE)  # type: ignore[attr-defined]
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_tls(start: Start, web: Path, authority: Authority) -> None:
    server = start(config_file=web)
    assert server.tls_enabled
    assert get(server, client_context(authority)) == (200, TEXT)
    with pytest.raises(ssl.SSLCertVerificationError):
        get(server, ssl.create_default_context())


def test_plain_http_on_the_tls_port_is_told_so(start: Start, web: Path) -> None:
    server = start(config_file=web)
    with socket.create_connection(server.addresses[0], timeout=PATIENCE) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"https" in read_to_end(sock)


def silent(server: WebServer) -> list[socket.socket]:
    """Ten connections, more than there are threads, that leave their handshake at its begin."""
    held = [socket.create_connection(server.addresses[0], timeout=PATIENCE) for _ in range(10)]
    for sock in held[:3]:
        sock.sendall(b"\x16\x03\x01")  # the begin of a ClientHello, and no more
    return held


def test_silent_handshakes_do_not_block_others(start: Start, web: Path, authority: Authority) -> None:
    never = 100 * PATIENCE
    limits = ServerLimits(
        header_timeout=never, first_byte_timeout=never, io_timeout=never, stop_timeout=2.0, spare_threads=4
    )
    server = start(limits=limits, config_file=web, max_requests=2)
    held = silent(server)
    # Nobody's time comes: who is answered did not wait for one of them to be cut.
    for _ in range(3):
        assert get(server, client_context(authority))[0] == 200
    for sock in held:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.close()


def test_silent_handshakes_are_cut(start: Start, web: Path) -> None:
    limits = ServerLimits(header_timeout=0.5, first_byte_timeout=0.2, stop_timeout=2.0, spare_threads=4)
    for sock in silent(start(limits=limits, config_file=web, max_requests=2)):
        assert b"HTTP" not in read_to_end(sock)
        sock.close()


def test_client_certificate_required(start: Start, web: Path, tmp_path: Path, authority: Authority) -> None:
    write(web, VERIFY + "RequireAndVerifyClientCert\n")
    server = start(config_file=web)
    known = authority.issue(tmp_path, "prometheus")
    stranger = Authority("other authority").issue(tmp_path, "stranger")
    assert get(server, client_context(authority, known)) == (200, TEXT)
    for context in (client_context(authority), client_context(authority, stranger)):
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            get(server, context)


def test_client_certificate_if_given(start: Start, web: Path, tmp_path: Path, authority: Authority) -> None:
    write(web, VERIFY + "VerifyClientCertIfGiven\n")
    server = start(config_file=web)
    assert get(server, client_context(authority))[0] == 200
    assert get(server, client_context(authority, authority.issue(tmp_path, "prometheus")))[0] == 200
    stranger = Authority("other authority").issue(tmp_path, "stranger")
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        get(server, client_context(authority, stranger))


def test_client_certificate_not_asked_for(
    start: Start, web: Path, tmp_path: Path, authority: Authority
) -> None:
    write(web, TLS + "  client_auth_type: NoClientCert\n")
    stranger = Authority("other authority").issue(tmp_path, "stranger")
    assert get(start(config_file=web), client_context(authority, stranger))[0] == 200


@pytest.mark.parametrize(("allowed", "works"), [("prom.example", True), ("127.0.0.1", True), ("prom", False)])
def test_client_names(
    start: Start, web: Path, tmp_path: Path, authority: Authority, allowed: str, works: bool
) -> None:
    write(web, VERIFY + f"RequireAndVerifyClientCert\n  client_allowed_sans: [other.example, {allowed}]\n")
    server = start(config_file=web)
    context = client_context(authority, authority.issue(tmp_path, "client", "prom.example"))
    if works:
        assert get(server, context)[0] == 200
    else:
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            get(server, context)


@pytest.mark.parametrize(
    ("limit", "version"), [("max_version: TLS12", "TLSv1.2"), ("min_version: TLS13", "TLSv1.3")]
)
def test_versions(start: Start, web: Path, authority: Authority, limit: str, version: str) -> None:
    write(web, TLS + f"  {limit}\n")
    server = start(config_file=web)
    with (
        socket.create_connection(server.addresses[0], timeout=PATIENCE) as raw,
        client_context(authority).wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        assert sock.version() == version


def test_cipher(start: Start, web: Path, authority: Authority) -> None:
    write(web, TLS + "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n")
    server = start(config_file=web)
    with (
        socket.create_connection(server.addresses[0], timeout=PATIENCE) as raw,
        client_context(authority).wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        cipher = sock.cipher()
        assert cipher is not None
        assert cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_certificate_rotation(start: Start, web: Path, tmp_path: Path, authority: Authority) -> None:
    server = start(config_file=web)
    assert get(server, client_context(authority))[0] == 200
    assert server.certificate_not_after == end_of(tmp_path / "server.pem")
    successor = Authority("next authority")
    draft = tmp_path / "draft"
    draft.mkdir()
    certificate, key = successor.issue(draft, "server", lasts=dt.timedelta(days=400))
    write(tmp_path / "server.pem", certificate.read_bytes())
    assert get(server, client_context(authority))[0] == 200  # the pair does not fit yet: the old one stays
    write(tmp_path / "server.key", key.read_bytes(), 0o600)
    assert get(server, client_context(successor))[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        get(server, client_context(authority))
    assert server.certificate_not_after == end_of(certificate)


def end_of(path: Path) -> float:
    """When the certificate in a file ends, by OpenSSL's own reading of it."""
    return ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(str(path))["notAfter"])  # type: ignore[attr-defined]


def test_the_end_of_a_certificate_is_the_first_of_those_it_is_sent_with(
    start: Start, tmp_path: Path, authority: Authority
) -> None:
    long, _ = authority.issue(tmp_path, "long", lasts=dt.timedelta(days=90))
    short, _ = authority.issue(tmp_path, "short", lasts=dt.timedelta(days=2))
    assert first_end(long.read_bytes() + short.read_bytes()) == end_of(short) < end_of(long)
    assert first_end(b"no certificate") is None
    assert start().certificate_not_after is None


def test_basic_auth_and_headers(start: Start, web: Path, authority: Authority) -> None:
    hashed = bcrypt.hashpw("pass:wörd".encode(), bcrypt.gensalt(4)).decode()
    headers = (
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n"
    )
    write(web, f"{headers}basic_auth_users:\n  alice: {hashed}\n")
    server = start(config_file=web)
    host, port = server.addresses[0]

    def ask(path: str, authorization: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        connection.request(method, path, headers={"Authorization": authorization} if authorization else {})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    right = basic("alice", "pass:wörd")
    for path in ("/", "/metrics", "/sd", "/-/healthy", "/-/ready", "/nope"):
        refused = ask(path)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert refused.headers["X-Frame-Options"] == "deny"
        assert ask(path, right).status == (404 if path == "/nope" else 200)
    assert ask("/metrics", method="HEAD").status == 401
    answer = ask("/metrics", right)
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    wrong = [
        basic("alice", "x"),
        basic("bob", "pass:wörd"),
        "Basic !!!",
        "Basic",
        "Bearer x",
        "Basic " + "A" * 9,
    ]
    assert [ask("/metrics", value).status for value in wrong] == [401] * len(wrong)
    changed = bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode()
    write(web, f"basic_auth_users:\n  alice: {changed}\n")
    assert ask("/metrics", right).status == 401  # the remembered password ends with its hash
    assert ask("/metrics", basic("alice", "new")).status == 200
