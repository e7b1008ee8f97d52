"""Serving the application: sockets, threads, TLS handshakes, deadlines and a graceful stop.

cheroot does the HTTP. These things are added here, because its defaults would let one bad client
stop the service:

- A connection waits in the selector, not in a worker, until its whole request has come (`arrival.py`;
  over TLS, where that cannot be seen, until its first record). The TLS handshake runs in a worker.
- No address has all places: of connections that wait, those of the address that has most go first
  (`places.py`). None has all workers either: it has three quarters of them at most, and while requests are
  read over TLS half. Who takes an answer slowly keeps its worker only until its address needs that.
- A watchdog ends connections whose request head, body or response takes longer than
  ServerLimits allows in total. A socket timeout alone bounds only a single read or write, so a
  client that moves one byte in time would hold a thread for ever.
- The stop is bounded: what is in flight may finish within `stop_timeout`, then it is cut.
"""

from __future__ import annotations

import io
import os
import queue
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from cheroot import errors as cheroot_errors
from cheroot.makefile import MakeFile
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.wsgi import Server as CherootServer

from clio_web.arrival import Arrival, missing, missing_hello
from clio_web.errors import WebConfigError
from clio_web.heads import StrictHeaders, StrictLines, head_problem
from clio_web.logs import get_logger
from clio_web.options import ServerLimits, WebOptions
from clio_web.places import Places, Turns, client_of
from clio_web.state_log import StateLog
from clio_web.webconfig import WebConfigMiddleware, WebConfigStore

_log = get_logger(__name__)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_THREADS_WITHOUT_LIMIT = 64
_BACKLOG = 128
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_QUEUE_WAIT = 0.1
_LOOK_AGAIN = 0.5
_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
)
_PLAIN_ON_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nthis port speaks HTTPS; use an https URL\n"
)


class ListenError(Exception):
    """An address cannot be listened on; the message names it, the reason and the remedy."""


def parse_listen_address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port`, `:port` (host is then empty: all addresses) or `[ipv6]:port`.

    Port 0 lets the system choose. Raises WebConfigError.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        valid_host = ":" in host
    else:
        valid_host = ":" not in host and not any(c.isspace() for c in host)
    if not colon or not valid_host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise WebConfigError(
            "--web.listen-address",
            f"{text!r} is not host:port",
            "Write for example :9777, 127.0.0.1:9777 or [::1]:9777",
        )
    return host, int(port)


class _Watchdog:
    """Shuts down the sockets of connections that pass their deadline. One daemon thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: dict[_Connection, float | None] = {}
        self._closing = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="http-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self, connection: _Connection, seconds: float) -> Iterator[None]:
        """Watch the connection while a worker serves it."""
        self.set(connection, seconds)
        try:
            yield
        finally:
            with self._changed:
                self._deadlines.pop(connection, None)

    def set(self, connection: _Connection, seconds: float | None) -> None:
        """A new deadline, `seconds` from now; None while the exporter itself is at work."""
        with self._changed:
            cut = self._closing
            self._deadlines[connection] = None if seconds is None else time.monotonic() + seconds
            self._changed.notify()
        if cut:
            _cut(connection.socket)

    def active(self) -> int:
        """Connections that a worker serves at this moment."""
        with self._changed:
            return len(self._deadlines)

    def cut_all(self) -> int:
        """End every connection, and those that come later; how many there were."""
        with self._changed:
            self._closing = True
            connections = list(self._deadlines)
        for connection in connections:
            _cut(connection.socket)
        return len(connections)

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                now = time.monotonic()
                late = [
                    c for c, deadline in self._deadlines.items() if deadline is not None and deadline <= now
                ]
                for connection in late:
                    self._deadlines[connection] = connection.longer(now)
                late = [connection for connection in late if self._deadlines[connection] is None]
                if not late:
                    pending = [deadline for deadline in self._deadlines.values() if deadline is not None]
                    self._changed.wait(min(pending) - now if pending else None)
                    continue
            for connection in late:
                _log.info(
                    "connection closed: too slow", client=connection.remote_addr, port=connection.remote_port
                )
                _cut(connection.socket)


def _cut(sock: socket.socket) -> None:
    """Shut a socket down under the thread that uses it, which then sees end of file."""
    with suppress(OSError):  # already closed
        # Closed with a reset: nothing of what the client did not take stays in kernel buffers, and a
        # cut answer cannot be mistaken for a whole one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        # Not ssl.SSLSocket.shutdown: that takes the TLS state away while the other thread is in it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Request(HTTPRequest):  # type: ignore[misc,unused-ignore]
    """One request, with its deadlines and a strict head."""

    header_reader = StrictHeaders()

    def read_request_line(self) -> bool:
        """Read the first line; control characters in it are refused."""
        reader = self.rfile
        self.rfile = StrictLines(reader)
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call,unused-ignore]
        except ValueError as error:
            self.simple_response("400 Bad Request", str(error))
            return False
        finally:
            self.rfile = reader

    endless = False

    def read_request_headers(self) -> bool:
        """Read the head; refuse what another server could read otherwise (request smuggling)."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call,unused-ignore]
            return False
        problem = head_problem(self.inheaders, self.request_protocol)
        if problem is not None:
            self.simple_response(*problem)
            return False
        return True

    def respond(self) -> None:
        """Answer; the scrape bounds itself, so no deadline runs until the answer begins."""
        if not self._take_body():
            self.close_connection = True
            return
        self.conn.has_read()
        self.server.watchdog.set(self.conn, None)
        super().respond()

    def _take_body(self) -> bool:
        """Read a body of permitted length while the deadline of the head runs; False if it did not come.

        The application reads without one: a client that sends a byte now and then would hold its thread.
        """
        length = int(self.inheaders.get(b"Content-Length", 0))
        if self.chunked_read or not 0 < length <= self.server.max_request_body_size:
            return True
        body = self.conn.rfile.read(length)
        if len(body) < length:
            return False
        # Nothing else is read from this connection, which closes after a request with a body.
        self.conn.rfile = io.BytesIO(body)
        return True

    def send_headers(self) -> None:
        """Begin the answer: from here the client must take it in time."""
        self.conn.writes()
        if self.chunked_read or int(self.inheaders.get(b"Content-Length", 0)) > 0:
            # No endpoint reads a body, so what follows it on this connection could be anything.
            self.close_connection = True
        super().send_headers()
        self.endless = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in self.outheaders
        )

    def write(self, chunk: bytes) -> None:
        """Send a part of the answer; of a stream of events each part must be taken in time."""
        if self.endless:
            self.conn.writes()
        super().write(chunk)
        if self.endless:  # the next event may be long in coming
            self.server.watchdog.set(self.conn, None)


class _Connection(HTTPConnection):  # type: ignore[misc,unused-ignore]
    """One connection; does its TLS handshake in the worker thread that first serves it."""

    RequestHandlerClass = _Request
    secured = False
    fresh = True

    def __init__(self, server: _Listener, *args: Any) -> None:
        super().__init__(server, *args)  # type: ignore[no-untyped-call,unused-ignore]
        self.arrival = Arrival(server.limits.max_header_bytes + server.limits.max_body_bytes + 1)
        self.began = 0.0
        self._written_by: float | None = None

    def communicate(self) -> bool:
        """Serve one request; True to keep the connection."""
        try:
            return self._communicate()
        finally:
            self._written_by = None
            self.has_read()
            self.server.serving_done(self)

    def writes(self) -> None:
        """The client must take what comes now in time."""
        limits: ServerLimits = self.server.limits
        self._written_by = time.monotonic() + limits.write_timeout
        self.server.watchdog.set(self, min(limits.slow_after, limits.write_timeout))

    def longer(self, now: float) -> float | None:
        """A later deadline (of the monotonic clock) for one that has come; None when it is over.

        A slow reader is let be while nobody of its address waits for the worker.
        """
        until = self._written_by
        if until is None or now >= until or self.server.serving.contended(self):
            return None
        return min(until, now + _LOOK_AGAIN)

    def has_read(self) -> None:
        """The request is read: the address may have another one read."""
        self.server.read_done(self)

    def arrived(self) -> bool | None:
        """Whether a whole request waits to be read; None when none will.

        Over TLS: whether the client's first record does, or anything after that.
        """
        if self.rfile.has_data():  # what came with the request before
            return not self._missing(self.rfile.peek()) or None
        if not isinstance(self.socket, ssl.SSLSocket):
            return self.arrival.look(self.socket, self._missing)
        return self.secured or self.arrival.look(self.socket, missing_hello)

    def _missing(self, data: bytes) -> int:
        limits: ServerLimits = self.server.limits
        return missing(data, limits.max_header_bytes, limits.max_body_bytes)

    def close(self) -> None:
        """Close, and give the place to others."""
        self.server.places.leave(self)
        super().close()  # type: ignore[no-untyped-call,unused-ignore]

    def _communicate(self) -> bool:
        limits: ServerLimits = self.server.limits
        with self.server.watchdog.watch(self, limits.header_timeout):
            self.socket.settimeout(limits.io_timeout)
            if isinstance(self.socket, ssl.SSLSocket) and not self.secured:
                if not self._handshake(self.socket):
                    return False
                self.secured = True
            return bool(super().communicate())  # type: ignore[no-untyped-call,unused-ignore]

    def _handshake(self, sock: ssl.SSLSocket) -> bool:
        try:
            sock.do_handshake()
        except (OSError, ValueError) as error:
            if isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST":
                try:
                    socket.socket.send(sock, _PLAIN_ON_TLS)
                    self.drain(sock)
                except OSError:
                    pass
            _log.info("TLS handshake failed", client=self.remote_addr, error=str(error))
            return False
        tls = self.server.store.current().tls
        if tls is not None and not tls.client_allowed(sock.getpeercert()):
            _log.warning(
                "client certificate refused: none of its names is in client_allowed_sans",
                client=self.remote_addr,
            )
            return False
        return True

    @staticmethod
    def drain(sock: socket.socket) -> None:
        """Take what the client has sent already: closing with unread data would reset the answer away."""
        socket.socket.shutdown(sock, socket.SHUT_WR)
        socket.socket.settimeout(sock, 0.0)
        while socket.socket.recv(sock, 65536):
            pass


class _TlsAdapter(Adapter):  # type: ignore[misc,unused-ignore]
    """Gives each new connection the TLS context in use at that moment."""

    def __init__(self, store: WebConfigStore) -> None:
        super().__init__("", "")
        self._store = store

    def bind(self, sock: socket.socket) -> socket.socket:
        """The listening socket stays plain."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[socket.socket, dict[str, Any]]:
        """Wrap without handshake."""
        tls = self._store.current().tls
        if tls is None:  # the store refuses such a change
            raise cheroot_errors.FatalSSLAlert("TLS is not configured")
        wrapped = tls.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, Any]:
        """What is added to the WSGI environment."""
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = 8192) -> Any:
        """The file object of a connection."""
        return MakeFile(sock, mode, bufsize)


class _Listener(CherootServer):  # type: ignore[misc,unused-ignore]
    """A cheroot server for one listen address."""

    ConnectionClass = _Connection

    def __init__(
        self,
        address: tuple[str, int],
        app: WsgiApp,
        store: WebConfigStore,
        limits: ServerLimits,
        threads: int,
        per_address: int,
        product: str,
    ) -> None:
        super().__init__(
            address,
            app,
            numthreads=threads,
            max=threads,
            server_name=product,
            request_queue_size=_BACKLOG,
            timeout=limits.keep_alive_timeout,  # type: ignore[arg-type,unused-ignore]
            shutdown_timeout=limits.stop_timeout,  # type: ignore[arg-type,unused-ignore]
            accepted_queue_size=limits.max_connections,
            accepted_queue_timeout=_QUEUE_WAIT,  # type: ignore[arg-type,unused-ignore]
        )
        self.limits = limits
        self.store = store
        self.watchdog = _Watchdog()
        self.max_request_header_size = limits.max_header_bytes
        self.max_request_body_size = limits.max_body_bytes
        self.expiration_interval = limits.poll_interval
        self.keep_alive_conn_limit = limits.max_connections
        self.places: Places[_Connection] = Places(limits.max_connections, per_address)
        self.serving: Turns[_Connection] = Turns(max(1, threads * 3 // 4))
        self.reading: Turns[_Connection] = Turns(max(1, threads // 2))
        self.ssl_adapter = _TlsAdapter(store) if store.tls_enabled else None
        self.bind_error: OSError | None = None
        self._overload = StateLog(_log)

    def bind(self, *args: Any) -> socket.socket:
        """Bind, keeping the error with its number (cheroot keeps only a text)."""
        try:
            return super().bind(*args)  # type: ignore[no-any-return,unused-ignore]
        except OSError as error:
            self.bind_error = error
            raise

    def put_conn(self, conn: _Connection) -> None:
        """Let a connection wait for its next request."""
        self.places.waits(conn)
        super().put_conn(conn)

    def process_conn(self, conn: _Connection) -> None:
        """Give a connection to a worker once a request has come."""
        if conn.fresh:
            conn.fresh = False
            self._admit(conn)
            return
        self.places.served(conn)
        arrived = conn.arrived()
        if arrived is None:
            conn.close()
        elif not arrived:
            if not conn.began:
                conn.began = time.time()
            self._wait(conn, conn.began + self.limits.header_timeout)
        else:
            conn.began = 0.0
            if self.serving.enter(conn, client_of(conn.remote_addr)):
                self._read(conn)

    def serving_done(self, conn: _Connection) -> None:
        """A worker is done with a request: another one of its address may have its turn."""
        following = self.serving.leave(conn)
        if following is not None:
            self._read(following)

    def _read(self, conn: _Connection) -> None:
        # A request that has come whole keeps no worker waiting; over TLS it may.
        if self.ssl_adapter is None or self.reading.enter(conn, client_of(conn.remote_addr)):
            self._dispatch(conn)

    def read_done(self, conn: _Connection) -> None:
        """A worker has read this connection's request: another one of its address may have its turn."""
        following = self.reading.leave(conn)
        if following is not None:
            self._dispatch(following)

    def _admit(self, conn: _Connection) -> None:
        placed, goes = self.places.enter(conn, client_of(conn.remote_addr))
        if placed and goes is None:
            self._overload.report("connections", True, "connections are accepted again")
        else:
            self._overload.report(
                "connections",
                False,
                "too many connections: the longest idle are closed, or new ones refused",
                client=conn.remote_addr,
            )
        if goes is not None:
            _cut(goes.socket)  # the selector then sees its end
        if placed:
            self._wait(conn, time.time() + self.limits.first_byte_timeout)
        else:
            self._refuse(conn)

    def _wait(self, conn: _Connection, until: float) -> None:
        self.put_conn(conn)
        # The selector closes what is unused for keep_alive_timeout; this goes earlier.
        conn.last_used = until - self.limits.keep_alive_timeout

    def _dispatch(self, conn: _Connection) -> None:
        try:
            self.requests.put(conn)
        except queue.Full:
            self._refuse(conn)
            self.read_done(conn)
            self.serving_done(conn)

    def _refuse(self, conn: _Connection) -> None:
        try:
            if self.ssl_adapter is None:
                conn.socket.settimeout(0.0)
                conn.socket.send(_OVERLOADED)
        except OSError:
            pass  # the answer is a courtesy
        conn.close()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Log as everything here does; a client that went away is no error of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            _log.debug("connection ended early", error=msg)
        else:
            _log.log(level, str(msg), exc_info=error if traceback else None)


class WebServer:
    """One or more listen addresses in front of one application.

    Use `start()` and `stop()`, or `serve_forever()` which also handles signals.
    """

    def __init__(
        self,
        app: WsgiApp,
        options: WebOptions,
        reload: Callable[[], None] | None = None,
        limits: ServerLimits | None = None,
        *,
        reload_error: type[Exception] = WebConfigError,
        product: str = "clio",
    ) -> None:
        """Read the web configuration file. Raises WebConfigError.

        `product` (`name/version`) is what the Server header says. `reload` is called on SIGHUP (pass the
        service's); it raises `reload_error`, of which the text is logged, where what it reads cannot be used.
        """
        self._limits = limits if limits is not None else ServerLimits()
        self._addresses = [parse_listen_address(text) for text in options.listen_addresses]
        self._store = WebConfigStore(options.config_file)
        self._reload = reload
        self._reload_error = reload_error
        self._product = product
        self._app = WebConfigMiddleware(app, self._store)
        self._per_address = options.max_connections_per_address
        busy = options.max_requests or _THREADS_WITHOUT_LIMIT
        # Threads beyond the limit of scrapes answer health checks and the 503s.
        self._threads = busy + self._limits.spare_threads
        self._listeners: list[_Listener] = []
        self._serving: list[threading.Thread] = []
        self._events: queue.SimpleQueue[int] = queue.SimpleQueue()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of every listening socket, with the ports that were chosen for 0."""
        return [(listener.bind_addr[0], listener.bind_addr[1]) for listener in self._listeners]

    @property
    def tls_enabled(self) -> bool:
        """Whether connections are TLS."""
        return self._store.tls_enabled

    @property
    def certificate_not_after(self) -> float | None:
        """Unix time at which the certificate in use ends; None without TLS. Looks for a changed file."""
        tls = self._store.current().tls
        return None if tls is None else tls.not_after

    def start(self) -> None:
        """Listen on every address and serve in the background. Raises ListenError, leaving nothing open."""
        # systemd's variable would make cheroot take file descriptor 3 for its socket.
        os.environ.pop("LISTEN_PID", None)
        try:
            for host, port in self._addresses:
                self._start_one(host, port)
        except BaseException:
            self.stop()
            raise
        for listener in self._listeners:
            host, port = listener.bind_addr[:2]
            _log.info("listening", address=_display(host, port), tls=self.tls_enabled)

    def _start_one(self, host: str, port: int) -> None:
        # All addresses: the IPv6 wildcard takes IPv4 too; without IPv6 on this machine, IPv4 alone.
        candidates = (host,) if host else (("::", "0.0.0.0") if socket.has_ipv6 else ("0.0.0.0",))  # noqa: S104
        failure: OSError | None = None
        for candidate in candidates:
            listener = _Listener(
                (candidate, port),
                self._app,
                self._store,
                self._limits,
                self._threads,
                self._per_address,
                self._product,
            )
            ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
            # Workers inherit "daemon" from the thread that starts them: one stuck in a system call
            # must not keep the process from ending.
            thread = threading.Thread(
                target=_serve, args=(listener, ready), name=f"http-{candidate}-{port}", daemon=True
            )
            thread.start()
            error = ready.get()
            if error is None:
                self._listeners.append(listener)
                self._serving.append(thread)
                return
            listener.watchdog.stop()
            if not isinstance(error, OSError):
                raise error
            failure = listener.bind_error or error
            if failure.errno not in (97, 99):  # EAFNOSUPPORT, EADDRNOTAVAIL: no IPv6 here
                break
        reason = failure.strerror if failure is not None and failure.strerror else str(failure)
        raise ListenError(
            f"cannot listen on {_display(host, port)}: {reason.lower()}. "
            "Stop what uses the address, or give another with --web.listen-address"
        ) from failure

    def stop(self) -> None:
        """Stop listening, let requests in flight finish within the limit, then cut them. Bounded."""
        limit = self._limits.stop_timeout
        deadline = time.monotonic() + limit
        stopping = [
            threading.Thread(target=listener.stop, name="http-stop", daemon=True)
            for listener in self._listeners
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(max(0.0, deadline - time.monotonic()))
        cut = sum(listener.watchdog.cut_all() for listener in self._listeners)
        if cut:
            _log.warning("requests were cut at the end of the stop", requests=cut, after_seconds=limit)
        for thread in (*stopping, *self._serving):
            thread.join(1.0)
            if thread.is_alive():
                _log.warning("a request does not end and is left behind", thread=thread.name)
        for listener in self._listeners:
            listener.watchdog.stop()
            for connection in (*listener.reading.queued(), *listener.serving.queued()):
                connection.close()
        self._listeners.clear()
        self._serving.clear()

    def request_stop(self) -> None:
        """Make `serve_forever` return, from any thread."""
        self._events.put(signal.SIGTERM)

    def serve_forever(self, started: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully; SIGHUP reloads. Main thread only.

        ``started`` is called once it listens; what that raises ends the serving. Raises ListenError.
        The signal handlers found are put back at the end.
        """

        def note(number: int, _frame: FrameType | None) -> None:
            self._events.put(number)

        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in handled}
        try:
            self.start()
            try:
                started()
            except BaseException:
                self.stop()
                raise
            while (number := self._events.get()) == signal.SIGHUP:
                self.reload()
            _log.info("stopping", signal=signal.Signals(number).name)
            self.stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def reload(self) -> None:
        """Read the web configuration again and call `reload`; problems are logged, the old state stays."""
        failed = False
        for read in (self._store.reload, self._reload):
            try:
                if read is not None:
                    read()
            except (WebConfigError, self._reload_error) as error:
                failed = True
                _log.error("reload failed, the previous configuration stays in use", error=str(error))
            except Exception as error:  # noqa: BLE001 - a failed reload must not end the process
                failed = True
                _log.error("reload failed, the previous configuration stays in use", exc_info=error)
        if not failed:
            _log.info("reload done")


def _serve(listener: _Listener, ready: queue.SimpleQueue[BaseException | None]) -> None:
    try:
        listener.prepare()
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        ready.put(error)
        return
    ready.put(None)
    try:
        listener.serve()
    except Exception as error:  # noqa: BLE001 - nobody above this thread would see it
        _log.error("the HTTP server ended", exc_info=error)


def _display(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


__all__: Sequence[str] = ("ListenError", "WebServer", "parse_listen_address")
