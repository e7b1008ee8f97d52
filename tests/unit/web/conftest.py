from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from clio_exporter.http.app import create_app
from clio_web.options import ServerLimits, WebOptions
from clio_web.server import WebServer
from tests.unit.web.support import Authority, Service

Start = Callable[..., WebServer]


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def start(service: Service) -> Iterator[Start]:
    """Starts servers on a free port of 127.0.0.1 and stops them at the end."""
    with ExitStack() as stack:

        def run(limits: ServerLimits | None = None, **settings: Any) -> WebServer:
            options = WebOptions(**{"listen_addresses": ("127.0.0.1:0",), **settings})
            # A client of a test on a busy machine is not what these deadlines are for.
            patient = ServerLimits(header_timeout=60.0, first_byte_timeout=60.0)
            limits = limits or replace(patient, stop_timeout=2.0, spare_threads=4)
            limits = replace(limits, poll_interval=0.05)
            server = WebServer(create_app(service, options).wsgi_app, options, service.reload, limits)
            server.start()
            stack.callback(server.stop)
            return server

        yield run
