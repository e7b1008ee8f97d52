from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clio_client.config.errors import ConfigError
from clio_exporter.http.app import create_app
from clio_web.body import BLOCK
from clio_web.errors import WebConfigError
from clio_web.options import ServerLimits, WebOptions
from clio_web.server import ListenError, WebServer, parse_listen_address
from tests.unit.web.conftest import Start
from tests.unit.web.support import TEXT, FixedExposition, Service, read_to_end

PATIENCE = 60.0
"""Seconds that nothing here takes, except where it never comes."""


def connect(server: WebServer, timeout: float = PATIENCE) -> socket.socket:
    return socket.create_connection(server.addresses[0][:2], timeout=timeout)


def ask(
    server: WebServer, path: str = "/metrics", method: str = "GET", source: str = "127.0.0.1", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    host, port = server.addresses[0]
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE, source_address=(source, 0))
    try:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def await_200(server: WebServer, path: str = "/metrics") -> None:
    """Wait for an answer; where deadlines are short, a busy machine may pass one of them."""
    deadline = time.monotonic() + PATIENCE
    found: object = None
    while time.monotonic() < deadline:
        try:
            found = ask(server, path)[0].status
        except (OSError, http.client.HTTPException) as error:
            found = error
        if found == 200:
            return
        assert found == 503 or isinstance(found, Exception)
    raise AssertionError(f"no answer within {PATIENCE} s: {found!r}")


def fast_limits(**changes: float) -> ServerLimits:
    defaults = {"header_timeout": 0.4, "write_timeout": 0.6, "io_timeout": 5.0, "first_byte_timeout": 0.3}
    return ServerLimits(**{**defaults, "stop_timeout": 2.0, "spare_threads": 2, **changes})  # type: ignore[arg-type]


def test_get_and_head_on_one_kept_connection(start: Start) -> None:
    server = start()
    host, port = server.addresses[0]
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    connection.connect()
    first_socket = connection.sock
    for method, body in (("GET", TEXT), ("HEAD", b""), ("GET", TEXT)):
        connection.request(method, "/-/healthy" if method == "HEAD" else "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read() == body
        assert connection.sock is first_socket
    connection.close()


def test_head_of_metrics_ends(start: Start) -> None:
    answer, body = ask(start(), method="HEAD")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_gzip_in_chunks(start: Start, service: Service) -> None:
    service.exposition = FixedExposition([os.urandom(1000).hex().encode() for _ in range(500)])
    answer, body = ask(start(), Accept_Encoding="gzip")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert gzip.decompress(body) == b"".join(service.exposition.chunks)


def test_late_failure_is_seen_as_a_broken_transfer(start: Start, service: Service) -> None:
    service.exposition = FixedExposition([b"x" * BLOCK] * 4, failure=RuntimeError("late"))
    with pytest.raises(http.client.IncompleteRead):
        ask(start())


def test_limit_of_concurrent_scrapes(start: Start, service: Service) -> None:
    service.gate = threading.Event()
    server = start(max_requests=3)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(ask, server) for _ in range(3)]
        for _ in running:
            assert service.entered.acquire(timeout=PATIENCE)
        answer, body = ask(server)
        assert answer.status == 503
        assert b"--web.max-requests" in body
        assert ask(server, "/-/healthy")[0].status == 200
        service.gate.set()
        assert [future.result(PATIENCE)[0].status for future in running] == [200] * 3
    assert ask(server)[0].status == 200


def test_silent_connections_take_no_thread(start: Start) -> None:
    server = start(limits=fast_limits(spare_threads=1), max_requests=1)
    silent = [connect(server) for _ in range(20)]
    await_200(server)
    for sock in silent:  # and they are closed
        assert read_to_end(sock) == b""
        sock.close()


def test_slow_request_head_is_cut(start: Start) -> None:
    server = start(limits=fast_limits())
    with connect(server) as sock:
        begun = time.monotonic()
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        cut = threading.Event()

        def drip() -> None:
            while not cut.wait(0.05):  # each byte is well within the timeout of a single read
                try:
                    sock.sendall(b"X")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answer = read_to_end(sock)
        cut.set()
        thread.join(5)
    assert time.monotonic() - begun < PATIENCE / 2
    assert b" 200 " not in answer
    await_200(server)


def stuck_reader(server: WebServer, service: Service) -> socket.socket:
    """A client that asks for more than socket buffers take, and reads nothing of it."""
    service.exposition = FixedExposition([b"y" * BLOCK] * 400)  # 25 MB
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE)
    sock.connect(server.addresses[0][:2])
    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert service.entered.acquire(timeout=PATIENCE)
    return sock


def test_stuck_readers_do_not_hold_threads(start: Start, service: Service) -> None:
    server = start(limits=fast_limits(write_timeout=2.0), max_requests=2)
    stuck = [stuck_reader(server, service) for _ in range(2)]
    service.exposition = FixedExposition()
    await_200(server)
    for sock in stuck:
        assert len(read_to_end(sock)) < 400 * BLOCK
        sock.close()


SLOW_READERS: dict[str, float] = {
    "spare_threads": 2, "write_timeout": 600.0, "io_timeout": 600.0, "header_timeout": 60.0,
    "first_byte_timeout": 60.0,
}  # fmt: skip
"""With 8 scrapes at once: 10 threads, of which an address may have 7."""


def test_slow_readers_of_one_address_take_not_all_places(start: Start, service: Service) -> None:
    server = start(limits=fast_limits(slow_after=600.0, **SLOW_READERS), max_requests=8)
    stuck = [stuck_reader(server, service) for _ in range(7)]
    more = [connect(server) for _ in range(20)]
    for sock in more:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    for path in ("/metrics", "/-/healthy"):
        assert ask(server, path, source="127.0.0.2")[0].status == 200
    for sock in (*stuck, *more):
        sock.close()


def test_slow_readers_make_room_for_their_own_address(start: Start, service: Service) -> None:
    server = start(limits=fast_limits(slow_after=0.3, **SLOW_READERS), max_requests=8)
    stuck = [stuck_reader(server, service) for _ in range(7)]
    service.exposition = FixedExposition()
    assert ask(server)[0].status == 200
    for sock in stuck:
        sock.close()


def test_a_slow_reader_whose_place_nobody_needs_is_let_be(start: Start, service: Service) -> None:
    server = start(limits=fast_limits(slow_after=0.01, **SLOW_READERS), max_requests=8)
    stuck = stuck_reader(server, service)
    service.exposition = FixedExposition()
    for _ in range(50):
        assert ask(server)[0].status == 200
    answer = http.client.HTTPResponse(stuck)
    answer.begin()
    assert len(answer.read()) == 400 * BLOCK
    stuck.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40000 + b"\r\n\r\n", b"413"),
        (b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"505"),
    ],
)
def test_bad_requests_are_refused(start: Start, request_bytes: bytes, status: bytes) -> None:
    server = start()
    with connect(server) as sock:
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock).startswith(b"HTTP/1.1 " + status)
    assert ask(server)[0].status == 200


def test_a_request_body_cannot_smuggle_a_request(start: Start, service: Service) -> None:
    server = start()
    inner = b"POST /-/reload HTTP/1.1\r\nHost: x\r\n\r\n"
    for framing in (
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner),
        b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner),
    ):
        with connect(server) as sock:
            sock.sendall(HEAD + framing)
            answer = read_to_end(sock)
            assert answer.count(b"HTTP/1.1") == 1
            assert (b" 411 " in answer) == (b"chunked" in framing)
    assert service.calls == []


@pytest.mark.parametrize("settings", [{}, {"max_connections_per_address": 5}])
def test_beyond_the_limit_the_longest_waiting_connection_goes(start: Start, settings: dict[str, int]) -> None:
    limit = 500 if settings else 5
    server = start(
        ServerLimits(max_connections=limit, stop_timeout=2.0, spare_threads=2), max_requests=1, **settings
    )
    held = [connect(server) for _ in range(5)]
    assert ask(server)[0].status == 200
    assert read_to_end(held[0]) == b""
    for sock in held[1:]:
        sock.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    for sock in held:
        sock.close()


def test_connections_that_are_served_do_not_go(start: Start, service: Service) -> None:
    service.gate = threading.Event()
    server = start(ServerLimits(max_connections=2, stop_timeout=2.0, spare_threads=2), max_requests=2)
    with ThreadPoolExecutor(2) as pool:
        served = [pool.submit(ask, server) for _ in range(2)]
        for _ in served:
            assert service.entered.acquire(timeout=PATIENCE)
        with connect(server) as third:
            assert read_to_end(third).startswith(b"HTTP/1.1 503")
        service.gate.set()
        assert [answer.result(PATIENCE)[0].status for answer in served] == [200, 200]
    await_200(server)


HEAD = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "begun", [b"G", HEAD, HEAD + b"Content-Length: 10\r\n\r\nabc"], ids=["line", "head", "body"]
)
def test_six_hundred_slow_connections_starve_nobody(start: Start, begun: bytes) -> None:
    """They hold neither the workers nor the places, though they come from the same address."""
    server = start(ServerLimits(stop_timeout=2.0, spare_threads=2, header_timeout=60.0), max_requests=2)
    slow = []
    try:
        for _ in range(600):
            slow.append(connect(server))
            slow[-1].sendall(begun)
        for path in ("/-/healthy", "/metrics"):
            assert ask(server, path)[0].status == 200
    finally:
        for sock in slow:
            sock.close()


def test_a_request_may_come_in_pieces(start: Start) -> None:
    server = start()
    with connect(server) as sock:
        for _ in range(2):  # and the connection is kept
            for byte in HEAD + b"\r\n":
                sock.sendall(bytes([byte]))
            sock.settimeout(10)
            answer = b""
            while b"is healthy" not in answer:
                answer += sock.recv(65536)
        sock.sendall(b"POST /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 30000)
        sock.sendall(b"x" * 30000)
        assert b" 405 " in read_to_end(sock)


def test_requests_sent_together_are_answered_in_order(start: Start) -> None:
    server = start()
    with connect(server) as sock:
        sock.sendall((HEAD + b"\r\n") * 3 + HEAD)
        answers = b""
        while answers.count(b"is healthy") < 3:
            answers += sock.recv(65536)
        # What is left is half a request, which no worker waits for.
        assert read_to_end(sock) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: x y\r\n",
        b"GET / HTTP/1.1\r\nHost: x/y\r\n",
        b"GET / HTTP/1.1\r\nHost: x@y\r\n",
        b"GET / HTTP/1.1\r\nHost: x:port\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 5\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: a\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX\r\n",
        b"GET / HTTP/1.1\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n",
        b"GET /\r HTTP/1.1\r\nHost: x\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eA==\r\nAuthorization: Basic eQ==\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nOrigin: http://y\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused_and_closed(start: Start, head: bytes) -> None:
    server = start()
    with connect(server) as sock:
        sock.sendall(head + b"\r\nx" + HEAD + b"\r\n")
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_stop_lets_a_request_finish(start: Start, service: Service) -> None:
    service.gate = threading.Event()
    server = start(limits=ServerLimits(stop_timeout=PATIENCE, spare_threads=2), max_requests=2)
    address = server.addresses[0]
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, server)
        assert service.entered.acquire(timeout=PATIENCE)
        stopping = pool.submit(server.stop)
        deadline = time.monotonic() + PATIENCE / 2
        while True:  # the listener closes first
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                break
            assert time.monotonic() < deadline
        assert not stopping.done()
        service.gate.set()
        answer, body = running.result(PATIENCE)
        assert (answer.status, body) == (200, TEXT)
        stopping.result(PATIENCE)


def test_stop_is_bounded(start: Start, service: Service) -> None:
    service.gate = threading.Event()
    server = start(limits=ServerLimits(stop_timeout=0.3, spare_threads=1), max_requests=1)
    with connect(server) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert service.entered.acquire(timeout=PATIENCE)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 15  # the request itself would go on for 20
        assert read_to_end(sock) == b""
    service.gate.set()


def test_signals(service: Service) -> None:
    options = WebOptions(listen_addresses=("127.0.0.1:0",), max_requests=1)
    app = create_app(service, options).wsgi_app
    reloaded = threading.Semaphore(0)

    def reload() -> None:
        reloaded.release()
        raise ConfigError("clio.yml", "broken", "Mend it")

    limits = ServerLimits(spare_threads=1, poll_interval=0.05)
    server = WebServer(app, options, reload, limits, reload_error=ConfigError)
    before = signal.getsignal(signal.SIGTERM)
    statuses = []

    def drive() -> None:
        deadline = time.monotonic() + 10
        while not server.addresses and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)
        if reloaded.acquire(timeout=5):
            statuses.append(ask(server)[0].status)  # a failed reload ends nothing
        os.kill(os.getpid(), signal.SIGTERM)

    driver = threading.Thread(target=drive)
    driver.start()
    server.serve_forever()
    driver.join(10)
    assert statuses == [200]
    assert server.addresses == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_is_left_after_a_stop(start: Start) -> None:
    before = set(threading.enumerate())
    server = start()
    assert ask(server)[0].status == 200
    server.stop()
    assert set(threading.enumerate()) - before == set()


def test_port_in_use(start: Start) -> None:
    host, port = start().addresses[0]
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:{port}: address already in use.*--web"):
        start(listen_addresses=("127.0.0.1:0", f"{host}:{port}"))


def test_unknown_host(start: Start) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:9"):
        start(listen_addresses=("192.0.2.1:9",))
    with pytest.raises(ListenError, match=r"cannot listen on no-such-host\.invalid:9"):
        start(listen_addresses=("no-such-host.invalid:9",))


def test_several_addresses(start: Start) -> None:
    server = start(listen_addresses=("127.0.0.1:0", "127.0.0.2:0"))
    assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2"]
    for host, port in server.addresses:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/sd")
        assert json.loads(connection.getresponse().read())[0]["targets"] == ["n1:9413"]
        connection.close()


def test_all_addresses(start: Start) -> None:
    server = start(listen_addresses=(":0",))
    port = server.addresses[0][1]
    hosts = ["127.0.0.1", "::1"] if server.addresses[0][0] == "::" else ["127.0.0.1"]
    for host in hosts:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            assert b" 200 " in read_to_end(sock)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":9777", ("", 9777)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9777", ("::1", 9777)),
        ("h:1", ("h", 1)),
    ],
)
def test_listen_address(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "9777", "h:", "h:x", "h:65536", "::1:9777", "[h]:1", "a b:1", "h:-1", "h:\u0661"]
)
def test_listen_address_refused(text: str) -> None:
    with pytest.raises(WebConfigError, match=r"--web\.listen-address"):
        parse_listen_address(text)
