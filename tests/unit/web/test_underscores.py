"""Headers whose names WSGI cannot tell from others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from clio_web.options import WebOptions
from clio_web.server import WebServer
from tests.unit.web.support import read_to_end


def test_a_header_with_underscores_is_not_taken_for_the_one_with_dashes() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    server = WebServer(app, WebOptions(listen_addresses=("127.0.0.1:0",)))
    server.start()
    try:
        with socket.create_connection(server.addresses[0], 10) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\nX_Forwarded_For: 10.6.6.6\r\n"
                b"X-Forwarded_Proto: https\r\nContent_Length: 5\r\nX_Only: 1\r\nConnection: close\r\n\r\n"
            )
            assert read_to_end(client).startswith(b"HTTP/1.1 200")
    finally:
        server.stop()
    (environ,) = seen
    assert environ["HTTP_X_FORWARDED_FOR"] == "10.0.0.1"
    assert not {"HTTP_X_FORWARDED_PROTO", "HTTP_X_ONLY", "CONTENT_LENGTH"} & set(environ)
