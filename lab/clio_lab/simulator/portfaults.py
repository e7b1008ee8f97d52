"""Ports on which no runtime answers: accepting and mute, or speaking HTTP."""

from __future__ import annotations

import asyncio

_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"
    b"Bad Request\n"
)


class FaultyPort:
    """A TCP server that is no runtime: ``hang`` never sends a byte, ``non-zmq`` answers with HTTP 400."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, address: str, port: int) -> None:
        """Listen on ``address``:``port``; :class:`OSError` when it is taken."""
        self._server = await asyncio.start_server(self._serve, address, port)

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await reader.read(4096):
                if self._kind == "non-zmq":
                    writer.write(_HTTP_ANSWER)
                    await writer.drain()
                    break
        except OSError:
            pass  # the client went away, which is its right
        finally:
            self._writers.discard(writer)
            writer.close()
