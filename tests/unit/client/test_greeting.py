"""The look at a port before ZeroMQ connects to it; what other servers say there is in test_zeromq.py."""

from __future__ import annotations

import asyncio
import socket

import pytest

from clio_client.errors import ConnectionLostError
from clio_client.transport.greeting import Greeting

PATIENCE = 30.0


def test_a_runtime_that_ends_before_it_accepts_is_lost_and_nothing_else() -> None:
    """Its kernel has taken the connection, and resets it."""

    async def connect_and_lose() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        greeting = Greeting("127.0.0.1", listener.getsockname()[1])
        waiting = asyncio.create_task(greeting.wait())
        try:
            while greeting.stage != "greeting":  # noqa: ASYNC110 - a stage has no event
                await asyncio.sleep(0.01)
        finally:
            listener.close()
        with pytest.raises(ConnectionLostError, match="reset the connection before a greeting"):
            await waiting

    asyncio.run(asyncio.wait_for(connect_and_lose(), PATIENCE))
