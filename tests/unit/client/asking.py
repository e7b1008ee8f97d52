"""A runtime client that tells whole answers, for tests of what lies below the typed questions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from clio_client import client
from clio_client.errors import RuntimeClientError
from clio_client.protocol.codec import decode_document
from clio_client.transport.interface import NodeAddress, Transport

Reply = dict[int, Any] | RuntimeClientError
"""Decoded documents by container id, or why there are none."""


class RuntimeClient(client.RuntimeClient):
    """Asks any query of any node."""

    def monitor(self, node: NodeAddress, query: str, timeout: float) -> dict[int, Any]:
        reply = self.monitor_many([(node, query)], timeout)[0]
        if isinstance(reply, RuntimeClientError):
            raise reply
        return reply

    def monitor_many(self, requests: Iterable[tuple[NodeAddress, str]], timeout: float) -> list[Reply]:
        """All at once; for each request, in order, its reply."""

        async def ask(transport: Transport) -> list[Reply]:
            deadline = asyncio.get_running_loop().time() + timeout
            return list(await asyncio.gather(*(_reply(transport, *r, deadline) for r in requests)))

        return self.call(ask, timeout + 2.0)


async def _reply(transport: Transport, node: NodeAddress, query: str, deadline: float) -> Reply:
    try:
        answer = (await transport.monitor(node, query, deadline)).raise_for_code()
        return {container: decode_document(raw) for container, raw in answer.documents.items()}
    except RuntimeClientError as error:
        return error
