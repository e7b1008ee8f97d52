"""Requests to the two services, from the bytes on the wire to the answer, without sockets."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock
from urllib.parse import quote, unquote_to_bytes

from cheroot.errors import MaxSizeExceeded
from flask import Flask

from clio_client.address import CLIENT_PORT_OFFSET
from clio_client.config.errors import ConfigError
from clio_control_api.errors import Conflict
from clio_control_api.principals import Role
from clio_control_api.tokens import Token, digest_of
from clio_exporter.http.app import create_app
from clio_web.options import ServerLimits, WebOptions
from clio_web.server import _Request
from tests.fuzz.mutate import PARTS
from tests.ports import closed_port
from tests.unit.control_api.support import control_api
from tests.unit.web.support import Service

VIEWER: Final = "clio_" + "v" * 43
OPERATOR: Final = "clio_" + "o" * 43
"""Tokens that requests of the corpus have."""

_LIMITS: Final = ServerLimits()
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class _Connection:
    """What a request needs of its connection; each comes from another client, so that none is blocked."""

    numbers = itertools.count()
    remote_port = 1
    ssl_env = None

    def __init__(self, data: bytes) -> None:
        self.rfile = io.BytesIO(data)
        self.wfile = io.BytesIO()
        number = next(self.numbers) % 2**24
        self.remote_addr = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    def has_read(self) -> None:
        """Nobody counts."""

    def writes(self) -> None:
        """Nobody waits."""


class _Watchdog:
    def set(self, *_: object) -> None:
        """Nobody waits."""


def answers(app: Callable[..., Any], data: bytes) -> bytes:
    """What the server answers to these bytes; b"" where it ends the connection without."""
    server = SimpleNamespace(
        ssl_adapter=None, protocol="HTTP/1.1", server_name="localhost", software="", bind_addr=("::", 9777),
        max_request_header_size=_LIMITS.max_header_bytes, max_request_body_size=_LIMITS.max_body_bytes,
        wsgi_app=app, watchdog=_Watchdog(), can_add_keepalive_connection=True,
    )  # fmt: skip
    server.gateway = _gateway
    connection = _Connection(data)
    request = _Request(server, connection)
    with contextlib.suppress(MaxSizeExceeded):  # cheroot's connection answers it
        request.parse_request()
        if request.ready:
            request.respond()
    return connection.wfile.getvalue()


def shaped(data: bytes) -> bytes:
    """A request that is well formed, of parts that need not be: method, path, query, headers, body.

    Damage to a whole request ends at its first line, nine times in ten.
    """
    method, path, query, headers, body = (data.split(PARTS) + [b""] * 5)[:5]
    pairs = (pair.partition(b"=") for pair in query.split(b"\n") if pair)
    target = quote(path, safe="/") + "?" + "&".join(f"{quote(n)}={quote(v, safe='')}" for n, _, v in pairs)
    lines = [_CONTROL.sub(b"", line) for line in headers.split(b"\n") if line]
    verb = re.sub(rb"[^A-Z]", b"", method) or b"GET"
    head = [verb + b" /" + target.lstrip("/").encode() + b" HTTP/1.1", *lines]
    head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join((*head, b"", body))


def taken_apart(request: bytes) -> bytes:
    """The parts of a request that `shaped` makes one of."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    path, _, query = target.partition(b"?")
    kept = [line for line in headers if not line.startswith(b"Content-Length")]
    values = unquote_to_bytes(query.replace(b"&", b"\n").replace(b"+", b" "))
    return PARTS.join((method, unquote_to_bytes(path), values, b"\n".join(kept), body))


def _gateway(request: Any) -> Any:
    from cheroot.wsgi import Gateway_10

    return Gateway_10(request)


def _checked(app: Flask) -> Callable[[bytes], None]:
    """Errors that the application does not expect come out instead of becoming a 500."""

    def failure(error: Exception) -> Any:
        raise error

    app.register_error_handler(Exception, failure)
    app.config["PROPAGATE_EXCEPTIONS"] = True

    def decode(data: bytes) -> None:
        answer = answers(app, data)
        status = answer[9:12].decode("latin-1")
        assert not answer or (status.isdigit() and (int(status) < 500 or status in ("501", "503", "505"))), (
            answer
        )

    return decode


@contextlib.contextmanager
def exporter_requests(_home: Path) -> Iterator[Callable[[bytes], None]]:
    """The exporter over a service that answers at once."""
    service = Service(reload_error=ConfigError("hosts", "x", "y"))
    decode = _checked(create_app(service, WebOptions(max_requests=1, enable_lifecycle=True)))

    def one(data: bytes) -> None:
        try:
            decode(data)
        except AssertionError as error:
            if b"500 INTERNAL" not in error.args[0] or b"reload failed" not in error.args[0]:
                raise
        finally:
            service.calls.clear()

    yield one


@contextlib.contextmanager
def control_api_requests(home: Path) -> Iterator[Callable[[bytes], None]]:
    """The control API of two nodes that are down. Actions are read, and refused: others are under way."""
    known = (
        Token("vera", Role.VIEWER, digest_of(VIEWER)),
        Token("otto", Role.OPERATOR, digest_of(OPERATOR)),
    )
    (home / "tokens").write_text("".join(f"{token.line}\n" for token in known))
    (home / "tokens").chmod(0o600)
    alertmanager = {"enabled": True, "actions": {"ClioNodeDown": "restart"}}
    settings: dict[str, Any] = {"tokens_file": str(home / "tokens"), "alertmanager": alertmanager}
    with closed_port() as port:
        hosts = f"127.0.0.1:{port - CLIENT_PORT_OFFSET}\nlocalhost:{port - CLIENT_PORT_OFFSET}\n"
        with control_api(home, hosts, **settings) as api, contextlib.ExitStack() as stack:
            services = api.built.services
            for owner in (services.runner, services.operations):
                stack.enter_context(mock.patch.object(owner, "start", side_effect=Conflict("busy")))
            yield _checked(api.built.app)
